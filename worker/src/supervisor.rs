//! One task a mailbox, and nothing that happens in one disturbs another.
//!
//! Takes the orders of the holder and says when a mailbox has been let go. Besides [`crate::app`] and
//! [`crate::errand`] the only place that spawns.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use postroom_proto::id::{Epoch, MailboxUid};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::mailbox::lease::{Lease, Switch, Trust};
use crate::mailbox::session::{Ended, Session, Shared};
use crate::mailbox::standing::watchdog;

/// Events waiting to be taken. Tasks wait when it is full.
const EVENTS: usize = 1024;

/// What became of a mailbox. Each task ends with exactly one, unless it was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It was let go: nothing is in flight for it any more.
    Gone {
        /// The mailbox.
        mailbox: MailboxUid,
        /// The lease it was read under.
        epoch: Epoch,
    },
    /// It was let go because somebody else holds it.
    LeaseLost {
        /// The mailbox.
        mailbox: MailboxUid,
        /// The lease that was lost.
        epoch: Epoch,
    },
    /// The control plane says that the worker's session is over. The mailbox was let go.
    SessionEnded {
        /// The mailbox.
        mailbox: MailboxUid,
        /// The lease it was read under.
        epoch: Epoch,
    },
}

struct Held {
    epoch: Epoch,
    switch: Switch,
    revision: watch::Sender<u64>,
    /// Revision of the definition that it is read by.
    running: Arc<AtomicU64>,
}

/// Runs the mailboxes of a worker.
pub struct Supervisor {
    shared: Shared,
    trust: Trust,
    tasks: TaskTracker,
    held: HashMap<MailboxUid, Held>,
    events: mpsc::Sender<Event>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// A supervisor without mailboxes, and where its events come out. Extend `trust` after each heartbeat.
    pub fn new(shared: Shared, trust: Trust) -> (Self, mpsc::Receiver<Event>) {
        let (events, taken) = mpsc::channel(EVENTS);
        (Self { shared, trust, tasks: TaskTracker::new(), held: HashMap::new(), events }, taken)
    }

    /// Begins to read a mailbox under a new lease. A former lease of it is closed at once. `spread`: begin at a random
    /// moment, so that a fleet does not sign in all at once; not for mailboxes that another worker has let go.
    pub fn open(&mut self, mailbox: &MailboxUid, epoch: Epoch, definition_revision: u64, spread: bool) {
        let (switch, lease) = Switch::new(&self.trust);
        let (revision, newest) = watch::channel(definition_revision);
        let running = Arc::new(AtomicU64::new(0));
        if let Some(former) =
            self.held.insert(mailbox.clone(), Held { epoch, switch, revision, running: running.clone() })
        {
            former.switch.close();
        }
        let longest = if spread { self.shared.reading.start.spread } else { Duration::ZERO };
        let task = Task {
            shared: self.shared.clone(),
            mailbox: mailbox.clone(),
            epoch,
            lease,
            newest,
            running,
            events: self.events.clone(),
        };
        self.tasks.spawn(task.run(longest.mul_f64(rand::random())));
    }

    /// Reads a mailbox by its newer definition.
    pub fn reopen(&mut self, mailbox: &MailboxUid, definition_revision: u64) {
        if let Some(held) = self.held.get(mailbox) {
            held.revision.send_if_modified(|newest| {
                let newer = *newest < definition_revision;
                *newest = definition_revision.max(*newest);
                newer
            });
        }
    }

    /// Revision of the definition by which a mailbox is read under this lease; 0: none yet.
    pub fn running(&self, mailbox: &MailboxUid, epoch: Epoch) -> u64 {
        let held = self.held.get(mailbox).filter(|held| held.epoch == epoch);
        held.map_or(0, |held| held.running.load(Ordering::Relaxed))
    }

    /// Lets a mailbox go after the report in flight. [`Event::Gone`] follows.
    pub fn drain(&mut self, mailbox: &MailboxUid) {
        if let Some(held) = self.held.get(mailbox) {
            held.switch.drain();
        }
    }

    /// Lets a mailbox go at once. No event follows.
    pub fn close(&mut self, mailbox: &MailboxUid) {
        if let Some(held) = self.held.remove(mailbox) {
            held.switch.close();
        }
    }

    /// Forgets a mailbox whose event was taken. One that was opened again under another epoch stays.
    pub fn forget(&mut self, mailbox: &MailboxUid, epoch: Epoch) {
        if self.held.get(mailbox).is_some_and(|held| held.epoch == epoch) {
            self.held.remove(mailbox);
        }
    }

    /// Lets everything go at once and waits until no task is left.
    pub async fn stop(mut self) {
        for (_, held) in self.held.drain() {
            held.switch.close();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What a mailbox's task needs.
struct Task {
    shared: Shared,
    mailbox: MailboxUid,
    epoch: Epoch,
    lease: Lease,
    newest: watch::Receiver<u64>,
    running: Arc<AtomicU64>,
    events: mpsc::Sender<Event>,
}

impl Task {
    async fn run(self, delay: Duration) {
        let closed = self.lease.clone();
        tokio::select! {
            biased;
            // Closed: whatever is going on is dropped where it stands.
            () = closed.closed() => {}
            () = self.live(delay) => {}
        }
    }

    async fn live(&self, delay: Duration) {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.lease.ending() => {}
        }
        let overdue = async {
            self.lease.ending().await;
            tokio::time::sleep(self.shared.reading.drain_timeout).await;
        };
        let ended = tokio::select! {
            ended = self.lives() => ended,
            () = overdue => Ended::Released,
        };
        let (mailbox, epoch) = (self.mailbox.clone(), self.epoch);
        let event = match ended {
            Ended::Released => Event::Gone { mailbox, epoch },
            Ended::LeaseLost => Event::LeaseLost { mailbox, epoch },
            Ended::SessionEnded => Event::SessionEnded { mailbox, epoch },
        };
        // Nobody listens any more: the worker stops.
        let _ = self.events.send(event).await;
    }

    /// One session after the other, until one ends other than by a panic or by standing still.
    async fn lives(&self) -> Ended {
        let mut failures = 0;
        loop {
            let (lease, newest) = (self.lease.clone(), self.newest.clone());
            let offered = *newest.borrow();
            let running = self.running.clone();
            let mut session =
                Session::new(self.shared.clone(), self.mailbox.clone(), self.epoch, lease, newest).telling(running);
            let begun = Instant::now();
            let (standing, teller) = session.watched();
            let life = async {
                tokio::select! {
                    biased;
                    ended = session.run() => Ok(ended),
                    stalled = watchdog::watch(standing, &self.lease, &self.shared.reading, teller) => Err(stalled),
                }
            };
            // Whoever watches within it, too: nobody else would notice that the mailbox is not read any more.
            let life = AssertUnwindSafe(life).catch_unwind().await;
            // A session that panicked or stood still is thrown away with all its state: nothing of it is used again, and
            // whatever it was at is dropped where it stands, as when a mailbox is closed.
            match life {
                Ok(Ok(ended)) => return ended,
                Err(_) => {
                    failures += 1;
                    tracing::error!(mailbox = %self.mailbox, "the reading of a mailbox panicked; it begins anew");
                    session.panicked(failures, offered).await;
                }
                Ok(Err(stalled)) => failures = session.stalled(&stalled, failures, begun.elapsed(), offered).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use bytes::Bytes;
    use postroom_proto::v1::{self, ProblemKind};
    use tokio::time::timeout;

    use super::*;
    use crate::config::Reading;
    use crate::mailbox::status::Board;
    use crate::report::{Error, Reporter};

    /// Opens nothing: what it answers instead goes by the mailbox.
    #[derive(Default)]
    struct Control {
        opens: Mutex<HashMap<String, usize>>,
        panics: AtomicUsize,
        lost: String,
        /// Those that are never answered.
        deaf: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Reporter for Control {
        async fn open(&self, lease: v1::MailboxLease) -> Result<v1::OpenedMailbox, Error> {
            let opens = {
                let mut opens = self.opens.lock().expect("opens");
                let count = opens.entry(lease.mailbox.clone()).or_default();
                *count += 1;
                *count
            };
            if self.deaf.lock().expect("deaf").contains(&lease.mailbox) {
                return std::future::pending().await;
            }
            if lease.mailbox == self.lost {
                if opens == 1 {
                    self.panics.fetch_add(1, Ordering::SeqCst);
                    panic!("a planted panic");
                }
                return Err(Error::LeaseLost);
            }
            Err(Error::Unavailable { after: None, detail: "not yet".into() })
        }

        async fn report(&self, _: &v1::ReportRequest) -> Result<v1::ReportResponse, Error> {
            unreachable!("nothing is opened")
        }

        async fn upload(&self, _: v1::BlobHeader, _: Bytes) -> Result<(), Error> {
            unreachable!("nothing is opened")
        }

        async fn find_known(&self, _: &v1::FindKnownRequest) -> Result<v1::FindKnownResponse, Error> {
            unreachable!("nothing is opened")
        }

        async fn status(&self, _: Vec<v1::MailboxStatus>) -> Result<(), Error> {
            Ok(())
        }
    }

    fn mailbox(name: &str) -> MailboxUid {
        MailboxUid::derive(name, "INBOX", "x.example")
    }

    fn rig(lost: &str) -> (Supervisor, mpsc::Receiver<Event>, Arc<Control>, Arc<Board>) {
        let control = Arc::new(Control { lost: lost.into(), ..Control::default() });
        let board = Arc::new(Board::new());
        let trust = Trust::new();
        trust.extend(Instant::now() + Duration::from_secs(600));
        let reading = Reading { longest_stall: Duration::from_millis(50), ..Reading::default() };
        let shared = Shared::new(reading, control.clone(), board.clone());
        let (supervisor, events) = Supervisor::new(shared, trust);
        (supervisor, events, control, board)
    }

    async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
        timeout(Duration::from_secs(60), events.recv()).await.expect("in time").expect("an event")
    }

    #[tokio::test]
    async fn a_panic_in_one_mailbox_is_told_and_leaves_the_others_alone() {
        let (bad, good) = (mailbox("bad"), mailbox("good"));
        let (mut supervisor, mut events, control, board) = rig(bad.as_str());
        supervisor.open(&good, Epoch(1), 1, false);
        supervisor.open(&bad, Epoch(2), 1, false);
        while control.panics.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let mut told = Vec::new();
        while told.is_empty() {
            tokio::task::yield_now().await;
            told = board.take();
            told.retain(|status| status.mailbox == bad.as_str());
        }
        assert_eq!(told[0].problem.as_ref().map(|problem| problem.code.as_str()), Some("DEFECT"));
        let before = control.opens.lock().expect("opens")[good.as_str()];
        while control.opens.lock().expect("opens")[good.as_str()] == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        supervisor.drain(&good);
        assert_eq!(next(&mut events).await, Event::Gone { mailbox: good.clone(), epoch: Epoch(1) });
        supervisor.forget(&good, Epoch(1));
        // A newer definition cuts the waiting short, and the second life ends as it should.
        supervisor.reopen(&bad, 2);
        assert_eq!(next(&mut events).await, Event::LeaseLost { mailbox: bad, epoch: Epoch(2) });
        timeout(Duration::from_secs(60), supervisor.stop()).await.expect("stops");
    }

    #[tokio::test]
    async fn a_mailbox_that_stands_still_is_told_and_begun_anew() {
        let stuck = mailbox("stuck");
        let (mut supervisor, _events, control, board) = rig("");
        control.deaf.lock().expect("deaf").push(stuck.to_string());
        supervisor.open(&stuck, Epoch(1), 1, false);
        let told = loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if let Some(told) = board.take().pop() {
                break told;
            }
        };
        let problem = told.problem.expect("a problem");
        assert_eq!((problem.code.as_str(), problem.kind()), ("STALLED", ProblemKind::Transient));
        assert!(problem.cause.contains("asks the control plane what to read"), "{problem:?}");
        while control.opens.lock().expect("opens")[stuck.as_str()] < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        supervisor.close(&stuck);
        timeout(Duration::from_secs(60), supervisor.stop()).await.expect("stops");
    }

    #[tokio::test]
    async fn closing_ends_a_mailbox_without_a_word() {
        let (mut supervisor, mut events, control, _) = rig("");
        let one = mailbox("one");
        supervisor.open(&one, Epoch(1), 1, true);
        supervisor.open(&one, Epoch(2), 1, false);
        while control.opens.lock().expect("opens").is_empty() {
            tokio::task::yield_now().await;
        }
        supervisor.forget(&one, Epoch(1));
        assert!(supervisor.held.contains_key(&one), "the newer lease stays");
        supervisor.close(&one);
        timeout(Duration::from_secs(60), supervisor.stop()).await.expect("stops");
        assert_eq!(events.recv().await, None);
    }
}
