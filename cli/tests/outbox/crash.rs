//! Processes that die or freeze in the midst of sending, at every step of it at once.
//!
//! Eight mailboxes send one mail each, and each mail is held up at another step. Then it happens, everything is let go,
//! and each mail must arrive exactly once.

use std::net::SocketAddr;

use postroom_proto::v1::OutboxState;
use postroom_testbed::exchange::Step;
use postroom_testbed::relay::Hold;
use postroom_testbed::{Exchange, Relay, Stall};

use crate::control_plane::ControlPlane;
use crate::harness::eventually;
use crate::office::{ANNA, By, Office, Outbox, draft};
use crate::process::{Process, free_address};

/// Where each mail is when it happens.
const CLAIM_ASKED: &str = "claim-asked@contoso.example";
const CLAIMED: &str = "claimed@contoso.example";
const MARK_ASKED: &str = "mark-asked@contoso.example";
const MARKED: &str = "marked@contoso.example";
/// The server has all of it, and will not take it.
const LOST: &str = "lost@contoso.example";
/// The server has all of it, and will take it.
const HANDED_OVER: &str = "handed-over@contoso.example";
const TAKEN: &str = "taken@contoso.example";
const SETTLE_ASKED: &str = "settle-asked@contoso.example";
const MAILBOXES: [&str; 8] = [CLAIM_ASKED, CLAIMED, MARK_ASKED, MARKED, LOST, HANDED_OVER, TAKEN, SETTLE_ASKED];

/// Claims lapse soon, and what may have been sent is looked for soon after: once the server has given its connection up
/// and filed its copy, which those out there do within ten minutes.
const SETTINGS: [&str; 8] = [
    "--outbox-claim-time",
    "15s",
    "--outbox-answer-time",
    "15s",
    "--outbox-look-after",
    "6s",
    "--outbox-breaker",
    "1000",
];

/// The same, before the mark and after it.
const CLAIM_TIME: std::time::Duration = std::time::Duration::from_secs(15);

/// Rounds of each test; more by POSTROOM_TEST_ROUNDS.
fn rounds() -> usize {
    std::env::var("POSTROOM_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2)
}

struct Scene {
    office: Office,
    address: String,
    plane: Option<ControlPlane>,
    relay: Relay,
    outbox: Outbox,
    workers: usize,
}

/// A mail at each step.
struct HeldUp<'s> {
    mails: Vec<(&'static str, String)>,
    message_ids: Vec<String>,
    stalls: [Stall; 5],
    holds: [Hold; 3],
    exchange: &'s Exchange,
}

impl Scene {
    async fn set() -> Self {
        Self::set_for(&MAILBOXES.map(|mailbox| (mailbox, By::Smtp))).await
    }

    async fn set_for(senders: &[(&str, By)]) -> Self {
        let office = Office::open(senders).await;
        let address = free_address();
        let plane = office.plane(&address, &SETTINGS).await;
        let relay = Relay::start(address.parse::<SocketAddr>().unwrap()).await.unwrap();
        let outbox = Outbox::of(&plane.context);
        Self { office, address, plane: Some(plane), relay, outbox, workers: 0 }
    }

    /// A worker that reaches its control plane by the relay.
    fn worker(&mut self) -> Process {
        self.workers += 1;
        let (name, endpoint) = (format!("w{}", self.workers), format!("http://{}", self.relay.addr()));
        self.plane.as_ref().unwrap().worker_calling(&endpoint, &name, &format!("{name}.log"), &[])
    }

    async fn send(&self, from: &str) -> (String, String) {
        let stored = self.outbox.send(draft(from, &[ANNA], "S"), &[]).await.unwrap();
        (stored.id, stored.message_id)
    }

    /// Brings a mail to each step of its way by the one worker that there is.
    async fn hold_up(&self) -> HeldUp<'_> {
        let exchange = self.office.exchange().await;
        let (mut mails, mut message_ids) = (Vec::new(), Vec::new());
        let mut store = async |mailbox| {
            let (id, message_id) = self.send(mailbox).await;
            mails.push((mailbox, id));
            message_ids.push(message_id);
        };
        let stalls = [
            (Step::Recipient, CLAIMED),
            (Step::Data, MARKED),
            (Step::End, LOST),
            (Step::End, HANDED_OVER),
            (Step::Accepted, TAKEN),
        ]
        .map(|(step, mailbox)| (mailbox, exchange.stall(step, mailbox, 1)));
        for (mailbox, stall) in &stalls {
            store(*mailbox).await;
            stall.arrived(1).await.unwrap();
        }
        let settles = self.relay.hold("/SettleMail");
        store(SETTLE_ASKED).await;
        settles.arrived(1).await.unwrap();
        let (marks, claims) = (self.relay.hold("/MarkSubmitting"), self.relay.hold("/ClaimMails"));
        store(MARK_ASKED).await;
        marks.arrived(1).await.unwrap();
        claims.arrived(1).await.unwrap();
        store(CLAIM_ASKED).await;
        HeldUp { mails, message_ids, stalls: stalls.map(|(_, stall)| stall), holds: [settles, marks, claims], exchange }
    }

    /// Waits until all are sent, and fails unless each has arrived once.
    async fn assert_each_once(&self, mails: &[(&str, String)], message_ids: &[String]) {
        for (_, id) in mails {
            self.outbox.becomes(id, OutboxState::Sent).await;
        }
        for ((mailbox, _), message_id) in mails.iter().zip(message_ids) {
            self.office.arrives(ANNA, message_id).await;
            assert_eq!(self.office.arrived(ANNA, message_id).await, 1, "the mail of {mailbox}");
            let taken = self.office.exchange().await.accepted();
            let taken = taken.iter().filter(|it| it.message_id == *message_id).count();
            assert_eq!(taken, 1, "the mail of {mailbox}");
        }
    }

    /// Sends a mail from each mailbox, which shows that everything goes on.
    async fn assert_goes_on(&self) {
        for mailbox in MAILBOXES {
            let (id, _) = self.send(mailbox).await;
            self.outbox.becomes(&id, OutboxState::Sent).await;
        }
    }
}

impl HeldUp<'_> {
    /// Lets calls to the control plane go on.
    fn let_calls_go(&self) {
        for hold in &self.holds {
            hold.release();
        }
    }

    /// Lets the server go on, as it does without its client: it hangs up where that owes it something, and delivers what
    /// it has.
    fn let_server_go(&self) {
        let [claimed, marked, lost, handed_over, taken] = &self.stalls;
        for stall in [claimed, handed_over, taken] {
            stall.release();
        }
        for stall in [marked, lost] {
            stall.cut();
        }
        self.exchange.mend();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_killed() {
    let mut scene = Scene::set().await;
    let mut worker = scene.worker();
    for _ in 0..rounds() {
        worker.says("registered").await;
        let held = scene.hold_up().await;
        worker.kill();
        held.let_calls_go();
        held.let_server_go();
        let (mails, ids) = (held.mails.clone(), held.message_ids.clone());
        drop(held);
        worker = scene.worker();
        scene.assert_each_once(&mails, &ids).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_freezes_and_comes_back() {
    let mut scene = Scene::set().await;
    let mut worker = scene.worker();
    for _ in 0..rounds() {
        worker.says("registered").await;
        let held = scene.hold_up().await;
        worker.signal("STOP");
        held.let_calls_go();
        held.let_server_go();
        let (mails, ids) = (held.mails.clone(), held.message_ids.clone());
        drop(held);
        let mut next = scene.worker();
        scene.assert_each_once(&mails, &ids).await;
        worker.signal("CONT");
        scene.assert_goes_on().await;
        scene.assert_each_once(&mails, &ids).await;
        worker.terminate();
        worker.ended().await;
        std::mem::swap(&mut worker, &mut next);
    }
}

/// It has leave to send two mails, and nothing of them was sent, when it freezes: 354 and the answer to a mark come meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_froze_with_leave_to_send_sends_nothing_when_it_comes_back() {
    const GRAPH: &str = "graph@contoso.example";
    let mut scene = Scene::set_for(&[(MARKED, By::Smtp), (GRAPH, By::Graph)]).await;
    let mut worker = scene.worker();
    worker.says("registered").await;
    let stall = scene.office.exchange().await.stall(Step::Data, MARKED, 1);
    let by_smtp = scene.send(MARKED).await;
    stall.arrived(1).await.unwrap();
    let marks = scene.relay.hold("/MarkSubmitting");
    let by_graph = scene.send(GRAPH).await;
    marks.arrived(1).await.unwrap();
    worker.signal("STOP");
    stall.release();
    marks.release();
    let _next = scene.worker();
    for (id, message_id) in [&by_smtp, &by_graph] {
        scene.outbox.becomes(id, OutboxState::Sent).await;
        scene.office.arrives(ANNA, message_id).await;
    }
    worker.signal("CONT");
    // It says what became of them, which nobody wants to know any more.
    worker.says("too late").await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    for (_, message_id) in [&by_smtp, &by_graph] {
        assert_eq!(scene.office.arrived(ANNA, message_id).await, 1);
    }
    let by_smtp = scene.office.exchange().await.accepted().iter().filter(|it| it.message_id == by_smtp.1).count();
    let by_graph = scene.office.bed().graph().await.unwrap();
    assert_eq!((by_smtp, by_graph.accepted().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_is_killed() {
    let mut scene = Scene::set().await;
    let mut worker = scene.worker();
    worker.says("registered").await;
    for _ in 0..rounds() {
        let held = scene.hold_up().await;
        let (mails, ids) = (held.mails.clone(), held.message_ids.clone());
        scene.plane.as_ref().unwrap().process.signal("KILL");
        held.let_calls_go();
        held.let_server_go();
        drop(held);
        let ControlPlane { mut process, .. } = scene.plane.take().unwrap();
        process.ended().await;
        scene.plane = Some(scene.office.bare_plane(&scene.address, &SETTINGS).await);
        scene.assert_each_once(&mails, &ids).await;
        scene.assert_goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_freezes_and_comes_back() {
    let mut scene = Scene::set().await;
    let mut worker = scene.worker();
    worker.says("registered").await;
    for _ in 0..rounds() {
        let held = scene.hold_up().await;
        let (mails, ids) = (held.mails.clone(), held.message_ids.clone());
        let plane = scene.plane.as_ref().unwrap();
        plane.process.signal("STOP");
        held.let_calls_go();
        held.let_server_go();
        let accepted = || async { scene.office.exchange().await.accepted().iter().any(|it| it.message_id == ids[3]) };
        eventually("the server takes what it was given", accepted).await;
        drop(held);
        // Longer than a claim lasts.
        tokio::time::sleep(CLAIM_TIME + std::time::Duration::from_secs(1)).await;
        plane.process.signal("CONT");
        scene.assert_each_once(&mails, &ids).await;
        scene.assert_goes_on().await;
    }
}
