//! Whether this control plane can serve: for those who send it calls, by HTTP and by gRPC.
//!
//! It serves without a leader, too: instances take contacts and reply. So that is told of the lease service alone.

use std::time::Duration;

use postroom_proto::observe::Health;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::lease::handle::Handle;
use crate::ledger::SharedLedger;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// The ledger answers a small question within this time, or it is too slow to serve anybody.
const ANSWER: Duration = Duration::from_secs(5);

/// The service whose health is that of leases.
pub const LEASES: &str = "postroom.v1.LeaseService";

/// Looks until it is told to stop, and says then that nothing is served any more.
pub async fn run(
    health: Health,
    reporter: HealthReporter,
    leader: Handle,
    ledger: SharedLedger,
    stop: CancellationToken,
) {
    let looking = async {
        loop {
            let answered = timeout(ANSWER, ledger.newest_contact_change()).await;
            let reasons = match answered {
                Ok(Ok(_)) => Vec::new(),
                Ok(Err(error)) => vec![format!("the ledger cannot be read: {error}")],
                Err(_) => vec![format!("the ledger has not answered for {} s", ANSWER.as_secs())],
            };
            let whole = if reasons.is_empty() { ServingStatus::Serving } else { ServingStatus::NotServing };
            health.set(reasons);
            reporter.set_service_status("", whole).await;
            let led = matches!(timeout(ANSWER, leader.sessions()).await, Ok(Ok(_)));
            let leases = if led { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status(LEASES, leases).await;
            sleep(LOOK).await;
        }
    };
    let beating = health.beat();
    tokio::select! {
        () = stop.cancelled() => {}
        () = looking => {}
        () = beating => {}
    }
    health.set(vec!["it is stopping".into()]);
    for service in ["", LEASES] {
        reporter.set_service_status(service, ServingStatus::NotServing).await;
    }
}
