//! Mail that comes back from behind the server that took it (RFC 3464).

use postroom_proto::catalogue::outbox as catalogue;
use postroom_proto::v1::{OutboxState, RecipientState};

use super::{Recipient, Standing, problem};
use crate::ledger::Micros;

impl Standing {
    /// After it came back for some recipients, addresses in small letters. `None`: that is known already, or it never was
    /// with those. A bounce that names nobody is of all who may have it.
    pub fn bounce(mut self, recipients: &[Recipient], now: Micros) -> Option<Self> {
        let (alone, lost) = (self.recipients.len() == 1, self.marked_at.is_some());
        // Who was refused, or was not tried yet, cannot have sent it back.
        let may_have = |mine: &Recipient| match mine.state {
            RecipientState::Accepted | RecipientState::Bounced => true,
            RecipientState::Pending => lost,
            RecipientState::Refused | RecipientState::Unspecified => false,
        };
        let all_out_of_question = !recipients.is_empty()
            && recipients.iter().all(|said| self.recipients.iter().any(|it| it.key == said.key && !may_have(it)));
        if all_out_of_question || !self.recipients.iter().any(may_have) {
            return None;
        }
        let taken_before = self.was_taken();
        let (mut changed, mut answers) = (false, false);
        for mine in self.recipients.iter_mut().filter(|mine| may_have(mine)) {
            let named = recipients.iter().find(|it| it.key == mine.key);
            // Behind an alias the bounce names an address that nobody here wrote to.
            let said = named.or(recipients.first().filter(|_| alone));
            if said.is_none() && !recipients.is_empty() {
                continue;
            }
            changed |= mine.state != RecipientState::Bounced;
            // Whoever had to wait for it until the last attempt had it by that.
            answers |= mine.state == RecipientState::Pending;
            mine.state = RecipientState::Bounced;
            if let Some(said) = said {
                mine.status.clone_from(&said.status);
                mine.diagnostic.clone_from(&said.diagnostic);
            }
        }
        // Of a mail to several that went on under another address it is not known whom it did not reach.
        if !changed && self.state == OutboxState::Bounced {
            return None;
        }
        self.sent_at = self.sent_at.or(self.marked_at).or(Some(now));
        match self.state {
            // What is under way again stays so, for those that are left; and what is not known stays so too where the
            // bounce is of a former attempt.
            OutboxState::Sending => {}
            OutboxState::Queued if self.pending() > 0 => {}
            OutboxState::Unknown | OutboxState::Failed if lost && taken_before && !answers => {
                self.due_at = None;
                return changed.then_some(self);
            }
            _ => {
                if lost {
                    // A server had it, or it could not have come back.
                    self.resolve_pending(RecipientState::Accepted, "", "");
                }
                (self.state, self.due_at, self.claimed) = (OutboxState::Bounced, None, false);
                self.marked_at = None;
            }
        }
        let said = recipients.iter().map(|it| it.diagnostic.as_str()).find(|text| !text.is_empty());
        self.problem = Some(problem(&catalogue::BOUNCED, said));
        self.date_problem(now, None);
        Some(self)
    }
}
