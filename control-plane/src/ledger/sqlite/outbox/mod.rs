//! The outbox on SQLite. `add` (storing, and the breaker), `claim` (waiting, claiming, marking), `settle` (everything
//! that moves a mail to another state), `bounce` (what comes back of one that was sent), `load` (what a sending mailbox has
//! under way and behind it), `list`, `change` (their sequence), `row` (rows to values).

use std::collections::HashMap;

use async_trait::async_trait;
use postroom_proto::v1::{self, OutboxState};

use super::super::outbox::{
    Claim, ClaimLost, Claimed, Claiming, Decided, Mail, MailChanges, MailFilter, NewMail, NotAdded, NotSettled, Outbox,
    Trouble, Waiting, Writing,
};
use super::super::{Error, Micros, Raw};
use super::{Sqlite, reading};
use crate::outbox::Terms;
use crate::outbox::allowance::Load;
use crate::outbox::state::{Decision, Settlement};

mod add;
pub(super) mod bounce;
mod change;
mod claim;
mod list;
mod load;
mod row;
mod settle;

#[async_trait]
impl Outbox for Sqlite {
    async fn too_often(&self, writing: &Writing, terms: &Terms, now: Micros) -> Result<Option<NotAdded>, Error> {
        let counting = async {
            let mut reader = self.database.readers.acquire().await?;
            add::too_often(&mut reader, writing, terms, now).await
        };
        counting.await.map_err(reading("count mails to one address"))
    }

    async fn add(&self, mail: NewMail, terms: &Terms, now: Micros) -> Result<Result<Mail, NotAdded>, Error> {
        let terms = terms.clone();
        self.write("store a mail", move |c| Box::pin(add::add(c, mail, terms, now))).await
    }

    async fn stored(&self, instance_uid: &str, request_id: &str) -> Result<Option<(Vec<u8>, Mail)>, Error> {
        let read = row::stored_under(&self.database.readers, instance_uid, request_id).await;
        read.map_err(reading("look for a request"))
    }

    async fn mail(&self, id: &str) -> Result<Option<Mail>, Error> {
        row::get(&self.database.readers, id).await.map_err(reading("read a mail"))
    }

    async fn mails(&self, filter: &MailFilter, before: Option<i64>, limit: usize) -> Result<Vec<Mail>, Error> {
        list::mails(&self.database.readers, filter, before, limit).await.map_err(reading("list mails"))
    }

    async fn mail_raw(&self, id: &str) -> Result<Option<(String, Raw)>, Error> {
        row::raw(&self.database.readers, id).await.map_err(reading("read a mail"))
    }

    async fn waiting_mail(&self) -> Result<Waiting, Error> {
        claim::waiting(&self.database.readers).await.map_err(reading("look for mail that waits"))
    }

    async fn loads(&self, senders: &[String], terms: &Terms, now: Micros) -> Result<HashMap<String, Load>, Error> {
        let counting = async {
            let mut reader = self.database.readers.acquire().await?;
            load::of(&mut reader, senders, terms, now).await
        };
        counting.await.map_err(reading("count what is under way"))
    }

    async fn claim(&self, claiming: Claiming, terms: &Terms, now: Micros) -> Result<Vec<Claimed>, Error> {
        let terms = terms.clone();
        // A claimer that has gone would hold its mails until their deadline.
        let claiming =
            self.database.writer.write_while_wanted(move |c| Box::pin(claim::claim(c, claiming, terms, now)));
        claiming.await.map_err(|source| Error::Write { attempt: "claim mails", source })
    }

    async fn claimed_raw(&self, claim: &Claim, now: Micros) -> Result<Result<Raw, ClaimLost>, Error> {
        claim::raw(&self.database.readers, claim, now).await.map_err(reading("read a mail"))
    }

    async fn mark(&self, claim: Claim, terms: &Terms, now: Micros) -> Result<Result<Micros, ClaimLost>, Error> {
        let terms = terms.clone();
        self.write("mark a mail", move |c| Box::pin(claim::mark(c, claim, terms, now))).await
    }

    async fn settle(
        &self,
        claim: Claim,
        said: Settlement,
        terms: &Terms,
        now: Micros,
    ) -> Result<Result<OutboxState, NotSettled>, Error> {
        let terms = terms.clone();
        self.write("settle a mail", move |c| Box::pin(settle::settle(c, claim, said, terms, now))).await
    }

    async fn lapse_claims(&self, terms: &Terms, now: Micros) -> Result<usize, Error> {
        // A look first: with nothing to end, which is nearly always, no transaction is made.
        let due =
            claim::any_lapsed(&self.database.readers, now).await.map_err(reading("look for claims that lapsed"))?;
        if !due {
            return Ok(0);
        }
        let terms = terms.clone();
        self.write("end claims", move |c| Box::pin(settle::lapse(c, terms, now))).await
    }

    async fn decide(
        &self,
        id: &str,
        instance_uid: Option<&str>,
        decision: Decision,
        now: Micros,
    ) -> Result<Decided, Error> {
        let (id, instance) = (id.to_owned(), instance_uid.map(ToOwned::to_owned));
        self.write("decide about a mail", move |c| Box::pin(settle::decide(c, id, instance, decision, now))).await
    }

    async fn left_alone(&self, now: Micros) -> Result<HashMap<(String, Vec<u8>), v1::Problem>, Error> {
        load::left_alone(&self.database.readers, now).await.map_err(reading("read sending mailboxes"))
    }

    async fn try_again(&self, sender: &str) -> Result<(), Error> {
        let sender = sender.to_owned();
        self.write("open a sending mailbox", move |c| Box::pin(async move { load::try_again(c, &sender).await })).await
    }

    async fn forget_loads(&self, terms: &Terms, now: Micros) -> Result<(), Error> {
        let terms = terms.clone();
        self.write("forget what counts no more", move |c| Box::pin(load::forget(c, terms, now))).await
    }

    async fn mail_changes(
        &self,
        instance_uid: Option<&str>,
        after: u64,
        window: u32,
    ) -> Result<Option<MailChanges>, Error> {
        let read = change::changes(&self.database.readers, instance_uid, after, window).await;
        read.map_err(reading("read changes of mails"))
    }

    async fn newest_mail_change(&self) -> Result<u64, Error> {
        change::MAILS.newest(&self.database.readers).await.map_err(reading("look for the newest change"))
    }

    async fn trim_mail_changes(&self, keep: u64) -> Result<(), Error> {
        loop {
            let due = change::MAILS.any_to_trim(&self.database.readers, keep).await;
            if !due.map_err(reading("look at old changes"))? {
                return Ok(());
            }
            let trimming = self.write("cut off old changes", move |c| Box::pin(change::MAILS.trim(c, keep)));
            if !trimming.await? {
                return Ok(());
            }
        }
    }

    async fn mail_tally(&self) -> Result<Vec<(String, OutboxState, u64)>, Error> {
        list::tally(&self.database.readers).await.map_err(reading("count mails"))
    }

    async fn mail_trouble(&self, since: Micros) -> Result<Trouble, Error> {
        list::trouble(&self.database.readers, since).await.map_err(reading("count mails"))
    }
}
