//! To the end of the folder: fetching, committing and settling, side by side as far as their order allows.

use std::fmt;
use std::time::Duration;

use super::{Broken, Reader, Ready};
use crate::mailbox::commit::{Committer, Stop};
use crate::mailbox::cursor::Numbering;
use crate::mailbox::imap::command::{Error, Stream};
use crate::mailbox::imap::connection::Folder;
use crate::mailbox::imap::fetch::set;
use crate::mailbox::imap::settle::{AfterIntake, delete, settle};
use crate::mailbox::standing::Activity;
use crate::mailbox::status::now;

/// How a catch-up went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaughtUp {
    /// The lease is ending: the connection may be in the middle of a command.
    pub ending: bool,
    /// There was a reason to stop between two groups: the connection is at rest, and not everything was read.
    pub stopped: bool,
    /// What was to be done in the mailbox was refused, with these words.
    pub settle_refused: Option<String>,
    /// Some messages are to be tried again soon.
    pub pending: bool,
    /// All that was looked for in the ledger is dealt with; what came later is still to be read.
    pub rekeyed: bool,
    /// Old messages wait, to be released or for the next step of their release.
    pub waits: bool,
}

/// Reads to the end of the folder, commits, and settles in the mailbox what is committed. `stop` is asked between groups;
/// the group under way is finished.
pub async fn run<S: Stream + fmt::Debug>(
    mut reader: Reader<'_, S>,
    committer: &mut Committer,
    after: &AfterIntake,
    stop: impl Fn() -> bool,
) -> Result<CaughtUp, Broken> {
    let lease = committer.lease().clone();
    reader = reader.standing(committer.stands());
    let rekeys = reader.cursor.rekeys_up_to().is_some();
    let mut settle_refused = None;
    let mut ready: Option<Ready> = None;
    let mut stopped = false;
    loop {
        let last = ready.take();
        stopped = stopped || stop();
        let commit = async {
            if let Some(Ready { drafts, room }) = last {
                for draft in drafts {
                    committer.commit(draft).await?;
                }
                // Ordering: its part of the budget is free only now that the bytes are.
                drop(room);
            }
            Ok::<_, Stop>(())
        };
        let fetch = async {
            if stopped {
                return Some(Ok(None));
            }
            tokio::select! {
                biased;
                () = lease.ending() => None,
                next = reader.next() => Some(next),
            }
        };
        // Ordering: a commit is never dropped because a fetch failed: its outcome would be unknown.
        let (committed, fetched) = futures::join!(commit, fetch);
        committed?;
        let Some(fetched) = fetched else {
            let (pending, rekeyed, waits) = (false, false, false);
            return Ok(CaughtUp { ending: true, stopped, settle_refused, pending, rekeyed, waits });
        };
        ready = fetched?;
        if settle_refused.is_none() {
            settle_refused = settle_committed(reader.folder, reader.cursor.numbering, committer, after).await?;
        }
        if ready.is_none() {
            break;
        }
    }
    committer.flush(&reader.cursor).await?;
    let pending = reader.cursor.pending().into_iter().any(|uid| !reader.is_held_back(uid));
    let rekeyed = rekeys && reader.cursor.rekeys_up_to().is_none();
    Ok(CaughtUp { ending: false, stopped, settle_refused, pending, rekeyed, waits: reader.waits() })
}

/// Marks, moves or deletes what the ledger has. Returns the server's words when it refuses: reading goes on without.
async fn settle_committed<S: Stream + fmt::Debug>(
    folder: &mut Folder<S>,
    numbering: Numbering,
    committer: &mut Committer,
    after: &AfterIntake,
) -> Result<Option<String>, Broken> {
    if committer.to_settle.is_empty() && committer.to_delete.is_empty() {
        return Ok(None);
    }
    let _settling = committer.stands().moving(Activity::Settling, folder.commands.moves());
    if !committer.to_settle.is_empty() {
        let mut uids = committer.to_settle.clone();
        uids.sort_unstable();
        uids.dedup();
        if *after != AfterIntake::Leave {
            committer.may_change().await?;
            if let Some(text) = refusal(settle(folder, &uids, after).await)? {
                return Ok(Some(text));
            }
        }
        match after {
            AfterIntake::Delete(_) => committer.settled_for_now(&uids),
            AfterIntake::Seen | AfterIntake::Move(_) | AfterIntake::Leave => committer.mark_settled(numbering, &uids),
        }
    }
    if let AfterIntake::Delete(keep) = after
        && !committer.to_delete.is_empty()
    {
        let uids = committer.to_delete.clone();
        committer.may_change().await?;
        match delete(folder, &uids, received_before(now(), *keep)).await {
            // The ledger is told that nothing is left to do with them, or they would be named again and again.
            Ok(kept) if !kept.is_empty() => {
                tracing::warn!(
                    uids = set(&kept),
                    "messages are not deleted: their server says that they are younger than what was taken in"
                );
            }
            deleted => {
                if let Some(text) = refusal(deleted.map(drop))? {
                    return Ok(Some(text));
                }
            }
        }
        committer.mark_settled(numbering, &uids);
    }
    Ok(None)
}

/// The server's words when it refused.
fn refusal(done: Result<(), Error>) -> Result<Option<String>, Error> {
    match done {
        Ok(()) => Ok(None),
        Err(Error::Refused { text, .. }) => Ok(Some(text)),
        Err(error) => Err(error),
    }
}

/// What was taken in at least `keep` ago was received before this time, in microseconds since 1970, by a server whose
/// clock is an hour ahead at most, and by no more than half of `keep`: with more, a message that has just come would be
/// old enough.
fn received_before(now: i64, keep: Duration) -> i64 {
    const CLOCKS: i64 = 3600 * 1_000_000;
    let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    now.saturating_sub(keep).saturating_add(CLOCKS.min(keep / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_just_come_is_never_old_enough() {
        const HOUR: i64 = 3600 * 1_000_000;
        let (now, hours) = (1_000_000 * HOUR, |hours: u64| Duration::from_secs(hours * 3600));
        assert_eq!(received_before(now, hours(168)), now - 167 * HOUR);
        assert_eq!(received_before(now, hours(1)), now - HOUR / 2);
        assert!(received_before(now, Duration::from_secs(1)) < now);
        assert!(received_before(now, Duration::MAX) < 0);
    }
}
