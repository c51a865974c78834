//! Opening mailboxes: the fence is raised, and the worker gets all it needs to read.

use postroom_proto::convert::{from_duration, to_timestamp};
use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::reason::{Failure, Reason, name};
use postroom_proto::v1;

use super::{Intake, check, mailbox, session};
use crate::clock;
use crate::definition;
use crate::ledger::backlog::Release;
use crate::store::{get_all, key};

/// Most leases of one call.
const MOST: usize = 500;

fn release(release: Option<Release>) -> v1::BacklogRelease {
    match release {
        None => v1::BacklogRelease::default(),
        Some(Release { since, rate_per_minute }) => {
            v1::BacklogRelease { released: true, since_time: since.map(to_timestamp), rate_per_minute }
        }
    }
}

/// How long, in microseconds, the mailbox keeps messages after intake, when it deletes them then.
fn keep(definition: &v1::MailboxDefinition) -> Option<i64> {
    let after = definition.after_intake.as_ref().filter(|after| after.policy() == v1::AfterIntakePolicy::Delete)?;
    let keep = after.keep.as_ref().and_then(from_duration)?;
    Some(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX))
}

impl Intake {
    /// Opens each lease of the request; outcomes are per mailbox.
    pub async fn open(&self, request: v1::OpenMailboxesRequest) -> Result<v1::OpenMailboxesResponse, Failure> {
        let session = session(&request.session)?;
        self.binding.standing().require()?;
        if request.leases.len() > MOST {
            return Err(Failure::invalid_field("leases", format!("are more than {MOST}; open them in several calls")));
        }
        // Ordering: the store is asked before the ledger's fence moves, and secrets leave only once it has.
        let held = self.leased(&session, &request.leases).await?;
        let openings = held.into_iter().map(async |held| {
            let (uid, epoch) = held?;
            self.open_one(&session, uid, epoch).await
        });
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

    /// Which of the leases the store says are held, each with what is wrong otherwise.
    async fn leased(
        &self,
        session: &SessionId,
        leases: &[v1::MailboxLease],
    ) -> Result<Vec<Result<(MailboxUid, Epoch), Failure>>, Failure> {
        let mut held: Vec<_> = leases.iter().map(|lease| mailbox("leases.mailbox", &lease.mailbox)).collect();
        let keys: Vec<String> = held.iter().flatten().map(key::assignment).collect();
        let mut found = get_all(&self.store, &keys).await?.into_iter();
        let checked = held.drain(..).zip(leases).map(|(uid, lease)| {
            let (uid, epoch) = (uid?, Epoch(lease.epoch));
            check(found.next().flatten().as_ref(), session, &uid, epoch)?;
            Ok((uid, epoch))
        });
        Ok(checked.collect())
    }

    /// A definition that cannot be resolved comes after the fence as well, so that the reader's word on it is taken.
    async fn open_one(&self, session: &SessionId, uid: MailboxUid, epoch: Epoch) -> Result<v1::OpenedMailbox, Failure> {
        let fence = self.fence(epoch, session);
        let opened = self.ledger.open(&uid, &fence).await?.ok_or_else(|| {
            Failure::new(Reason::LeaseLost, format!("{uid} was opened under a higher epoch than {epoch}"))
        })?;
        // Whoever begins anew reports anew: what could not be stored before is told again if it still cannot. What was
        // stored after all, without anybody hearing of it, has no report that follows and would be told for ever.
        self.unstored.note(uid.as_str(), &Ok(()));
        let model = self.model.borrow().clone();
        let definition = definition::resolve(&model, &self.vault, &uid).inspect_err(|failure| {
            tracing::warn!(mailbox = %uid, error = failure.message, "a mailbox cannot be opened");
        })?;
        // Read after the fence: what a former holder has settled is not named again.
        let unsettled_source_keys = match keep(&definition) {
            None => opened.unsettled,
            Some(keep) => self.ledger.due(&uid, clock::now().saturating_sub(keep)).await?,
        };
        Ok(v1::OpenedMailbox {
            generation: fence.generation.0,
            definition: Some(definition),
            cursor: Some(v1::Cursor { protocol: opened.cursor.protocol, value: opened.cursor.value }),
            unsettled_source_keys,
            status: opened.status,
            reading_since_time: opened.reading_since.map(to_timestamp),
            backlog_release: opened.release.map(release),
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
        if request.lives.len() > MOST {
            let text = format!("are more than {MOST}; send them in several calls");
            return Err(Failure::invalid_field("lives", text));
        }
        self.lives.note(&request.lives, &self.model.borrow().clone(), clock::now());
        if request.statuses.is_empty() {
            return Ok(());
        }
        let mut statuses = Vec::with_capacity(request.statuses.len());
        for status in request.statuses {
            let uid = mailbox("statuses.mailbox", &status.mailbox)?;
            statuses.push((uid, self.fence(Epoch(status.epoch), &session), status));
        }
        Ok(self.ledger.record_statuses(statuses).await?)
    }
}
