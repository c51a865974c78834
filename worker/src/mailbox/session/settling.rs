//! What is done in the mailbox after intake, and what of it is due.

use std::time::Duration;

use postroom_proto::convert::from_duration;
use postroom_proto::v1::{self, AfterIntakePolicy, MailboxDefinition};
use tokio::time::Instant;

use super::Session;
use crate::diagnosis::{Diagnosis, imap};
use crate::mailbox::commit::Committer;
use crate::mailbox::cursor::Numbering;
use crate::mailbox::imap::settle::AfterIntake;
use crate::mailbox::standing::Activity;

/// Longest time between two questions what is to be deleted. Nobody waits for it.
const ASK_AT_LEAST: Duration = Duration::from_secs(3600);

/// What the definition says. A policy of a later version is the one that does the least harm.
pub(super) fn after_intake(definition: &MailboxDefinition) -> AfterIntake {
    let Some(after) = &definition.after_intake else { return AfterIntake::Seen };
    match after.policy() {
        AfterIntakePolicy::Seen | AfterIntakePolicy::Unspecified => AfterIntake::Seen,
        AfterIntakePolicy::Move => AfterIntake::Move(after.folder.clone()),
        AfterIntakePolicy::Leave => AfterIntake::Leave,
        // Without a time nothing is deleted: who does not say how long something is kept does not say that it goes.
        AfterIntakePolicy::Delete => match after.keep.as_ref().and_then(from_duration) {
            Some(keep) => AfterIntake::Delete(keep),
            None => AfterIntake::Seen,
        },
    }
}

/// What is to be told of it: `refused` are the words of a server that refused it.
pub(super) fn trouble(after: &AfterIntake, refused: Option<&str>, can_expunge: bool) -> Option<Diagnosis> {
    match (after, refused) {
        (AfterIntake::Delete(_), Some(text)) => Some(imap::delete_refused(text)),
        (AfterIntake::Delete(_), None) => (!can_expunge).then(imap::expunge_unsupported),
        (AfterIntake::Move(target), Some(text)) => Some(imap::settle_refused(text, Some(target))),
        (_, Some(text)) => Some(imap::settle_refused(text, None)),
        (_, None) => None,
    }
}

/// Hands over what the opening named, once: from then on the committer knows what is left of it, also when its
/// connection is lost.
pub(super) fn recall(
    committer: &mut Committer,
    after: &AfterIntake,
    numbering: Numbering,
    unsettled: &mut Option<Vec<String>>,
) {
    let Some(keys) = unsettled.take() else { return };
    match after {
        AfterIntake::Delete(_) => committer.recall_due(numbering, &keys),
        AfterIntake::Seen | AfterIntake::Move(_) | AfterIntake::Leave => committer.recall_unsettled(numbering, &keys),
    }
}

impl Session {
    /// Asks what is to be deleted by now, when that was not asked for a while.
    pub(super) async fn ask_what_is_due(
        &mut self,
        definition: &MailboxDefinition,
        keep: Duration,
        numbering: Numbering,
        committer: &mut Committer,
    ) {
        let pause = (keep / 24).clamp(self.shared.reading.poll.min(ASK_AT_LEAST), ASK_AT_LEAST);
        if self.asked_what_is_due.elapsed() < pause || !committer.to_delete.is_empty() {
            return;
        }
        self.asked_what_is_due = Instant::now();
        let _asking = self.standing.at(Activity::Asking);
        let lease = v1::MailboxLease { mailbox: self.mailbox.to_string(), epoch: self.epoch.0 };
        match self.shared.reporter.open(lease).await {
            // By a newer definition something else may be due, or nothing: this session is opened again for that.
            Ok(opened) if opened.definition.as_ref().map(|it| it.revision) == Some(definition.revision) => {
                committer.recall_due(numbering, &opened.unsettled_source_keys);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(mailbox = %self.mailbox, %error, "what is to be deleted is asked for later"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mailbox::cursor::source_key;
    use crate::mailbox::lease::{Switch, Trust};
    use crate::report::nobody::Nobody;

    #[test]
    fn nothing_is_deleted_that_nobody_said_how_long_to_keep() {
        let of = |policy: i32, seconds: Option<i64>| {
            let keep = seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
            let after = v1::AfterIntake { policy, folder: String::new(), keep };
            after_intake(&MailboxDefinition { after_intake: Some(after), ..MailboxDefinition::default() })
        };
        let delete = AfterIntakePolicy::Delete.into();
        assert_eq!(of(delete, Some(60)), AfterIntake::Delete(Duration::from_secs(60)));
        assert_eq!((of(delete, None), of(delete, Some(-60))), (AfterIntake::Seen, AfterIntake::Seen));
        assert_eq!(of(99, Some(60)), AfterIntake::Seen);
    }

    #[test]
    fn a_connection_that_is_lost_forgets_nothing_that_is_to_be_deleted() {
        let (_switch, lease) = Switch::new(&Trust::new());
        let opened = v1::OpenedMailbox::default();
        let mut committer = Committer::new(Arc::new(Nobody), lease, "mbx-1", 7, &opened);
        let (after, numbering) = (AfterIntake::Delete(Duration::from_secs(60)), Numbering::from(9));
        let mut unsettled = Some([4, 1, 2].map(|uid| source_key(numbering, uid)).to_vec());
        for _connection in 0..2 {
            recall(&mut committer, &after, numbering, &mut unsettled);
            assert_eq!(committer.to_delete, [1, 2, 4]);
        }
    }

    #[test]
    fn a_server_that_cannot_expunge_is_told_of() {
        let after = AfterIntake::Delete(Duration::from_secs(60));
        let code = |refused, can| trouble(&after, refused, can).map(|found| found.code);
        assert_eq!(code(None, true), None);
        assert_eq!(code(None, false).as_deref(), Some("EXPUNGE_UNSUPPORTED"));
        assert_eq!(code(Some("no"), true).as_deref(), Some("DELETE_REFUSED"));
        assert_eq!(trouble(&AfterIntake::Seen, None, false), None);
    }
}
