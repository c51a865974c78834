//! What lies in a folder that was numbered anew is looked for in the ledger, window by window, before anything is taken.

use std::collections::HashMap;

use super::{Broken, MAX_WINDOW, Planned, Reader, Ready, Stage, WINDOW};
use crate::mailbox::batch::{Draft, Item, Known};
use crate::mailbox::imap::command::{Error, Stream};
use crate::mailbox::imap::fetch::{Summary, headers, summaries};
use crate::mailbox::known::{MOST_SOUGHT, Mark};
use crate::mailbox::status::now;

/// First width of a window whose messages are looked for in the ledger.
pub(super) const SOUGHT_WINDOW: u32 = MOST_SOUGHT as u32;

impl<S: Stream + std::fmt::Debug> Reader<'_, S> {
    /// Looks at the next window of what is looked for in the ledger.
    pub(super) async fn look_for_known(&mut self, last: u32) -> Result<(), Broken> {
        let Some(from) = self.cursor.done.checked_add(1).filter(|from| *from <= last) else {
            self.cursor.finish_rekeying(now());
            self.stage = Stage::End;
            return Ok(());
        };
        if let Some(item) = self.care.known(from) {
            self.planned.push_back(Planned::Ready(item));
            return Ok(());
        }
        let culprit = self.care.next_known(from).map_or(last, |uid| uid - 1);
        let mut to = from.saturating_add(self.width - 1).min(last).min(culprit);
        let looked = self.marked(from, to).await;
        let mut found = match looked {
            Ok(found) => found,
            Err(error) => {
                let only = (to == from).then_some(from);
                self.care.blame_window(&self.cursor, only, self.width, &error);
                return Err(error.into());
            }
        };
        if found.len() > MOST_SOUGHT {
            found.truncate(MOST_SOUGHT);
            to = found.last().map_or(to, |(summary, _)| summary.uid);
            self.width = SOUGHT_WINDOW;
        } else if found.len() < self.width as usize / 10 && self.care.window().is_none() {
            let widest = if found.is_empty() { MAX_WINDOW } else { WINDOW };
            self.width = (self.width * 4).min(widest);
        }
        let summaries: Vec<Summary> = found.iter().map(|(summary, _)| *summary).collect();
        let mut known = self.known_among(found).await?;
        for summary in summaries {
            self.planned.push_back(match known.remove(&summary.uid) {
                Some(known) => Planned::Ready(Item::Known(summary, known)),
                None => match self.plan(summary) {
                    Planned::Pass(uid) => Planned::Ready(Item::Left(uid)),
                    planned => planned,
                },
            });
        }
        self.planned.push_back(Planned::Pass(to));
        Ok(())
    }

    /// All that was read, in case that something was passed over that no report has told of: a long way through what is not
    /// taken must not begin again with every connection.
    pub(super) fn so_far(&mut self) -> Ready {
        let moved = self.cursor != self.told;
        self.told.clone_from(&self.cursor);
        let draft = || Draft { messages: Vec::new(), blobs: Vec::new(), next: self.cursor.clone() };
        Ready { drafts: moved.then(draft).into_iter().collect(), room: None }
    }

    /// The messages of a window that may be in the ledger although they came into the folder after it was numbered anew, with
    /// what they are known by. When they are many, the window ends behind the first [`MOST_SOUGHT`].
    pub(super) async fn restored(
        &mut self,
        found: &mut Vec<Summary>,
        to: &mut Option<u32>,
    ) -> Result<Vec<(Summary, Mark)>, Error> {
        let now = now();
        let mut restored = found.clone();
        restored.retain(|summary| self.cursor.may_be_restored(summary.received, now));
        if restored.len() > MOST_SOUGHT {
            restored.truncate(MOST_SOUGHT);
            *to = restored.last().map(|last| last.uid);
            found.retain(|summary| to.is_none_or(|to| summary.uid <= to));
        }
        self.marked_of(restored).await
    }

    /// Those of these messages that the ledger has, by UID.
    pub(super) async fn known_among(&mut self, sought: Vec<(Summary, Mark)>) -> Result<HashMap<u32, Known>, Broken> {
        if sought.is_empty() {
            return Ok(HashMap::new());
        }
        let originals = self.finder.find(self.cursor.numbering.round, &sought).await?;
        let known = sought.into_iter().zip(originals).filter(|(_, original)| !original.is_empty());
        Ok(known
            .map(|((summary, mark), original)| (summary.uid, Known { original, fingerprint: mark.fingerprint }))
            .collect())
    }

    /// What is in a window, and what the headers of the first [`MOST_SOUGHT`] messages are known by.
    async fn marked(&mut self, from: u32, to: u32) -> Result<Vec<(Summary, Mark)>, Error> {
        let found = summaries(&mut self.folder.commands, from, Some(to)).await?;
        self.marked_of(found).await
    }

    async fn marked_of(&mut self, found: Vec<Summary>) -> Result<Vec<(Summary, Mark)>, Error> {
        let uids: Vec<u32> = found.iter().take(MOST_SOUGHT).map(|summary| summary.uid).collect();
        let mut marks: HashMap<u32, Mark> = HashMap::new();
        if !uids.is_empty() {
            headers(&mut self.folder.commands, &uids, |uid, header| {
                marks.insert(uid, Mark::of(header));
            })
            .await?;
        }
        let marked = |summary: Summary| (summary, marks.remove(&summary.uid).unwrap_or_default());
        Ok(found.into_iter().map(marked).collect())
    }
}
