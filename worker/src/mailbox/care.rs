//! The search for messages that break the connection's answers. Pure.
//!
//! An answer that cannot be read does not say which message it is about. So after a break less is asked for, until what was
//! asked for is one message: that one is a culprit, and is not asked for again.
//!
//! Invariant: a culprit is remembered until the committed cursor has counted it. Between its finding and the next commit the
//! connection may break again, and reading then begins before it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::Item;
use super::cursor::Cursor;
use super::imap::command::Error;
use super::imap::fetch::Summary;
use super::imap::guard::Violation;

/// What earlier connections learnt about answers that cannot be read. Kept in memory only: attempts that count are in
/// the cursor.
#[derive(Debug, Default)]
pub struct Care {
    /// Up to this UID messages are fetched one by one.
    alone_up_to: u32,
    /// Windows are at most this wide.
    window: Option<u32>,
    culprits: BTreeMap<u32, Culprit>,
    /// Pending messages are looked at one by one.
    pending_alone: bool,
    /// When pending messages were last tried.
    tried: Option<Instant>,
}

/// A message that breaks the connection. It is applied when the cursor comes to it, never before, or what lies between
/// would be skipped.
#[derive(Debug)]
struct Culprit {
    item: Item,
    /// Attempts that the cursor had counted when it broke the connection.
    attempts: Option<u32>,
}

impl Care {
    /// A connection begins to read from what is committed: culprits that it has counted may be tried again.
    pub fn begin(&mut self, committed: &Cursor) {
        self.culprits.retain(|uid, culprit| committed.attempts(*uid) == culprit.attempts);
    }

    /// The end of the folder was reached.
    pub fn end(&mut self) {
        self.window = None;
    }

    /// How wide windows may be, while a search goes on.
    pub fn window(&self) -> Option<u32> {
        self.window
    }

    /// True when this message is to be fetched alone.
    pub fn is_alone(&self, uid: u32) -> bool {
        uid <= self.alone_up_to
    }

    /// What is known of a message that must not be asked for.
    pub fn known(&self, uid: u32) -> Option<Item> {
        self.culprits.get(&uid).map(|culprit| culprit.item.clone())
    }

    /// The first message at or behind `from` that must not be asked for.
    pub fn next_known(&self, from: u32) -> Option<u32> {
        self.culprits.range(from..).next().map(|(uid, _)| *uid)
    }

    /// True when pending messages may be tried `now`, which they then are.
    pub fn tries_pending(&mut self, now: Instant, distance: Duration) -> bool {
        let due = self.tried.is_none_or(|tried| now.saturating_duration_since(tried) >= distance);
        if due {
            self.tried = Some(now);
        }
        due
    }

    /// How many of `count` pending messages to look at in one command.
    pub fn pending_at_once(&self, count: usize) -> usize {
        if self.pending_alone { 1 } else { count.max(1) }
    }

    /// All pending messages were looked at.
    pub fn pending_looked_at(&mut self) {
        self.pending_alone = false;
    }

    /// The look at pending messages broke the connection.
    pub fn blame_pending(&mut self, cursor: &Cursor, uids: &[u32], error: &Error) {
        match uids {
            [only] => self.suspect(cursor, *only, error),
            _ => self.pending_alone |= error.is_answer(),
        }
    }

    /// The look at a window, `width` wide and of `only` one message when that is all it was about, broke the connection.
    pub fn blame_window(&mut self, cursor: &Cursor, only: Option<u32>, width: u32, error: &Error) {
        match only {
            Some(uid) => self.suspect(cursor, uid, error),
            None if error.is_answer() => self.window = Some((width / 16).max(1)),
            None => {}
        }
    }

    /// The fetching of these messages broke the connection.
    pub fn blame(&mut self, cursor: &Cursor, wanted: &[Summary], error: &Error) {
        if !error.is_answer() {
            return;
        }
        match wanted {
            [only] => {
                let item = match error {
                    Error::Violation(Violation::LiteralTooLarge { size, .. }) => Item::TooLarge(*only, *size),
                    error => Item::Failed(*only, reason(error)),
                };
                self.convict(cursor, only.uid, item);
            }
            many => {
                let last = many.last().map_or(0, |summary| summary.uid);
                self.alone_up_to = self.alone_up_to.max(last);
            }
        }
    }

    /// The connection broke on an answer that says what `uid` is.
    fn suspect(&mut self, cursor: &Cursor, uid: u32, error: &Error) {
        if error.is_answer() {
            let unknown = Summary { uid, seen: false, received: None, size: 0 };
            self.convict(cursor, uid, Item::Failed(unknown, reason(error)));
        }
    }

    fn convict(&mut self, cursor: &Cursor, uid: u32, item: Item) {
        self.culprits.insert(uid, Culprit { item, attempts: cursor.attempts(uid) });
    }
}

fn reason(error: &Error) -> String {
    format!("the server's answer cannot be read: {error}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::mailbox::batch::draft;
    use crate::mailbox::cursor::Start;

    fn summary(uid: u32) -> Summary {
        Summary { uid, seen: false, received: None, size: 10 }
    }

    /// Reads messages 1 to `last` from `committed` on as [`super::super::catch_up`] does, `group` at once. `false`: one of
    /// `broken` broke the connection.
    fn read(care: &mut Care, committed: &mut Cursor, last: u32, group: usize, broken: &BTreeSet<u32>) -> bool {
        care.begin(committed);
        let mut cursor = committed.clone();
        while cursor.done < last {
            let from = cursor.done + 1;
            if let Some(item) = care.known(from) {
                if !draft(&mut cursor, vec![item], 100).is_empty() {
                    *committed = cursor.clone();
                }
                continue;
            }
            let end = care.next_known(from).map_or(last, |known| known - 1);
            let count = if care.is_alone(from) { 1 } else { group };
            let wanted: Vec<Summary> = (from..=end).take(count).map(summary).collect();
            if wanted.iter().any(|summary| broken.contains(&summary.uid)) {
                care.blame(&cursor, &wanted, &Error::Malformed);
                return false;
            }
            wanted.iter().for_each(|summary| cursor.settle(summary.uid));
            *committed = cursor.clone();
        }
        *committed = cursor;
        true
    }

    /// Breaks until the end of the folder is reached.
    fn breaks(last: u32, group: usize, broken: &BTreeSet<u32>, committed: &mut Cursor) -> usize {
        let mut care = Care::default();
        (0..1000).find(|_| read(&mut care, committed, last, group, broken)).expect("it ends")
    }

    #[test]
    fn a_run_of_six_takes_six_breaks_and_one_for_each_group() {
        let broken = (3..=8).collect();
        let mut cursor = Cursor::first(9, 1, Start::All);
        assert_eq!(breaks(20, 10, &broken, &mut cursor), 7);
        assert_eq!(cursor.pending(), (3..=8).collect::<Vec<_>>());
    }

    #[test]
    fn a_culprit_is_tried_again_once_it_was_counted() {
        let mut cursor = Cursor::first(9, 1, Start::All);
        let mut care = Care::default();
        care.blame(&cursor, &[summary(5)], &Error::Malformed);
        care.begin(&cursor);
        assert!(care.known(5).is_some() && care.next_known(1) == Some(5), "not counted yet");
        cursor.fail(5);
        care.begin(&cursor);
        assert!(care.known(5).is_none());
        care.blame(&cursor, &[summary(5)], &Error::Malformed);
        care.begin(&cursor);
        assert!(care.known(5).is_some(), "the second time is not counted yet");
        cursor.settle(5);
        care.begin(&cursor);
        assert!(care.known(5).is_none());
    }

    #[test]
    fn a_connection_that_is_only_lost_blames_nobody() {
        let cursor = Cursor::first(9, 1, Start::All);
        let mut care = Care::default();
        let lost = Error::Lost { remark: None };
        care.blame(&cursor, &[summary(5)], &lost);
        care.blame_window(&cursor, Some(6), 1, &lost);
        care.blame_window(&cursor, None, 2000, &lost);
        care.blame_pending(&cursor, &[7], &lost);
        assert_eq!((care.next_known(1), care.window(), care.pending_at_once(9)), (None, None, 9));
    }

    proptest! {
        /// Wherever they stand: each message that breaks the connection does so once alone, and at most once in a group.
        #[test]
        fn the_search_is_linear(broken in proptest::collection::btree_set(1u32..=60, 0..30), group in 1usize..20) {
            let mut cursor = Cursor::first(9, 1, Start::All);
            let count = breaks(60, group, &broken, &mut cursor);
            prop_assert!(count <= broken.len() + 60usize.div_ceil(group).min(broken.len()), "{count} breaks");
            prop_assert_eq!(cursor.pending(), broken.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(cursor.done, 60);
        }
    }
}
