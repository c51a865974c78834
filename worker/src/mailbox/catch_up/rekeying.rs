//! What lies in a folder that was numbered anew is looked for in the ledger, window by window, before anything is taken.

use std::collections::HashMap;

use super::{Broken, MAX_WINDOW, Planned, Reader, Ready, Stage, WINDOW};
use crate::diagnosis::imap::passing;
use crate::mailbox::batch::{Draft, Item, Known};
use crate::mailbox::imap::command::{Error, Stream};
use crate::mailbox::imap::fetch::{Summary, headers, summaries};
use crate::mailbox::known::{MOST_SOUGHT, Mark};
use crate::mailbox::status::now;

/// First width of a window whose messages are looked for in the ledger.
pub(super) const SOUGHT_WINDOW: u32 = MOST_SOUGHT as u32;

/// When the headers of more messages than these are refused, each of them, it is the command that the server refuses. Then
/// nothing is put aside, and the mailbox waits until somebody has looked at it.
const REFUSED_WITH_THE_COMMAND: usize = 8;

/// Why a message is not taken whose headers the server does not give.
const WITHHELD: &str = "its folder was numbered anew, and the server lists it but does not give its headers, so it cannot be \
    told whether it was taken before; look at it in the mailbox, and replay it if it was not";

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
        let mut decided = self.decided(found).await?;
        for summary in summaries {
            self.planned.push_back(match decided.remove(&summary.uid) {
                Some(item) => Planned::Ready(item),
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
        let draft = || Draft { messages: Vec::new(), blobs: Vec::new(), next: self.cursor.clone(), fetched: None };
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

    /// What the ledger decides about these messages, by UID: those that it has, those of which that cannot be told, and those
    /// of a restore that the start policy leaves. About the others it says nothing.
    pub(super) async fn decided(&mut self, sought: Vec<(Summary, Mark)>) -> Result<HashMap<u32, Item>, Broken> {
        if sought.is_empty() {
            return Ok(HashMap::new());
        }
        let originals = self.finder.find(self.cursor.numbering.round, &sought).await?;
        let now = now();
        let decided = sought.into_iter().zip(originals).filter_map(|((summary, mark), original)| {
            let Summary { uid, seen, received, .. } = summary;
            let item = if !original.is_empty() {
                Item::Known(summary, Known { original, fingerprint: mark.fingerprint })
            } else if self.cursor.leaves_restored(uid, seen, received, now) {
                Item::LeftRestored(uid)
            } else if mark.withheld && self.cursor.takes(uid, seen, received) {
                Item::Failed(summary, WITHHELD.into())
            } else {
                return None;
            };
            Some((uid, item))
        });
        Ok(decided.collect())
    }

    /// What is in a window, and what the headers of the first [`MOST_SOUGHT`] messages are known by.
    async fn marked(&mut self, from: u32, to: u32) -> Result<Vec<(Summary, Mark)>, Error> {
        let found = summaries(&mut self.folder.commands, from, Some(to)).await?;
        self.marked_of(found).await
    }

    async fn marked_of(&mut self, found: Vec<Summary>) -> Result<Vec<(Summary, Mark)>, Error> {
        match self.marks_of(&found).await? {
            (marked, Some(refusal))
                if marked.len() > REFUSED_WITH_THE_COMMAND && marked.iter().all(|(_, mark)| mark.withheld) =>
            {
                Err(refusal)
            }
            (marked, _) => Ok(marked),
        }
    }

    /// These messages with what their headers are known by, as far as the server gives them, and how it refused some.
    ///
    /// A NO for some is halved until it is about one message: the connection is at rest after it, and the others are not to
    /// wait for that one.
    pub(super) async fn marks_of(&mut self, found: &[Summary]) -> Result<(Vec<(Summary, Mark)>, Option<Error>), Error> {
        let uids: Vec<u32> = found.iter().take(MOST_SOUGHT).map(|summary| summary.uid).collect();
        let mut marks: HashMap<u32, Mark> = HashMap::new();
        let mut refusal = None;
        let mut parts = if uids.is_empty() { Vec::new() } else { vec![uids.to_vec()] };
        while let Some(part) = parts.pop() {
            let given = headers(&mut self.folder.commands, &part, |uid, header| {
                marks.insert(uid, Mark::of(header));
            });
            match given.await {
                Ok(too_long) => {
                    for uid in too_long {
                        marks.entry(uid).or_default();
                    }
                }
                Err(Error::Refused { text, bad: false, command }) if passing(&text).is_none() => {
                    let rest: Vec<u32> = part.into_iter().filter(|uid| !marks.contains_key(uid)).collect();
                    if rest.len() > 1 {
                        let (first, second) = rest.split_at(rest.len() / 2);
                        parts.extend([second.to_vec(), first.to_vec()]);
                    }
                    refusal = Some(Error::Refused { command, text, bad: false });
                }
                Err(error) => return Err(error),
            }
        }
        let marked = |summary: &Summary| (*summary, marks.remove(&summary.uid).unwrap_or_else(Mark::withheld));
        Ok((found.iter().map(marked).collect(), refusal))
    }
}
