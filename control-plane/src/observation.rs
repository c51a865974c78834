//! What is known of each mailbox, put together for people: the definition says what it is, the store who holds it, the
//! leader why nobody does, the ledger how far it is and what its reader last said.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use postroom_proto::convert::{to_duration, to_timestamp};
use postroom_proto::id::{MailboxUid, SessionId};
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::{self, BacklogState, MailboxState, UnassignedReason};
use tokio::sync::watch;

use crate::definition::model::{MailboxRef, Model};
use crate::intake::lives::Lives;
use crate::intake::unstored::Unstored;
use crate::lease::desk::Assignment;
use crate::lease::handle::{Handle, Reasons};
use crate::lease::record::{AssignmentRecord, SessionRecord, assignment};
use crate::ledger::{MailboxRecord, SharedLedger};
use crate::store::{Entry, SharedStore, get_all, key};

/// Looks at mailboxes.
#[derive(Clone)]
pub struct Observer {
    store: SharedStore,
    ledger: SharedLedger,
    model: watch::Receiver<Arc<Model>>,
    unstored: Arc<Unstored>,
    lives: Arc<Lives>,
    leader: Handle,
}

impl Observer {
    /// Over these. Why nobody reads a mailbox only `leader` knows.
    pub fn new(
        store: SharedStore,
        ledger: SharedLedger,
        model: watch::Receiver<Arc<Model>>,
        unstored: Arc<Unstored>,
        lives: Arc<Lives>,
        leader: Handle,
    ) -> Self {
        Self { store, ledger, model, unstored, lives, leader }
    }

    /// The place of every mailbox in a listing, in order: e-mail, folder, uid.
    pub fn places(&self) -> Vec<String> {
        let model = self.model.borrow().clone();
        let mut places: Vec<String> = model.mailboxes().map(|(uid, mailbox)| place(uid, &mailbox)).collect();
        places.sort();
        places
    }

    /// The mailboxes at these places; those that were taken out of the model meanwhile are missing.
    pub async fn describe_places(&self, places: &[String]) -> Result<Vec<v1::Mailbox>, Failure> {
        let model = self.model.borrow().clone();
        let uids = places.iter().filter_map(|place| MailboxUid::parse(place.rsplit(SEPARATOR).next()?).ok());
        self.describe(&model, &uids.collect::<Vec<_>>()).await
    }

    /// One mailbox by uid or e-mail.
    pub async fn mailbox(&self, wanted: &str) -> Result<v1::Mailbox, Failure> {
        let model = self.model.borrow().clone();
        let described = self.describe(&model, &[self.uid(wanted)?]).await?.pop();
        described.ok_or_else(|| unread(wanted))
    }

    /// The uid of a mailbox that is read, named by uid or e-mail.
    pub fn uid(&self, wanted: &str) -> Result<MailboxUid, Failure> {
        let model = self.model.borrow().clone();
        let mut uids: Vec<MailboxUid> = model
            .mailboxes()
            .filter(|(uid, mailbox)| uid.as_str() == wanted || mailbox.address.email.eq_ignore_ascii_case(wanted))
            .map(|(uid, _)| uid.clone())
            .collect();
        uids.sort();
        if uids.len() > 1 {
            let list = uids.iter().map(MailboxUid::as_str).collect::<Vec<_>>().join(", ");
            return Err(Failure::invalid_field(
                "mailbox",
                format!("{wanted} is read in several places: name one of {list}"),
            ));
        }
        uids.pop().ok_or_else(|| unread(wanted))
    }

    /// Every mailbox of the model, in no order. Reads the assignments as a whole instead of one by one.
    pub async fn every_mailbox(&self) -> Result<Vec<v1::Mailbox>, Failure> {
        let model = self.model.borrow().clone();
        let workers = workers(&self.list(key::SESSIONS).await?);
        let mut holders = holders(&self.list(key::ASSIGNMENTS).await?, &workers);
        let uids: Vec<MailboxUid> = model.mailboxes().map(|(uid, _)| uid.clone()).collect();
        let mut records = self.records(&uids).await?;
        let unread = self.unread(uids).await?;
        let described = model.mailboxes().map(|(uid, mailbox)| {
            let reader = unread.reader(uid, holders.remove(uid));
            self.seen(uid, describe(uid, &mailbox, reader, records.remove(uid)))
        });
        Ok(described.collect())
    }

    /// Why nobody reads each of these mailboxes, as the leader knows.
    async fn unread(&self, uids: Vec<MailboxUid>) -> Result<Unread, Failure> {
        match self.leader.unassigned(uids).await {
            Ok(reasons) => Ok(Unread::Known(reasons)),
            Err(failure) if matches!(failure.reason, Reason::NoLeader | Reason::StoreNotOurs) => Ok(Unread::NoLeader),
            Err(failure) => Err(failure),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, Failure> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let after = entries.last().map(|entry| entry.key.clone());
            let page = self.store.list(prefix, after.as_deref(), 500).await?;
            entries.extend(page.entries);
            if !page.more {
                return Ok(entries);
            }
        }
    }

    async fn records(&self, uids: &[MailboxUid]) -> Result<HashMap<MailboxUid, MailboxRecord>, Failure> {
        Ok(self.ledger.mailboxes(uids).await?.into_iter().map(|record| (record.uid.clone(), record)).collect())
    }

    async fn describe(&self, model: &Model, uids: &[MailboxUid]) -> Result<Vec<v1::Mailbox>, Failure> {
        let mut records = self.records(uids).await?;
        let mut holders = self.holders_of(uids).await?;
        let unread = self.unread(uids.to_vec()).await?;
        let mut described = Vec::with_capacity(uids.len());
        for uid in uids {
            let Some(mailbox) = model.mailbox(uid) else { continue };
            let holder = holders.remove(uid);
            let one = describe(uid, &mailbox, unread.reader(uid, holder), records.remove(uid));
            described.push(self.seen(uid, one));
        }
        Ok(described)
    }

    /// The same with what is known in memory only.
    fn seen(&self, uid: &MailboxUid, mut one: v1::Mailbox) -> v1::Mailbox {
        // The reader repeats its report meanwhile and knows of no problem.
        if let Some(problem) = self.unstored.problem(uid) {
            one.since_time = problem.since_time;
            one.problem = Some(problem);
            one.state = MailboxState::Failing.into();
        }
        let life = self.lives.of(uid);
        one.proof_time = life.proof.map(to_timestamp);
        one.unfetched_time = life.unfetched.map(to_timestamp);
        one.delivery_lag = life.lag.map(to_duration);
        one
    }

    /// Who holds these mailboxes, in a few reads however many there are.
    async fn holders_of(&self, uids: &[MailboxUid]) -> Result<HashMap<MailboxUid, v1::Holder>, Failure> {
        let assigned = self.entries(uids.iter().map(key::assignment)).await?;
        let sessions: BTreeSet<SessionId> =
            assigned.iter().filter_map(assignment).map(|(_, assignment)| assignment.session).collect();
        let workers = workers(&self.entries(sessions.iter().map(key::session)).await?);
        Ok(holders(&assigned, &workers))
    }

    /// What stands under these keys.
    async fn entries(&self, keys: impl Iterator<Item = String>) -> Result<Vec<Entry>, Failure> {
        let found = get_all(&self.store, &keys.collect::<Vec<_>>()).await?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// The workers of the sessions that live, by the records of sessions.
fn workers(sessions: &[Entry]) -> HashMap<SessionId, String> {
    let records = sessions
        .iter()
        .filter_map(|entry| Some((key::parse_session(&entry.key)?, SessionRecord::decode(&entry.value)?)));
    records.filter(|(_, record)| !record.is_over()).map(|(session, record)| (session, record.profile.worker)).collect()
}

/// Who holds what, by assignments; those of sessions that are over hold nothing.
fn holders(assigned: &[Entry], workers: &HashMap<SessionId, String>) -> HashMap<MailboxUid, v1::Holder> {
    let held = assigned.iter().filter_map(|entry| {
        let (uid, assignment) = assignment(entry)?;
        let worker = workers.get(&assignment.session)?.clone();
        Some((uid, holder(entry, &assignment, worker)))
    });
    held.collect()
}

/// Why mailboxes are not read.
enum Unread {
    NoLeader,
    /// Those that somebody has are left out.
    Known(Reasons),
}

/// Who reads a mailbox, or why nobody does.
type Reader = Result<v1::Holder, UnassignedReason>;

impl Unread {
    /// `holder` is whom the store names. The leader may know better: what is beyond a worker's capacity or belongs to
    /// another pool is kept from it, although nobody else has it.
    fn reader(&self, uid: &MailboxUid, holder: Option<v1::Holder>) -> Reader {
        match (self, holder) {
            (Self::Known(reasons), holder) => match (reasons.get(uid), holder) {
                (Some(reason), _) => Err(*reason),
                (None, Some(holder)) => Ok(holder),
                // It was assigned between the two looks.
                (None, None) => Err(UnassignedReason::Moving),
            },
            (Self::NoLeader, Some(holder)) => Ok(holder),
            (Self::NoLeader, None) => Err(UnassignedReason::NoLeader),
        }
    }
}

fn holder(entry: &Entry, assignment: &Assignment, worker: String) -> v1::Holder {
    let record = AssignmentRecord::decode(&entry.value);
    v1::Holder {
        worker,
        session: assignment.session.to_string(),
        epoch: assignment.epoch.0,
        since_time: record.as_ref().and_then(|record| record.since).map(to_timestamp),
        reason: record.as_ref().map(AssignmentRecord::reason).unwrap_or_default().into(),
        former_worker: record.and_then(|record| record.former).unwrap_or_default(),
    }
}

fn unread(wanted: &str) -> Failure {
    Failure::new(Reason::NotFound, format!("no queue reads a mailbox {wanted:?}; see `postroom mailbox list`"))
}

/// Stands between the parts of a place; sorts before everything that may stand in one.
const SEPARATOR: char = '\u{0}';

fn place(uid: &MailboxUid, mailbox: &MailboxRef<'_>) -> String {
    format!("{}{SEPARATOR}{}{SEPARATOR}{uid}", mailbox.address.email, mailbox.address.folder())
}

fn describe(uid: &MailboxUid, mailbox: &MailboxRef<'_>, reader: Reader, record: Option<MailboxRecord>) -> v1::Mailbox {
    let (holder, unassigned) = match reader {
        Ok(holder) => (Some(holder), UnassignedReason::Unspecified),
        Err(reason) => (None, reason),
    };
    let status = record.as_ref().and_then(|record| record.status.clone());
    // What a former holder said of its state is over with it; the problem it met is the best that is known until the
    // next one has tried.
    let current = status.as_ref().filter(|status| holder.as_ref().is_some_and(|holder| holder.epoch == status.epoch));
    let state = match (&holder, current) {
        (None, _) => MailboxState::Unassigned,
        (Some(_), None) => MailboxState::Connecting,
        (Some(_), Some(status)) => status.state(),
    };
    let activity = current.and_then(|status| status.activity.clone());
    let backlog = record.as_ref().and_then(|record| record.backlog.as_ref());
    let backlog = backlog.filter(|backlog| backlog.state != BacklogState::Finished);
    let backlog = backlog.map(|backlog| backlog.describe(uid.as_str(), &mailbox.address.email));
    v1::Mailbox {
        uid: uid.to_string(),
        email: mailbox.address.email.clone(),
        folder: mailbox.address.folder().to_owned(),
        queue: mailbox.queue.name.clone(),
        instance: mailbox.instance.name.clone(),
        server: mailbox.server.name.clone(),
        state: state.into(),
        since_time: current.and_then(|status| status.since_time),
        holder,
        renumbering: status.as_ref().and_then(|status| status.renumbering),
        problem: status.and_then(|status| status.problem),
        message_count: record.as_ref().map_or(0, |record| record.message_count),
        contact_count: record.as_ref().map_or(0, |record| record.contact_count),
        quarantined_count: record.as_ref().map_or(0, |record| record.quarantined_count),
        too_large_count: record.as_ref().map_or(0, |record| record.too_large_count),
        last_report_time: record.and_then(|record| record.reported_at).map(to_timestamp),
        unassigned_reason: unassigned.into(),
        pool: mailbox.instance.pool().to_owned(),
        backlog,
        next: next(state, activity.as_ref()).to_owned(),
        activity,
        ..v1::Mailbox::default()
    }
}

/// What comes after this state, for people; or after what in it lasts.
fn next(state: MailboxState, activity: Option<&v1::MailboxActivity>) -> &str {
    if let Some(activity) = activity.filter(|activity| !activity.next.is_empty()) {
        return &activity.next;
    }
    match state {
        MailboxState::Unspecified => "",
        MailboxState::Unassigned => "is read as soon as a worker has it",
        MailboxState::Connecting => "looks what is new",
        MailboxState::CatchingUp => "waits for new mail once all is read",
        MailboxState::Rekeying => "reads what came meanwhile",
        MailboxState::Idle => "looks what is new when the server tells of mail, and from time to time by itself",
        MailboxState::Failing => "tries again",
        MailboxState::Backlog => "reads new mail as it comes, and the old mail when an operator approves it",
    }
}
