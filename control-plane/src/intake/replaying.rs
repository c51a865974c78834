//! A message that was put aside, read again by the holder of its mailbox, becomes a contact.

use postroom_proto::id::{Epoch, Generation, MailboxUid, SessionId};
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;

use super::{Intake, reporting};
use crate::clock;
use crate::lease::record::assignment;
use crate::ledger::Fence;
use crate::ledger::message::{NotReplayed, Replay, Replayed};
use crate::store::key;

/// Who holds a mailbox at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The session.
    pub session: SessionId,
    /// Epoch of its lease.
    pub epoch: Epoch,
    /// Generation that belongs to it.
    pub generation: Generation,
}

impl Intake {
    /// Who holds a mailbox. `None`: nobody.
    pub async fn held(&self, mailbox: &MailboxUid) -> Result<Option<Held>, Failure> {
        let entry = self.store.get(&key::assignment(mailbox)).await?;
        let assigned = entry.as_ref().and_then(assignment).map(|(_, assigned)| assigned);
        Ok(assigned.map(|it| Held { session: it.session, epoch: it.epoch, generation: self.generation() }))
    }

    /// Commits what the holder read, behind its fence.
    pub async fn replay(
        &self,
        mailbox: &MailboxUid,
        held: &Held,
        read: v1::ReportedMessage,
        by: &str,
    ) -> Result<Replayed, Failure> {
        let model = self.model.borrow().clone();
        let place = model.mailbox(mailbox).ok_or_else(|| {
            Failure::new(
                Reason::NotFound,
                format!("no queue reads {mailbox} any more: there is no place for a contact"),
            )
        })?;
        let intake = reporting::intake(&place);
        let message = reporting::message(read, place.queue.max_message_bytes())?;
        self.check_body(&message).await?;
        let instance = intake.instance_uid.clone();
        let fence = Fence { generation: held.generation, epoch: held.epoch, session: held.session.clone() };
        let replay = Replay { mailbox: mailbox.clone(), fence, intake, message, by: by.to_owned() };
        let replayed = self.ledger.replay(replay, clock::now()).await?.map_err(not_replayed)?;
        if matches!(replayed, Replayed::Made(_)) {
            self.arrivals.raise(&instance);
        }
        Ok(replayed)
    }
}

fn not_replayed(why: NotReplayed) -> Failure {
    match why {
        NotReplayed::LeaseLost => {
            Failure::new(Reason::LeaseLost, "the mailbox changed hands while the message was read; try again")
        }
        NotReplayed::Unknown => Failure::new(Reason::NotFound, why.to_string()),
    }
}
