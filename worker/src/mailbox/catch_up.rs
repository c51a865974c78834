//! From the cursor to the last message of the folder.
//!
//! Window by window it looks at what is there, fetches what is to be taken in groups bounded in bytes and count, and
//! fetches the next group while the last is being committed. A byte budget shared by all mailboxes bounds what is
//! fetched and not yet committed.
//!
//! What lay in a folder as it was numbered anew is looked for in the ledger first, window by window, and only what is not
//! there is taken. Ordering: a window is looked for only when everything before it is committed, since the ledger gives each
//! of its messages once, and only a commit takes it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::OwnedSemaphorePermit;

pub use self::budget::Budget;
pub use self::pending::next_look;
use self::rekeying::SOUGHT_WINDOW;
pub use self::run::{CaughtUp, run};
use super::backlog::Step;
use super::batch::{Draft, Item, draft};
use super::care::Care;
use super::commit::Stop;
use super::cursor::Cursor;
use super::imap::command::{Error, Stream};
use super::imap::connection::Folder;
use super::imap::fetch::{Summary, bodies, summaries};
use super::known::Finder;
use super::standing::{Activity, Standing};
use super::status::{Life, now};
use super::traced::Fetched;
use crate::config::Reading;

mod backlog;
mod budget;
mod pending;
mod rekeying;
mod run;

/// First width of a window, in UIDs.
const WINDOW: u32 = 2000;
/// Widest window: its summaries, 24 bytes each, are in memory at once.
const MAX_WINDOW: u32 = 1 << 17;

/// Most bytes that are parsed on a thread of the runtime.
const MAX_PARSED_HERE: usize = 256 * 1024;
/// What a message costs at least, in bytes of a larger one.
const LEAST_WORK: usize = 2 * 1024;

/// What is to be done with a message of a window.
#[derive(Debug, Clone)]
enum Planned {
    Ready(Item),
    Pass(u32),
    /// With the time before which it was received.
    Leave(u32, i64),
    TooLarge(Summary),
    Fetch(Summary),
}

/// Reads a folder from a cursor on.
pub struct Reader<'f, S: Stream + fmt::Debug> {
    folder: &'f mut Folder<S>,
    care: &'f mut Care,
    /// How far it has read; ahead of what is committed.
    cursor: Cursor,
    reading: &'f Reading,
    max_message_bytes: u64,
    budget: Budget,
    planned: VecDeque<Planned>,
    /// Pending messages to try, each alone.
    pending: VecDeque<Summary>,
    stage: Stage,
    width: u32,
    finder: Finder,
    standing: Standing,
    /// All that was read is committed, as far as this reader can know: nothing was handed out since it was asked last.
    committed: bool,
    /// The cursor of the last report that was handed out.
    told: Cursor,
    /// What may still be read of old messages that waited. `None`: nothing may.
    step: Option<Step>,
    life: Arc<Life>,
    back_width: u32,
    back_windows: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Pending,
    Windows,
    Backlog,
    End,
}

/// Fetched, and holding its part of the budget until it is committed.
#[derive(Debug)]
struct Ready {
    drafts: Vec<Draft>,
    room: Option<OwnedSemaphorePermit>,
}

impl<'f, S: Stream + fmt::Debug> Reader<'f, S> {
    /// A reader that goes on from `cursor`, the committed one.
    pub fn new(
        folder: &'f mut Folder<S>,
        care: &'f mut Care,
        cursor: Cursor,
        reading: &'f Reading,
        max_message_bytes: u64,
        budget: Budget,
        finder: Finder,
    ) -> Self {
        care.begin(&cursor);
        let first = if cursor.rekeys_up_to().is_some() { SOUGHT_WINDOW } else { WINDOW };
        let width = care.window().unwrap_or(first);
        let told = cursor.clone();
        Self {
            folder,
            care,
            cursor,
            reading,
            max_message_bytes,
            budget,
            planned: VecDeque::new(),
            pending: VecDeque::new(),
            stage: Stage::Pending,
            width,
            finder,
            standing: Standing::default(),
            committed: false,
            told,
            step: None,
            life: Arc::default(),
            back_width: 0,
            back_windows: 0,
        }
    }

    /// The same reader, which tells there at what it is.
    pub fn standing(mut self, standing: Standing) -> Self {
        self.standing = standing;
        self
    }

    /// Tells there what waits to be fetched.
    pub fn telling(self, life: Arc<Life>) -> Self {
        Self { life, ..self }
    }

    /// The next reports, or `None` at the end of the folder, or of what is looked for in the ledger.
    async fn next(&mut self) -> Result<Option<Ready>, Broken> {
        let _looking = self.standing.moving(Activity::Looking, self.folder.commands.moves());
        loop {
            if let Some(summary) = self.pending.pop_front() {
                return Ok(Some(self.fetch(vec![Planned::Fetch(summary)]).await?));
            }
            if !self.planned.is_empty() {
                let group = self.group();
                return Ok(Some(self.fetch(group).await?));
            }
            match self.stage {
                Stage::Pending => {
                    self.stage = Stage::Windows;
                    if let Some(ready) = self.look_at_pending().await? {
                        return Ok(Some(ready));
                    }
                }
                Stage::Windows if self.cursor.rekeys_up_to().is_some() || self.cursor.may_be_restored(None, now()) => {
                    // Whoever asks for more after this has committed what came before.
                    if !std::mem::replace(&mut self.committed, true) {
                        return Ok(Some(self.so_far()));
                    }
                    match self.cursor.rekeys_up_to() {
                        Some(last) => self.look_for_known(last).await?,
                        None => self.look_ahead().await?,
                    }
                    self.committed = false;
                }
                Stage::Windows => self.look_ahead().await?,
                Stage::Backlog => self.look_back().await?,
                Stage::End => {
                    self.care.end();
                    return Ok(None);
                }
            }
        }
    }

    /// Looks at the next window. Only called when nothing is planned, so that the cursor stands behind the last one.
    async fn look_ahead(&mut self) -> Result<(), Broken> {
        let Some(from) = self.cursor.done.checked_add(1) else {
            self.stage = Stage::Backlog;
            return Ok(());
        };
        if let Some(item) = self.care.known(from) {
            self.planned.push_back(Planned::Ready(item));
            return Ok(());
        }
        let last = from.saturating_add(self.width - 1);
        let uid_next = self.folder.selected.uid_next.unwrap_or(0);
        let to = (last < uid_next.saturating_sub(1)).then_some(last);
        // The last window of a careful search ends at a known UID too.
        let to = to.or_else(|| (self.care.window().is_some() && from < uid_next).then(|| uid_next - 1));
        let culprit = self.care.next_known(from).map(|uid| uid - 1);
        let to = match (to, culprit) {
            (Some(to), Some(culprit)) => Some(to.min(culprit)),
            (to, culprit) => to.or(culprit),
        };
        let mut to = to;
        let looked = match summaries(&mut self.folder.commands, from, to).await {
            Ok(mut found) => self.restored(&mut found, &mut to).await.map(|restored| (found, restored)),
            Err(error) => Err(error),
        };
        let (found, restored) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                let only = (to == Some(from)).then_some(from);
                self.care.blame_window(&self.cursor, only, self.width, &error);
                return Err(error.into());
            }
        };
        if found.len() < self.width as usize / 10 && self.care.window().is_none() {
            self.width = (self.width * 4).min(MAX_WINDOW);
        }
        let mut decided = self.decided(restored).await?;
        for summary in &found {
            self.planned.push_back(match decided.remove(&summary.uid) {
                Some(item) => Planned::Ready(item),
                None => self.plan(*summary),
            });
        }
        match to {
            // What lies between the last message and the end of the window is empty for good: UIDs only grow.
            Some(to) => self.planned.push_back(Planned::Pass(to)),
            None => self.stage = Stage::Backlog,
        }
        Ok(())
    }

    fn plan(&self, summary: Summary) -> Planned {
        if !self.cursor.takes(summary.uid, summary.seen, summary.received) {
            Planned::Pass(summary.uid)
        } else if summary.size > self.max_message_bytes.saturating_add(self.max_message_bytes / 2) {
            Planned::TooLarge(summary)
        } else {
            Planned::Fetch(summary)
        }
    }

    /// The next messages to fetch at once.
    fn group(&mut self) -> Vec<Planned> {
        let mut group = Vec::new();
        let (mut count, mut bytes) = (0, 0);
        while let Some(next) = self.planned.front() {
            if let Planned::Fetch(summary) = next {
                let alone = self.care.is_alone(summary.uid);
                let full = count >= self.reading.batch_messages || bytes + summary.size > self.reading.batch_bytes;
                if count > 0 && (alone || full) {
                    break;
                }
                count += 1;
                bytes += summary.size;
            }
            group.extend(self.planned.pop_front());
        }
        group
    }

    /// Fetches a group and makes reports of it.
    async fn fetch(&mut self, group: Vec<Planned>) -> Result<Ready, Error> {
        let wanted: Vec<Summary> = group
            .iter()
            .filter_map(|planned| match planned {
                Planned::Fetch(summary) => Some(*summary),
                _ => None,
            })
            .collect();
        // In memory it is there twice for a while: as it came, and as it is sent.
        let estimate = wanted.iter().map(|summary| summary.size.max(2048)).sum::<u64>().saturating_mul(2);
        let room = match wanted.is_empty() {
            true => None,
            false => {
                let _waiting = self.standing.moving(Activity::Room, self.budget.given());
                self.budget.take(estimate).await
            }
        };
        let _fetching = self.standing.moving(Activity::Fetching, self.folder.commands.moves());
        self.life.fetches(wanted.iter().filter_map(|summary| summary.received));
        let begun = SystemTime::now();
        let uids: Vec<u32> = wanted.iter().map(|summary| summary.uid).collect();
        let mut got = super::imap::fetch::Bodies::default();
        if !uids.is_empty() {
            got = match bodies(&mut self.folder.commands, &uids).await {
                Ok(got) => got,
                Err(error) => {
                    self.care.blame(&self.cursor, &wanted, &error);
                    return Err(error);
                }
            };
        }
        let fetched = Fetched::since(begun);
        let mut raws: HashMap<u32, bytes::Bytes> = got.got.into_iter().collect();
        let items = group.into_iter().map(|planned| match planned {
            Planned::Ready(item) => item,
            Planned::Pass(uid) => Item::Pass(uid),
            Planned::Leave(uid, since) => Item::Leave(uid, since),
            Planned::TooLarge(summary) => Item::TooLarge(summary, summary.size),
            Planned::Fetch(summary) => match raws.remove(&summary.uid) {
                Some(raw) => Item::Got(summary, raw),
                None => match got.oversized.iter().find(|(uid, _)| *uid == summary.uid) {
                    Some((_, size)) => Item::TooLarge(summary, *size),
                    None => Item::Failed(summary, "the server lists it but does not give it".into()),
                },
            },
        });
        let items: Vec<Item> = items.collect();
        let mut drafts = self.draft(items).await;
        drafts.iter_mut().for_each(|draft| draft.fetched = Some(fetched));
        if let Some(last) = drafts.last() {
            self.told.clone_from(&last.next);
        }
        Ok(Ready { drafts, room })
    }

    /// Parsing much takes long: it must not hold up the other mailboxes of this thread.
    async fn draft(&mut self, items: Vec<Item>) -> Vec<Draft> {
        let most = self.reading.batch_messages;
        // What came, not what the server said would come.
        let bytes = items.iter().map(|item| if let Item::Got(_, raw) = item { raw.len().max(LEAST_WORK) } else { 0 });
        if bytes.sum::<usize>() < MAX_PARSED_HERE {
            return draft(&mut self.cursor, items, most);
        }
        let _parsing = self.standing.at(Activity::Parsing);
        let mut cursor = self.cursor.clone();
        let parsed = tokio::task::spawn_blocking(move || {
            let drafts = draft(&mut cursor, items, most);
            (cursor, drafts)
        });
        match parsed.await {
            Ok((cursor, drafts)) => {
                self.cursor = cursor;
                drafts
            }
            // A panic here is a defect like any other: the supervisor reports it.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// Why catching up ended before the end.
#[derive(Debug)]
pub enum Broken {
    /// Nothing more may be committed.
    Stop(Stop),
    /// The connection is of no more use.
    Imap(Error),
}

impl From<Stop> for Broken {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Imap(error)
    }
}

#[cfg(test)]
mod tests;
