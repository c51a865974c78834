//! The life of one mailbox under one lease: open, connect, catch up, wait, and all of it again when something fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postroom_proto::id::{Epoch, MailboxUid};
use postroom_proto::v1::{self, MailboxDefinition, MailboxState};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Reading;
use crate::diagnosis::{self, ProblemKind, imap};
use crate::mailbox::backlog::Release;
use crate::mailbox::care::Care;
use crate::mailbox::catch_up::{self, Budget, Reader, next_look};
use crate::mailbox::commit::{Committer, Stop};
use crate::mailbox::cursor::{Cursor, Renumbered};
use crate::mailbox::imap::command::Error as ImapError;
use crate::mailbox::imap::connection::Folder;
use crate::mailbox::imap::idle;
use crate::mailbox::imap::settle::{AfterIntake, can_expunge};
use crate::mailbox::lease::Lease;
use crate::mailbox::recall::Recalls;
use crate::mailbox::retry;
use crate::mailbox::standing::{Activity, Stalled, Standing};
use crate::mailbox::status::{Board, Life, Pulse, Teller, now};
use crate::net::Secure;
use crate::pace::Pace;
use crate::report::{self, Reporter};
use crate::tls::Roots;
use crate::token::Credential;
use crate::token::broker::Broker;
use trouble::Trouble;

/// Time between two questions what was decided about old messages, when connections do not last.
const ASK_AGAIN: Duration = Duration::from_secs(10);

mod anchor;
mod backlog;
mod beside;
mod settling;
pub(crate) mod sign_in;
mod trouble;

pub(crate) use beside::{broken, connect, leave};

/// A connection to a mail server.
pub(crate) type Mail = Folder<Secure>;

/// What all mailboxes of a worker share.
#[derive(Clone)]
pub struct Shared {
    /// How mailboxes are read.
    pub reading: Arc<Reading>,
    /// Whom to trust.
    pub roots: Arc<Roots>,
    /// Where tokens come from.
    pub broker: Arc<Broker>,
    /// Where reports go.
    pub reporter: Arc<dyn Reporter>,
    /// Where statuses go.
    pub board: Arc<Board>,
    /// Where it is told that mailboxes are read.
    pub pulse: Arc<Pulse>,
    /// When a mailbox may connect.
    pub pace: Pace,
    /// How much may be in memory.
    pub budget: Budget,
    /// How a session is called back to what else there is to settle.
    pub recalls: Recalls,
}

impl Shared {
    /// What a worker's mailboxes share, from its settings.
    pub fn new(reading: Reading, reporter: Arc<dyn Reporter>, board: Arc<Board>) -> Self {
        let roots = Arc::new(Roots::new());
        let broker = Arc::new(Broker::new(roots.clone(), reading.token_timeout));
        let pace = Pace::new(reading.start);
        let budget = Budget::new(reading.byte_budget);
        let recalls = Recalls::default();
        let pulse = Arc::default();
        Self { reading: Arc::new(reading), roots, broker, reporter, board, pulse, pace, budget, recalls }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("reading", &self.reading).finish_non_exhaustive()
    }
}

/// How the life of a mailbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it was told to.
    Released,
    /// Somebody else holds the mailbox.
    LeaseLost,
    /// The worker's session is over.
    SessionEnded,
}

/// One mailbox under one lease.
#[derive(Debug)]
pub struct Session {
    shared: Shared,
    mailbox: MailboxUid,
    epoch: Epoch,
    lease: Lease,
    /// The newest definition revision that was offered.
    revision: watch::Receiver<u64>,
    /// Changes when the ledger has something to settle that was not known when the mailbox was opened.
    recalled: watch::Receiver<u64>,
    /// The definition revision that is read by.
    running: Arc<AtomicU64>,
    teller: Teller,
    life: Arc<Life>,
    /// The last attempt reached the end of the mailbox.
    worked: bool,
    /// How old messages that waited are read. `None`: they wait, if there are any.
    release: Option<Release>,
    /// When that was asked for.
    asked: Instant,
    /// When it was asked what is to be deleted.
    asked_what_is_due: Instant,
    /// What it is at.
    standing: Standing,
}

impl Session {
    /// A session that has not begun.
    pub fn new(
        shared: Shared,
        mailbox: MailboxUid,
        epoch: Epoch,
        lease: Lease,
        revision: watch::Receiver<u64>,
    ) -> Self {
        let teller = Teller::new(shared.board.clone(), mailbox.as_str(), epoch.0);
        let recalled = shared.recalls.subscribe(mailbox.as_str());
        let life = shared.pulse.begin(mailbox.as_str());
        let running = Arc::default();
        let (worked, release, asked) = (false, None, Instant::now());
        let asked_what_is_due = asked;
        Self {
            shared,
            mailbox,
            epoch,
            lease,
            revision,
            recalled,
            running,
            teller,
            life,
            worked,
            release,
            asked,
            asked_what_is_due,
            standing: Standing::default(),
        }
    }

    /// Tells there by which revision of its definition the mailbox is read.
    pub fn telling(self, running: Arc<AtomicU64>) -> Self {
        Self { running, ..self }
    }

    /// What it is at, and who tells of it: for whoever watches it.
    pub fn watched(&self) -> (Standing, Teller) {
        (self.standing.clone(), self.teller.clone())
    }

    /// Lives until told to let go or until the lease is lost.
    pub async fn run(&mut self) -> Ended {
        loop {
            let opened = match self.open().await {
                Ok(opened) => opened,
                Err(ended) => return ended,
            };
            let (begun, offered) = (Instant::now(), self.offered());
            if let Some(ended) = self.serve(opened).await {
                return ended;
            }
            // A replica that lags behind the offer, or a cursor that is refused again and again, must not be asked in a
            // circle.
            if begun.elapsed() < Duration::from_secs(1) {
                self.pause(Duration::from_millis(300), offered).await;
            }
        }
    }

    /// Tells of a panic, and waits before the next life, unless there is a newer definition than `revision`.
    pub async fn panicked(&mut self, failures: u32, revision: u64) {
        let found = diagnosis::defect("the reading of this mailbox panicked");
        let delay = retry::delay(&found, failures, rand::random());
        self.teller.fails(&found, delay);
        self.pause(delay, revision).await;
    }

    /// Tells that it stood still and was ended, and waits before the next life, as after a panic. `failures`: lives in a row that
    /// ended badly before. How many now.
    pub async fn stalled(&mut self, stalled: &Stalled, failures: u32, lasted: Duration, revision: u64) -> u32 {
        let line = stalled.activity.line();
        let found = diagnosis::stalled(line.doing, stalled.lasted).mended_by(line.remedy);
        let failures = retry::in_a_row(failures, self.worked, lasted);
        let delay = retry::delay(&found, failures, rand::random());
        tracing::warn!(mailbox = %self.mailbox, code = found.code, cause = found.cause, ?delay, "reading begins anew");
        self.teller.fails(&found, delay);
        self.pause(delay, revision).await;
        failures
    }

    /// Raises the fence and learns what to read.
    async fn open(&mut self) -> Result<v1::OpenedMailbox, Ended> {
        let mut failures = 0;
        loop {
            if self.lease.is_ending() {
                return Err(Ended::Released);
            }
            let ending = self.lease.clone();
            let standing = self.standing.clone();
            tokio::select! {
                biased;
                () = ending.ending() => return Err(Ended::Released),
                allowed = self.lease.may_write(|| standing.at(Activity::Suspended)) => {
                    allowed.map_err(|_| Ended::Released)?;
                }
            }
            let offered = self.offered();
            // Ordering: before it is asked, so that what comes meanwhile is asked for again.
            self.recalled.mark_unchanged();
            let lease = v1::MailboxLease { mailbox: self.mailbox.to_string(), epoch: self.epoch.0 };
            let opening = self.standing.at(Activity::Opening);
            let opened = self.shared.reporter.open(lease).await;
            drop(opening);
            let (found, after) = match opened {
                Ok(opened) if opened.definition.is_some() => return Ok(opened),
                Ok(_) => (diagnosis::definition_not_found("the control plane named no definition"), None),
                Err(report::Error::LeaseLost) => return Err(Ended::LeaseLost),
                Err(report::Error::SessionEnded) => return Err(Ended::SessionEnded),
                Err(report::Error::SecretUnreadable { detail }) => (diagnosis::secret_unreadable(&detail), None),
                Err(report::Error::NotFound { detail }) => (diagnosis::definition_not_found(&detail), None),
                Err(report::Error::Unavailable { after, detail }) => (diagnosis::control_plane(&detail), after),
                Err(error) => (diagnosis::control_plane(&error.to_string()), None),
            };
            failures += 1;
            // Right after an assignment replicas may need a moment: quick at first.
            let quick = Duration::from_millis(50 << failures.min(6));
            let delay = if failures < 7 {
                after.unwrap_or(quick).min(quick * 4)
            } else {
                retry::delay(&found, failures - 6, rand::random())
            };
            // What passes by itself is told only when it does not; what somebody has to mend is told at once.
            if failures >= 7 || !found.is_transient() {
                tracing::warn!(mailbox = %self.mailbox, code = found.code, cause = found.cause, "a mailbox is not opened");
                self.teller.unopened();
                self.teller.fails(&found, delay);
            }
            self.pause(delay, offered).await;
        }
    }

    /// Reads under one definition. `None`: open again.
    async fn serve(&mut self, opened: v1::OpenedMailbox) -> Option<Ended> {
        let definition = opened.definition.clone().unwrap_or_default();
        self.running.store(definition.revision, Ordering::Relaxed);
        self.teller.recall(opened.generation, opened.status.as_ref());
        self.recall_refusals(&definition, opened.status.as_ref());
        self.asked = Instant::now();
        self.asked_what_is_due = self.asked;
        self.release = Release::of(opened.backlog_release.as_ref(), self.asked);
        let mut committer = Committer::new(
            self.shared.reporter.clone(),
            self.lease.clone(),
            self.mailbox.as_str(),
            self.epoch.0,
            &opened,
        )
        .standing(self.standing.clone())
        .telling(self.life.clone());
        let mut unsettled = Some(opened.unsettled_source_keys);
        let mut care = Care::default();
        let mut failures = 0;
        if let Some(wait) = asked_to_wait(opened.status.as_ref()) {
            self.pause(wait, definition.revision).await;
        }
        loop {
            if self.lease.is_ending() {
                return Some(Ended::Released);
            }
            if self.offered() > definition.revision || self.recalled.has_changed().unwrap_or(false) {
                return None;
            }
            self.teller.tries();
            self.worked = false;
            let begun = Instant::now();
            let trouble = self.attempt(&definition, &mut committer, &mut care, &mut unsettled).await;
            failures = retry::in_a_row(failures, self.worked, begun.elapsed());
            let delay = match trouble {
                Trouble::Called | Trouble::Stop(Stop::Closed) => continue,
                Trouble::Stop(Stop::LeaseLost) => return Some(Ended::LeaseLost),
                Trouble::Stop(Stop::SessionEnded) => return Some(Ended::SessionEnded),
                Trouble::Stop(Stop::Reopen | Stop::Refused(_)) => return None,
                // Sessions of a server that calls every token expired must not turn in a circle.
                Trouble::TokenExpired if begun.elapsed() > Duration::from_secs(60) => Duration::ZERO,
                Trouble::TokenExpired => retry::delay(&imap::connection_lost(None), failures, rand::random()),
                Trouble::Problem(found) => {
                    let delay = retry::delay(&found, failures, rand::random());
                    if found.is_transient() {
                        tracing::info!(mailbox = %self.mailbox, email = definition.email, code = found.code, cause = found.cause, ?delay, "reading failed");
                    } else {
                        tracing::warn!(mailbox = %self.mailbox, email = definition.email, code = found.code, cause = found.cause, ?delay, "reading failed");
                    }
                    // A connection that worked and was lost is opened again within a second: no alarm yet. The second
                    // loss in a row is one.
                    if self.worked && failures == 1 && found.is_transient() && found.kind != ProblemKind::Throttled {
                        self.teller.works(MailboxState::Connecting);
                    } else {
                        self.teller.fails(&found, delay);
                    }
                    delay
                }
            };
            self.pause(delay, definition.revision).await;
        }
    }

    /// One connection, from sign-in to its end.
    async fn attempt(
        &mut self,
        definition: &MailboxDefinition,
        committer: &mut Committer,
        care: &mut Care,
        unsettled: &mut Option<Vec<String>>,
    ) -> Trouble {
        let lease = self.lease.clone();
        let folder = tokio::select! {
            biased;
            () = lease.ending() => return Trouble::Called,
            // Boxed: what only signing in and catching up need must not weigh on thousands that wait.
            folder = Box::pin(self.connect(definition)) => folder,
        };
        let mut folder = match folder {
            Ok(folder) => folder,
            Err(trouble) => return trouble,
        };
        let trouble = match self.read(&mut folder, definition, committer, care, unsettled).await {
            Ok(trouble) => {
                // Between two commands: a clean end, but not a long one.
                let _leaving = self.standing.at(Activity::Leaving);
                let _ = tokio::time::timeout(Duration::from_secs(2), folder.log_out()).await;
                return trouble;
            }
            Err(trouble) => trouble,
        };
        if let (Trouble::TokenExpired, Some(credential)) = (&trouble, Credential::of(definition)) {
            self.shared.broker.discard_older(&credential, Duration::from_secs(60)).await;
        }
        trouble
    }

    /// Catches up and waits, again and again. `Ok`: the connection is at rest, and this is why it is not needed any more.
    async fn read(
        &mut self,
        folder: &mut Mail,
        definition: &MailboxDefinition,
        committer: &mut Committer,
        care: &mut Care,
        unsettled: &mut Option<Vec<String>>,
    ) -> Result<Trouble, Trouble> {
        let cursor = Box::pin(anchor::first_cursor(folder, definition, committer)).await?;
        let former = cursor.numbering;
        if cursor.waiting().is_some() {
            // Connections that fail one after the other must learn of a decision, too.
            self.ask_about_backlog(ASK_AGAIN).await;
        }
        let cursor = Box::pin(anchor::present_cursor(folder, cursor, self.release.as_ref(), committer)).await?;
        if cursor.numbering != former {
            // UIDs that broke a connection were those of other messages.
            *care = Care::default();
            let (was, is) = (former.validity, cursor.numbering.validity);
            tracing::warn!(mailbox = %self.mailbox, email = definition.email, former = was, now = is, "a folder was numbered anew: its messages are re-keyed");
        }
        let after = settling::after_intake(definition);
        settling::recall(committer, &after, cursor.numbering, unsettled);
        let mut idles = folder.can("IDLE");
        loop {
            // From what is committed: after a failure that is behind what was read.
            let cursor = anchor::decode(committer.committed())?.unwrap_or_else(|| cursor.clone());
            self.teller.renumbered(cursor.renumbered());
            if let AfterIntake::Delete(keep) = after {
                self.ask_what_is_due(definition, keep, cursor.numbering, committer).await;
            }
            match cursor.rekeys_up_to() {
                Some(_) => self.teller.works(MailboxState::Rekeying),
                None if !self.worked => self.teller.works(MailboxState::CatchingUp),
                None => {}
            }
            let reading = self.shared.reading.clone();
            let budget = self.shared.budget.clone();
            let waits = cursor.waiting().is_some();
            if waits {
                self.ask_about_backlog(reading.poll).await;
            }
            let step = self.release.as_mut().filter(|_| waits).and_then(|release| release.step(Instant::now()));
            let (most, finder) = (definition.max_message_bytes, committer.finder());
            let reader = Reader::new(folder, care, cursor, &reading, most, budget, finder).with_step(step);
            let reader = reader.telling(self.life.clone());
            // Whoever decides about what waits is obeyed between two groups.
            let decided = || waits && self.recalled.has_changed().unwrap_or(false);
            let newer = || self.offered() > definition.revision || decided();
            let caught_up = Box::pin(catch_up::run(reader, committer, &after, newer)).await?;
            if caught_up.ending {
                return Err(Trouble::Called);
            }
            if caught_up.stopped {
                return Ok(Trouble::Called);
            }
            if caught_up.rekeyed {
                self.tell_rekeyed(definition, committer)?;
                // What came meanwhile.
                continue;
            }
            if committer.has_more_to_settle() {
                return Ok(Trouble::Stop(Stop::Reopen));
            }
            self.worked = true;
            self.life.caught_up();
            let time = next_look(&reading, caught_up.pending);
            match settling::trouble(&after, caught_up.settle_refused.as_deref(), can_expunge(folder)) {
                None => self.tell_caught_up(&caught_up),
                Some(found) => self.teller.fails(&found, time),
            }
            let released = self.release.filter(|_| caught_up.waits).map(|release| release.wait(Instant::now()));
            if released.is_some_and(|wait| wait.is_zero()) {
                continue;
            }
            let time = released.map_or(time, |wait| wait.min(time));
            let stop = self.called(definition.revision);
            let waiting = self.standing.lasting(Activity::Waiting, time);
            let woken = if idles { idle::wait(folder, time, stop).await } else { idle::poll(folder, time, stop).await };
            drop(waiting);
            match woken {
                Ok(idle::Woken::Stop) => return Ok(Trouble::Called),
                Ok(idle::Woken::Mail | idle::Woken::Time) => {}
                // It announced IDLE and refuses it: looked at from time to time instead.
                Err(ImapError::Refused { command: "IDLE", text, .. }) if imap::passing(&text).is_none() => {
                    idles = false
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Every message that lay in the folder as it was numbered anew is dealt with, and that is committed.
    fn tell_rekeyed(&self, definition: &MailboxDefinition, committer: &Committer) -> Result<(), Trouble> {
        let cursor = anchor::decode(committer.committed())?;
        if let Some(Renumbered { known, new, left, .. }) = cursor.as_ref().and_then(Cursor::renumbered) {
            tracing::info!(mailbox = %self.mailbox, email = definition.email, known, new, left, "a folder is re-keyed");
        }
        Ok(())
    }

    /// The newest definition revision that was offered.
    fn offered(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Returns when the lease is ending, a newer definition is offered, or there is more to settle.
    async fn called(&self, revision: u64) {
        let (mut newest, mut recalled) = (self.revision.clone(), self.recalled.clone());
        tokio::select! {
            () = self.lease.ending() => {}
            Ok(()) = recalled.changed() => {}
            // A sender that is gone offers nothing new.
            Ok(_) = newest.wait_for(|newest| *newest > revision) => {}
        }
    }

    /// Waits, unless something changes that makes another try worth while: also when it changed while the last try, under
    /// `revision`, still went on.
    async fn pause(&self, delay: Duration, revision: u64) {
        let _resting = self.standing.lasting(Activity::Resting, delay);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.called(revision) => {}
        }
    }
}

/// How long the server asked a former holder to stay away.
fn asked_to_wait(status: Option<&v1::MailboxStatus>) -> Option<Duration> {
    let until = postroom_proto::convert::from_timestamp(status?.throttled_until_time.as_ref()?);
    let wait = Duration::from_micros(u64::try_from(until.saturating_sub(now())).ok()?);
    Some(wait.min(Duration::from_secs(3600)))
}

#[cfg(test)]
mod tests;
