//! The ledger on SQLite.
//!
//! Writes go through the one writer (see [`crate::sqlite::writer`]), reads through the pool. One file a matter: `fence`
//! (opening), `binding` (whose store), `report` (the commit of a batch), `known` (messages under former keys), `thread`, `allocate` (handing out), `answer`, `transfer`,
//! `change` (their sequence), `list`, `read` (single rows), `message` (messages as people look at them), `replay` (a
//! contact after all), `backlog` (old messages that wait), `tally` (counts of the whole), `audit` (who did what). Mail on its way out is a folder of its own, `outbox`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use postroom_proto::id::{Epoch, Generation, MailboxUid};
use postroom_proto::v1;
use tokio::sync::watch;

use super::backlog::{Backlog, Decision};
use super::known::{Sought, assign};
use super::message::{Discarded, MessageFilter, NotReplayed, Replay, Replayed, Standing};
use super::tally::{QueueWaiting, Tally};
use super::{
    Adoption, Allocated, Answer, AnswerOutcome, Answered, Batch, Bound, ContactChanges, ContactFilter, ContactPage,
    ContactPosition, Cursor, Error, Fence, Ledger, MailboxRecord, Micros, NotCommitted, Opened, Raw, Take, Transfer,
};
use crate::sqlite::writer::{Work, WriteError};
use crate::sqlite::{Database, Location, Step, open};

mod allocate;
mod answer;
mod audit;
mod backlog;
mod binding;
mod change;
pub mod copy;
mod fence;
mod known;
mod list;
mod message;
#[cfg(test)]
mod migration;
mod outbox;
mod read;
mod replay;
mod report;
mod row;
mod sequence;
mod tally;
mod thread;
mod transfer;

/// Numbered, forward only.
const SCHEMA: &[Step] = &[
    Step {
        version: 1,
        title: "mailboxes, messages, contacts and allocations",
        sql: include_str!("../../../migrations/ledger/0001_ledger.sql"),
    },
    Step {
        version: 2,
        title: "decisions about messages",
        sql: include_str!("../../../migrations/ledger/0002_decisions.sql"),
    },
    Step {
        version: 3,
        title: "kinds, threads, endings, transfers and changes of contacts",
        sql: include_str!("../../../migrations/ledger/0003_contacts.sql"),
    },
    Step { version: 4, title: "counts of contacts", sql: include_str!("../../../migrations/ledger/0004_tallies.sql") },
    Step {
        version: 5,
        title: "adoptions of stores",
        sql: include_str!("../../../migrations/ledger/0005_adoptions.sql"),
    },
    Step { version: 6, title: "mail on its way out", sql: include_str!("../../../migrations/ledger/0006_outbox.sql") },
    Step {
        version: 7,
        title: "folders that are numbered anew",
        sql: include_str!("../../../migrations/ledger/0007_numberings.sql"),
    },
    Step {
        version: 8,
        title: "old messages that wait for an operator",
        sql: include_str!("../../../migrations/ledger/0008_backlogs.sql"),
    },
    Step { version: 9, title: "who did what", sql: include_str!("../../../migrations/ledger/0009_audit.sql") },
];

/// Rows in one statement of several rows; SQLite takes 32,766 values a statement.
const ROWS: usize = 500;

/// Most writes in one transaction: one fsync for a report from each of so many mailboxes.
const GROUP: usize = 256;

/// A ledger in a SQLite database. Dropping it lets the writer finish what it holds and end; [`close`](Self::close)
/// waits for that.
#[derive(Debug)]
pub struct Sqlite {
    id: String,
    database: Database,
    /// How far the messages of mailboxes that are re-keyed have their match keys, and for which numbering. Who asks may go
    /// before all have: the next one goes on there.
    keyed: Mutex<HashMap<i64, (u32, String)>>,
}

impl Sqlite {
    /// Opens the ledger, creating it when it is missing.
    pub async fn open(location: &Location) -> Result<Self, Error> {
        let mut connections = open(location, SCHEMA).await?;
        let id = fence::identity(&mut connections.writer).await.map_err(reading("read its id"))?;
        Ok(Self { id, database: connections.start(GROUP, "ledger"), keyed: Mutex::default() })
    }

    fn keyed(&self) -> MutexGuard<'_, HashMap<i64, (u32, String)>> {
        // Nothing panics while it is locked.
        self.keyed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finishes the writes that are under way, then closes the database. Later calls fail.
    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Returns when nothing can be written any more: the ledger was closed, or its writer died.
    pub async fn ended(&self) {
        self.database.writer.ended().await;
    }

    async fn write<T, F>(&self, attempt: &'static str, operation: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut sqlx::SqliteConnection) -> Work<'c, T> + Send + 'static,
    {
        self.database.writer.write(operation).await.map_err(|source: WriteError| Error::Write { attempt, source })
    }
}

fn reading(attempt: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::Read { attempt, source }
}

#[async_trait]
impl Ledger for Sqlite {
    fn id(&self) -> &str {
        &self.id
    }

    async fn bound(&self) -> Result<Bound, Error> {
        binding::bound(&self.database.readers).await.map_err(reading("read its store"))
    }

    async fn bind(&self, store_id: &str) -> Result<(), Error> {
        let store = store_id.to_owned();
        self.write("bind the store", move |c| Box::pin(binding::bind(c, store))).await
    }

    async fn adopt(
        &self,
        expected: Generation,
        store_id: &str,
        by: &str,
        now: Micros,
    ) -> Result<Option<Generation>, Error> {
        let (store, by) = (store_id.to_owned(), by.to_owned());
        self.write("adopt a store", move |c| Box::pin(binding::adopt(c, expected, store, by, now))).await
    }

    async fn adoptions(&self, limit: u32) -> Result<Vec<Adoption>, Error> {
        binding::adoptions(&self.database.readers, limit).await.map_err(reading("read adoptions"))
    }

    async fn fences(&self) -> Result<Vec<(MailboxUid, Epoch)>, Error> {
        binding::fences(&self.database.readers).await.map_err(reading("read fences"))
    }

    async fn open(&self, mailbox: &MailboxUid, fence: &Fence) -> Result<Option<Opened>, Error> {
        let (mailbox, fence) = (mailbox.clone(), fence.clone());
        self.write("open a mailbox", move |c| Box::pin(fence::raise(c, mailbox, fence))).await
    }

    async fn due(&self, mailbox: &MailboxUid, taken_before: Micros) -> Result<Vec<String>, Error> {
        fence::due(&self.database.readers, mailbox, taken_before).await.map_err(reading("read what is to be deleted"))
    }

    async fn report(&self, batch: Batch, now: Micros) -> Result<Result<v1::ReportResponse, NotCommitted>, Error> {
        self.write("commit a report", move |c| Box::pin(report::commit(c, batch, now))).await
    }

    async fn known(
        &self,
        mailbox: &MailboxUid,
        fence: &Fence,
        numbering: u32,
        sought: Vec<Sought>,
    ) -> Result<Result<Vec<Option<i64>>, NotCommitted>, Error> {
        let readers = &self.database.readers;
        let found = known::place(readers, mailbox, fence).await.map_err(reading("look for a mailbox"))?;
        let Some(place) = found else { return Ok(Err(NotCommitted::LeaseLost)) };
        if place.keyed < numbering {
            let so_far = self.keyed().get(&place.row).filter(|(of, _)| *of == numbering).map(|(_, last)| last.clone());
            let mut after = so_far.unwrap_or_default();
            loop {
                let piece = known::unkeyed(readers, place.row, &after).await.map_err(reading("read fingerprints"))?;
                let Some(last) = piece.last.clone() else { break };
                after = last;
                if !piece.keys.is_empty() {
                    self.write("key messages", move |c| Box::pin(known::store_keys(c, piece.keys))).await?;
                }
                self.keyed().insert(place.row, (numbering, after.clone()));
            }
            self.write("key a mailbox", move |c| Box::pin(known::finish(c, place.row, numbering))).await?;
            self.keyed().remove(&place.row);
        }
        let candidates = known::candidates(readers, place.row, numbering, &sought).await;
        Ok(Ok(assign(&sought, &candidates.map_err(reading("look for fingerprints"))?)))
    }

    async fn record_statuses(&self, statuses: Vec<(MailboxUid, Fence, v1::MailboxStatus)>) -> Result<(), Error> {
        self.write("record statuses", move |c| Box::pin(fence::record_statuses(c, statuses))).await
    }

    async fn mailboxes(&self, uids: &[MailboxUid]) -> Result<Vec<MailboxRecord>, Error> {
        let mut records = read::mailboxes(&self.database.readers, uids).await.map_err(reading("read mailboxes"))?;
        message::count_aside(&self.database.readers, &mut records).await.map_err(reading("count messages"))?;
        Ok(records)
    }

    async fn waiting(&self, instance_uid: &str) -> Result<HashMap<String, u64>, Error> {
        read::waiting(&self.database.readers, instance_uid).await.map_err(reading("count waiting contacts"))
    }

    async fn allocate(&self, take: Take, now: Micros) -> Result<Allocated, Error> {
        // A taker that has gone would hold its contacts until their deadline.
        let allocating = self.database.writer.write_while_wanted(move |c| Box::pin(allocate::allocate(c, take, now)));
        allocating.await.map_err(|source| Error::Write { attempt: "allocate contacts", source })
    }

    async fn answer(
        &self,
        instance_uid: &str,
        answer: Answer,
        contacts: Vec<Answered>,
        now: Micros,
    ) -> Result<Vec<AnswerOutcome>, Error> {
        let instance = instance_uid.to_owned();
        self.write("answer for contacts", move |c| Box::pin(answer::answer(c, instance, answer, contacts, now))).await
    }

    async fn transfer(&self, instance_uid: &str, transfer: Transfer, now: Micros) -> Result<Vec<AnswerOutcome>, Error> {
        let instance = instance_uid.to_owned();
        self.write("transfer contacts", move |c| Box::pin(transfer::transfer(c, instance, transfer, now))).await
    }

    async fn lapse(&self, now: Micros) -> Result<Vec<String>, Error> {
        // A look first: with nothing to put back, which is nearly always, no transaction is made.
        let due = read::any_lapsed(&self.database.readers, now).await.map_err(reading("look for missed deadlines"))?;
        if !due {
            return Ok(Vec::new());
        }
        self.write("put contacts back", move |c| Box::pin(allocate::lapse(c, None, now))).await
    }

    async fn contacts(
        &self,
        filter: &ContactFilter,
        after: Option<&ContactPosition>,
        limit: usize,
    ) -> Result<ContactPage, Error> {
        list::contacts(&self.database.readers, filter, after, limit).await.map_err(reading("list contacts"))
    }

    async fn contact(&self, id: &str) -> Result<Option<(String, v1::Contact)>, Error> {
        read::contact(&self.database.readers, id).await.map_err(reading("read a contact"))
    }

    async fn raw(&self, id: &str) -> Result<Option<(String, Raw)>, Error> {
        read::raw(&self.database.readers, id).await.map_err(reading("read a raw message"))
    }

    async fn messages(
        &self,
        filter: &MessageFilter,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<v1::Message>, Error> {
        message::list(&self.database.readers, filter, before, limit).await.map_err(reading("list messages"))
    }

    async fn message(&self, id: i64) -> Result<Option<v1::Message>, Error> {
        message::get(&self.database.readers, id).await.map_err(reading("read a message"))
    }

    async fn message_raw(&self, id: i64) -> Result<Option<Raw>, Error> {
        message::raw(&self.database.readers, id).await.map_err(reading("read a raw message"))
    }

    async fn discard(&self, id: i64, by: &str, text: &str, now: Micros) -> Result<Discarded, Error> {
        let (by, text) = (by.to_owned(), text.to_owned());
        self.write("discard a message", move |c| Box::pin(message::discard(c, id, by, text, now))).await
    }

    async fn replay(&self, replay: Replay, now: Micros) -> Result<Result<Replayed, NotReplayed>, Error> {
        self.write("replay a message", move |c| Box::pin(replay::commit(c, replay, now))).await
    }

    async fn backlog(&self, mailbox: &MailboxUid) -> Result<Option<Backlog>, Error> {
        backlog::get(&self.database.readers, mailbox).await.map_err(reading("read a backlog"))
    }

    async fn decide_backlog(&self, mailbox: &MailboxUid, decision: Decision) -> Result<bool, Error> {
        let mailbox = mailbox.clone();
        self.write("decide about a backlog", move |c| Box::pin(backlog::decide(c, mailbox, decision))).await
    }

    async fn waiting_in(&self, queues: &[String]) -> Result<Vec<QueueWaiting>, Error> {
        tally::waiting(&self.database.readers, queues).await.map_err(reading("count contacts that wait"))
    }

    async fn tally(&self) -> Result<Tally, Error> {
        tally::tally(&self.database.readers).await.map_err(reading("count contacts"))
    }

    async fn cursor(&self, mailbox: &MailboxUid) -> Result<Cursor, Error> {
        fence::cursor(&self.database.readers, mailbox).await.map_err(reading("read a cursor"))
    }

    async fn extent(&self, mailbox: &MailboxUid) -> Result<(i64, u64), Error> {
        message::extent(&self.database.readers, mailbox).await.map_err(reading("count messages"))
    }

    async fn standing_of(&self, mailbox: &MailboxUid, keys: &[String]) -> Result<Vec<Standing>, Error> {
        message::standing_of(&self.database.readers, mailbox, keys).await.map_err(reading("look for messages"))
    }

    async fn standing_after(
        &self,
        mailbox: &MailboxUid,
        after: i64,
        last: i64,
        limit: usize,
    ) -> Result<Vec<Standing>, Error> {
        let page = message::standing_after(&self.database.readers, mailbox, after, last, limit).await;
        page.map_err(reading("read messages"))
    }

    async fn contact_changes(
        &self,
        instance_uid: Option<&str>,
        after: u64,
        window: u32,
    ) -> Result<Option<ContactChanges>, Error> {
        let read = change::changes(&self.database.readers, instance_uid, after, window).await;
        read.map_err(reading("read changes of contacts"))
    }

    async fn newest_contact_change(&self) -> Result<u64, Error> {
        change::CONTACTS.newest(&self.database.readers).await.map_err(reading("look for the newest change"))
    }

    async fn trim_contact_changes(&self, keep: u64) -> Result<(), Error> {
        loop {
            let due = change::CONTACTS.any_to_trim(&self.database.readers, keep).await;
            if !due.map_err(reading("look at old changes"))? {
                return Ok(());
            }
            let trimming = self.write("cut off old changes", move |c| Box::pin(change::CONTACTS.trim(c, keep)));
            if !trimming.await? {
                return Ok(());
            }
        }
    }

    fn commits(&self) -> watch::Receiver<()> {
        self.database.writer.commits()
    }
}
