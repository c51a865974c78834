//! Opening mailboxes: the fence is raised, and the worker gets all it needs to read.

use postroom_proto::id::{Epoch, SessionId};
use postroom_proto::reason::{Failure, Reason, name};
use postroom_proto::v1;

use super::{Intake, mailbox, session};
use crate::definition;

/// Most leases of one call.
const MOST: usize = 500;

impl Intake {
    /// Opens each lease of the request; outcomes are per mailbox.
    pub async fn open(&self, request: v1::OpenMailboxesRequest) -> Result<v1::OpenMailboxesResponse, Failure> {
        let session = session(&request.session)?;
        self.binding.standing().require()?;
        if request.leases.len() > MOST {
            return Err(Failure::invalid_field("leases", format!("are more than {MOST}; open them in several calls")));
        }
        let openings = request.leases.iter().map(|lease| self.open_one(&session, lease));
        let outcomes = futures::future::join_all(openings).await;
        let outcomes = request.leases.iter().zip(outcomes).map(|(lease, outcome)| v1::OpenOutcome {
            mailbox: lease.mailbox.clone(),
            outcome: Some(match outcome {
                Ok(opened) => v1::open_outcome::Outcome::Opened(opened),
                Err(failure) => v1::open_outcome::Outcome::Refused(v1::Refusal {
                    reason: name(failure.reason).into(),
                    message: failure.message,
                }),
            }),
        });
        Ok(v1::OpenMailboxesResponse { outcomes: outcomes.collect() })
    }

    async fn open_one(&self, session: &SessionId, lease: &v1::MailboxLease) -> Result<v1::OpenedMailbox, Failure> {
        let uid = mailbox("leases.mailbox", &lease.mailbox)?;
        let epoch = Epoch(lease.epoch);
        // Ordering: the store is asked before the ledger's fence moves, and secrets leave only once it has. A definition
        // that cannot be resolved comes after the fence as well, so that the reader's word on it is taken.
        self.check_held(session, &uid, epoch).await?;
        let fence = self.fence(epoch, session);
        let opened = self.ledger.open(&uid, &fence).await?.ok_or_else(|| {
            Failure::new(Reason::LeaseLost, format!("{uid} was opened under a higher epoch than {epoch}"))
        })?;
        // Whoever begins anew reports anew: what could not be stored before is told again if it still cannot. What was
        // stored after all, without anybody hearing of it, has no report that follows and would be told for ever.
        self.unstored.note(uid.as_str(), &Ok(()));
        let model = self.model.borrow().clone();
        let definition = definition::resolve(&model, &self.vault, &uid).inspect_err(|failure| {
            tracing::warn!(mailbox = %uid, failure = failure.message, "a mailbox cannot be opened");
        })?;
        Ok(v1::OpenedMailbox {
            generation: fence.generation.0,
            definition: Some(definition),
            cursor: Some(v1::Cursor { protocol: opened.cursor.protocol, value: opened.cursor.value }),
            unsettled_source_keys: opened.unsettled,
            status: opened.status,
        })
    }

    /// Records what readers say about their mailboxes.
    pub async fn record_statuses(&self, request: v1::ReportStatusRequest) -> Result<(), Failure> {
        let session = session(&request.session)?;
        if request.statuses.len() > MOST {
            return Err(Failure::invalid_field(
                "statuses",
                format!("are more than {MOST}; send them in several calls"),
            ));
        }
        let mut statuses = Vec::with_capacity(request.statuses.len());
        for status in request.statuses {
            let uid = mailbox("statuses.mailbox", &status.mailbox)?;
            statuses.push((uid, self.fence(Epoch(status.epoch), &session), status));
        }
        Ok(self.ledger.record_statuses(statuses).await?)
    }
}
