//! Messages that failed, tried again.

use std::time::Duration;

use tokio::time::Instant;

use super::{Broken, Reader, Ready};
use crate::config::Reading;
use crate::mailbox::batch::{Item, draft};
use crate::mailbox::imap::command::Stream;
use crate::mailbox::imap::fetch::{Summary, set, summaries_of};
use crate::mailbox::status::now;

impl<S: Stream + std::fmt::Debug> Reader<'_, S> {
    /// Looks which of the pending messages are still there, and which of them the ledger has under other keys.
    pub(super) async fn look_at_pending(&mut self) -> Result<Option<Ready>, Broken> {
        let mut pending = self.cursor.pending();
        pending.retain(|uid| !self.is_held_back(*uid));
        if pending.is_empty() || !self.care.tries_pending(Instant::now(), self.reading.pending_retry) {
            return Ok(None);
        }
        let mut known = Vec::new();
        let mut rest = Vec::new();
        for uid in pending {
            match self.care.known(uid) {
                Some(item) => known.push(item),
                None => rest.push(uid),
            }
        }
        for uids in rest.chunks(self.care.pending_at_once(rest.len())) {
            let found = match summaries_of(&mut self.folder.commands, &set(uids), 0).await {
                Ok(found) => found,
                Err(error) => {
                    self.care.blame_pending(&self.cursor, uids, &error);
                    return Err(error.into());
                }
            };
            let there = |uid: &u32| found.iter().any(|summary| summary.uid == *uid);
            known.extend(uids.iter().filter(|uid| !there(uid)).map(|uid| Item::Vanished(*uid)));
            self.pending.extend(found.into_iter().filter(|summary| uids.contains(&summary.uid)));
        }
        self.care.pending_looked_at();
        known.extend(self.seek_pending().await?);
        let drafts = draft(&mut self.cursor, known, self.reading.batch_messages);
        Ok(Some(Ready { drafts, room: None }))
    }

    /// Of the pending messages that are there, those that are not to be fetched: of some it could not be told whether the
    /// ledger has them. Ordering: only called when all that was read is committed, as it is when a reader begins.
    async fn seek_pending(&mut self) -> Result<Vec<Item>, Broken> {
        let now = now();
        let may_be_known = |summary: &Summary| self.cursor.may_be_known(summary.uid, summary.received, now);
        let sought: Vec<Summary> = self.pending.iter().copied().filter(may_be_known).collect();
        // Whatever is refused here is about these messages: others have come by.
        let (marked, _) = self.marks_of(&sought).await?;
        let decided = self.decided(marked).await?;
        self.pending.retain(|summary| !decided.contains_key(&summary.uid));
        Ok(decided.into_values().collect())
    }
}

/// How soon pending messages ask for another look, at most `poll`.
pub fn next_look(reading: &Reading, pending: bool) -> Duration {
    let time = reading.poll.min(reading.idle_renew);
    if pending { time.min(reading.pending_retry) } else { time }
}
