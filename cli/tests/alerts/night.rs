//! A night: mailboxes stop in several ways, and each raises the alert that says which and why.

use std::net::SocketAddr;
use std::time::Duration;

use postroom_proto::v1::ProblemKind;
use postroom_testbed::prometheus::Alert;
use postroom_testbed::{Link, Prometheus};
use tokio::time::{Instant, sleep};

use crate::control_plane::ControlPlane;
use crate::harness::{PASSWORD, PATIENCE, Stage, eventually, mailbox};
use crate::process::free_address;
use crate::rules::quick;

/// Time between two scrapes.
const SCRAPE: Duration = Duration::from_secs(1);
/// How long nothing may be wrong before something is broken.
const CALM: Duration = Duration::from_secs(10);

/// Mailboxes, and what becomes of each.
const WELL: &str = "well@contoso.example";
const SILENT: &str = "silent@contoso.example";
const DOWN: &str = "down@contoso.example";
const SLOW: &str = "slow@contoso.example";
const REFUSED: &str = "refused@contoso.example";
const NO_FOLDER: &str = "no-folder@contoso.example";

struct Night {
    stage: Stage,
    links: [Link; 3],
}

impl Night {
    async fn falls() -> Self {
        let stage = Stage::set().await;
        stage.testbed.tenant.set_password(REFUSED, PASSWORD);
        let imap = SocketAddr::from(([127, 0, 0, 1], stage.testbed.imap_port()));
        let links =
            [Link::start(imap).await.unwrap(), Link::start(imap).await.unwrap(), Link::start(imap).await.unwrap()];
        Self { stage, links }
    }

    fn model(&self, password: &str, more: &str) -> String {
        let bed = &self.stage.testbed;
        let (ca, host) = (serde_json::json!(bed.ca_file()), bed.host());
        let (authority, secret) = (bed.tenant.authority(), serde_json::json!(self.stage.secret()));
        let (service, user) = (&bed.service().client_id, &bed.user().client_id);
        let server = |name: &str, port: u16| {
            format!(
                "  - {{name: {name}, address: {authority:?}, authentication: oauth-service, clientId: {service}, \
                 secret: {{value: {secret}}}, imap: {{host: {host}, port: {port}}}, caFile: {ca}}}\n"
            )
        };
        let [silent, down, slow] = self.links.each_ref().map(|link| link.addr().port());
        let port = bed.imap_port();
        let servers = server("Well", port) + &server("Silent", silent) + &server("Down", down) + &server("Slow", slow);
        format!(
            "instances:
  - {{name: core1}}
  - {{name: core2, pool: north}}
incomingServers:
{servers}  - {{name: Users, address: {authority:?}, authentication: oauth-user, clientId: {user},
     imap: {{host: {host}, port: {port}}}, caFile: {ca}}}
queues:
  - name: Billing
    instance: core1
    addresses:
      - {{email: {WELL}, server: Well}}
      - {{email: {SILENT}, server: Silent}}
      - {{email: {DOWN}, server: Down}}
      - {{email: {SLOW}, server: Slow}}
      - {{email: {REFUSED}, server: Users, password: {{value: {password:?}}}}}
{more}"
        )
    }
}

/// Those that fire.
async fn firing(prometheus: &Prometheus) -> Vec<Alert> {
    let alerts = prometheus.alerts().await.unwrap();
    alerts.into_iter().filter(|alert| alert.firing).collect()
}

/// Waits until an alert fires, about this mailbox if one is named.
async fn fires(prometheus: &Prometheus, name: &str, about: &str) -> Alert {
    let until = Instant::now() + PATIENCE;
    loop {
        let alerts = firing(prometheus).await;
        let found =
            alerts.iter().find(|it| it.name == name && (about.is_empty() || it.labels.values().any(|l| l == about)));
        if let Some(found) = found {
            return found.clone();
        }
        assert!(Instant::now() < until, "{name} does not fire for {about:?}: {alerts:#?}");
        sleep(SCRAPE / 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_stops_a_mailbox_raises_the_alert_that_says_so_and_what_is_well_raises_none() {
    let night = Night::falls().await;
    let stage = &night.stage;
    let (at, at_one, at_two) = (free_address(), free_address(), free_address());
    let plane = {
        let quick = ["--lease-heartbeat=300ms", "--lease-leader-ttl=1s", "--lease-margin=500ms", "--lease-ttl=5s"];
        let args = ["--listen", "127.0.0.1:0", "--observe-listen", &at, "--observe-interval", "500ms"];
        let args = [&args[..], &quick[..]].concat();
        ControlPlane::launch(stage.folder.path(), &stage.data(), "control-plane.log", &args).await
    };
    plane.apply(&night.model(PASSWORD, "")).await;
    let one = plane.worker("one", &["--observe-listen", &at_one, "--reading-poll", "2s"]);
    plane.read_by("one").await;
    // It reads the queues of nobody yet.
    let two = plane.worker("two", &["--observe-listen", &at_two, "--pool", "north"]);
    let jobs = [
        ("postroom-control-plane", vec![at.parse().unwrap()]),
        ("postroom-worker", vec![at_one.parse().unwrap(), at_two.parse().unwrap()]),
    ];
    let prometheus = Prometheus::start(&jobs, &quick(), SCRAPE).await.unwrap();
    eventually("all are scraped", || async {
        let up = prometheus.values("up").await.unwrap();
        up.len() == 3 && up.iter().all(|(_, value)| *value > 0.5)
    })
    .await;

    // Before the first scrape it knows nothing of the control plane, and says so.
    eventually("nothing fires", || async { firing(&prometheus).await.is_empty() }).await;

    // Mail comes, and all is well. The instance takes none meanwhile, which is no alert for hours.
    let calm = Instant::now();
    let mut number = 0;
    while calm.elapsed() < CALM {
        for to in [WELL, SILENT, DOWN, SLOW] {
            stage.deliver(to, &format!("calm-{number}"), 1).await;
        }
        number += 1;
        let alerts = firing(&prometheus).await;
        assert!(alerts.is_empty(), "all is well: {alerts:#?}");
        sleep(SCRAPE).await;
    }

    // One after the other, since each says something else.
    let [silent, down, slow] = &night.links;
    silent.set_silent(true);
    down.set_refusing(true);
    slow.set_delay(Duration::from_secs(6));
    stage.deliver(SLOW, "slow", 1).await;
    let wrong = night.model(
        "wrong",
        &format!("  - name: Typo\n    instance: core1\n    addresses:\n      - {{email: {NO_FOLDER}, folder: Nowhere, server: Well}}\n"),
    );
    plane.apply(&wrong).await;
    let lags = fires(&prometheus, "PostroomDeliveryLags", SLOW).await;
    assert!(lags.summary.contains(SLOW) && lags.summary.contains("Billing"), "{lags:?}");
    let refused = fires(&prometheus, "PostroomSignInRefused", REFUSED).await;
    assert_eq!(refused.labels["code"], "AADSTS50126", "{refused:?}");
    fires(&prometheus, "PostroomMailboxNeedsMending", NO_FOLDER).await;
    fires(&prometheus, "PostroomMailboxStoppedReading", DOWN).await;
    fires(&prometheus, "PostroomMailboxStoppedReading", SILENT).await;
    // Only that nothing is heard of it tells: its reader waits, or tries again, and nobody is told to mend anything.
    let waits = mailbox(&plane.client(), SILENT).await.problem;
    assert!(waits.as_ref().is_none_or(|it| it.kind() == ProblemKind::Transient), "{waits:?}");
    let alerts = firing(&prometheus).await;
    let about: Vec<&Alert> = alerts.iter().filter(|it| it.labels.values().any(|label| label == SILENT)).collect();
    let mends = ["PostroomSignInRefused", "PostroomMailboxNeedsMending"];
    assert!(!about.is_empty() && about.iter().all(|it| !mends.contains(&it.name.as_str())), "{about:#?}");

    // A pool loses its only worker.
    two.kill();
    let north = format!(
        "{wrong}  - name: North\n    instance: core2\n    addresses:\n      - {{email: north@contoso.example, server: Well}}\n"
    );
    plane.apply(&north).await;
    fires(&prometheus, "PostroomWorkerGone", &at_two).await;
    let unread = fires(&prometheus, "PostroomMailboxesUnread", "north").await;
    assert_eq!(unread.labels["reason"], "no-worker", "{unread:?}");

    // Nothing is said against what is well, and when the links are whole again what they stopped is taken back.
    let alerts = firing(&prometheus).await;
    assert!(!alerts.iter().any(|it| it.labels.values().any(|label| label == WELL)), "{alerts:#?}");
    for link in &night.links {
        link.heal();
    }
    let healed = [SILENT, DOWN, SLOW];
    eventually("what is healed is no alert any more", || async {
        let alerts = firing(&prometheus).await;
        !alerts.iter().any(|it| it.labels.get("mailbox").is_some_and(|it| healed.contains(&it.as_str())))
    })
    .await;

    // The control plane goes, too.
    plane.process.kill();
    fires(&prometheus, "PostroomControlPlaneGone", "").await;
    fires(&prometheus, "PostroomWorkerUntrusted", &at_one).await;
    drop(one);
}
