//! What people decide about a mail.

use postroom_proto::catalogue::outbox as catalogue;
use postroom_proto::v1::{OutboxState, RecipientState};

use super::{Standing, problem};
use crate::ledger::Micros;

/// What somebody decides about a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Send it once more, or at once.
    Retry {
        /// Also when its recipients may get it a second time.
        may_arrive_twice: bool,
    },
    /// Give it up.
    Cancel,
    /// It did arrive.
    Confirm,
}

/// Why something is not done to a mail in its state; a sentence for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongState(pub &'static str);

impl Standing {
    /// After somebody's decision. `None`: it is so already.
    pub fn decide(mut self, decision: Decision, now: Micros) -> Result<Option<Self>, WrongState> {
        use OutboxState::{Bounced, Failed, Queued, Sending, Sent, Unknown, Unspecified};
        match (decision, self.state) {
            (_, Unspecified) => return Err(WrongState("its state is not known")),
            (Decision::Retry { .. }, Sending) => return Ok(None),
            (Decision::Retry { .. }, Queued) if self.due_at.is_none_or(|due| due <= now) => return Ok(None),
            (Decision::Retry { .. }, Queued) => self.due_at = Some(now),
            (Decision::Retry { may_arrive_twice: false }, Unknown) => {
                return Err(WrongState(
                    "it may have arrived: ask its recipient first; then confirm it, or retry it and say that it may \
                     arrive twice",
                ));
            }
            // Giving it up told nobody what had become of it.
            (Decision::Retry { may_arrive_twice: false }, Failed) if self.marked_at.is_some() => {
                return Err(WrongState(
                    "it may have arrived before it was given up: ask its recipient first; then leave it, or retry it \
                     and say that it may arrive twice",
                ));
            }
            (Decision::Retry { .. }, Unknown | Failed | Bounced | Sent) => {
                // While it is not known what became of an attempt, it is repeated for whom it was and for nobody else: what
                // is heard or found of it later then holds for all who wait.
                let others = self.marked_at.is_none();
                for recipient in self.recipients.iter_mut().filter(|it| others && it.state != RecipientState::Accepted)
                {
                    recipient.state = RecipientState::Pending;
                }
                if self.pending() == 0 {
                    return Err(WrongState("every recipient's server has taken it; nobody is left to send it to"));
                }
                (self.state, self.due_at, self.since) = (Queued, Some(now), now);
                // If that attempt succeeded, a copy of it may be found from now on.
                self.sent_at = self.sent_at.or(self.marked_at);
                (self.deferrals, self.claimed, self.marked_at) = (0, false, None);
                self.problem = None;
            }
            (Decision::Cancel, Failed) => return Ok(None),
            (Decision::Cancel, Queued | Unknown) => {
                (self.state, self.due_at, self.claimed) = (Failed, None, false);
                self.problem = Some(problem(&catalogue::CANCELLED, None));
                self.date_problem(now, None);
            }
            (Decision::Cancel, Sending) => {
                return Err(WrongState("a worker is sending it at the moment; look again when that has ended"));
            }
            (Decision::Cancel, Sent | Bounced) => return Err(WrongState("it was sent and cannot be called back")),
            (Decision::Confirm, Sent) => return Ok(None),
            (Decision::Confirm, Unknown) => {
                self.resolve_pending(RecipientState::Accepted, "", "");
                (self.sent_at, self.claimed) = (self.marked_at.or(Some(now)), false);
                self.end_resolved(now);
                self.marked_at = None;
            }
            (Decision::Confirm, _) => {
                return Err(WrongState("only a mail whose outcome is unknown can be confirmed"));
            }
        }
        Ok(Some(self))
    }
}
