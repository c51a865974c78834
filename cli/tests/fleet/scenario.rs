//! A fleet on its stage: Dovecot, a store, a control plane, workers, and mail on its way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use postroom_cli::client::Client;
use postroom_proto::v1::{self, MailboxState};
use postroom_testbed::Link;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};

use crate::audit;
use crate::control_plane::ControlPlane;
use crate::harness::{PATIENCE, SERVER, Stage};
use crate::post::Post;
use crate::scale::{Scale, Terms};
use crate::store::Store;
use crate::worker::Worker;

/// Scenarios that run at one time: each is a dozen processes.
const AT_ONCE: u32 = 2;
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE as usize);

/// A running fleet.
pub(crate) struct Fleet {
    // Ordering: fields drop from top to bottom; who calls ends before who is called.
    pub(crate) workers: BTreeMap<String, Worker>,
    plane: Option<ControlPlane>,
    plane_lives: usize,
    /// From the workers to Dovecot.
    pub(crate) mail: Link,
    pub(crate) store: Store,
    pub(crate) stage: Stage,
    post: Option<Post>,
    pub(crate) scale: Scale,
    terms: Terms,
    began: Instant,
    turn: SemaphorePermit<'static>,
}

impl Fleet {
    /// Servers and a store, and nobody who uses them. `members`: of etcd.
    pub(crate) async fn bare(scale: Scale, terms: Terms, members: usize) -> Self {
        Self::bare_in(TURNS.acquire().await.unwrap(), scale, terms, members).await
    }

    /// Everything but workers, with a model that is applied.
    pub(crate) async fn set(scale: Scale, terms: Terms, members: usize) -> Self {
        Self::bare(scale, terms, members).await.with_plane().await
    }

    /// The same while no other scenario runs: for what is timed.
    pub(crate) async fn set_alone(scale: Scale, terms: Terms, members: usize) -> Self {
        let turns = TURNS.acquire_many(AT_ONCE).await.unwrap();
        Self::bare_in(turns, scale, terms, members).await.with_plane().await
    }

    async fn bare_in(turn: SemaphorePermit<'static>, scale: Scale, terms: Terms, members: usize) -> Self {
        let began = Instant::now();
        let stage = Stage::set().await;
        Self {
            workers: BTreeMap::new(),
            plane: None,
            plane_lives: 0,
            mail: Link::start(stage.testbed.dovecot.imap_addr()).await.unwrap(),
            store: Store::start(members).await,
            stage,
            post: None,
            scale,
            terms,
            began,
            turn,
        }
    }

    async fn with_plane(mut self) -> Self {
        self.start_plane().await;
        self.plane().apply(&self.model()).await;
        self
    }

    /// The same with workers that read everything, and mail that begins to come.
    pub(crate) async fn start(scale: Scale, terms: Terms, members: usize, workers: &[&str]) -> Self {
        let mut fleet = Self::set(scale, terms, members).await;
        for name in workers {
            fleet.add_worker(name, &["--returning=false"]).await;
        }
        fleet.all_read().await;
        fleet.send();
        fleet
    }

    /// Lets other scenarios run beside it again.
    pub(crate) fn no_longer_alone(&mut self) {
        drop(self.turn.split(AT_ONCE as usize - 1));
    }

    /// E-mails of the mailboxes.
    pub(crate) fn mailboxes(&self) -> Vec<String> {
        (0..self.scale.mailboxes).map(|number| format!("box-{number}@contoso.example")).collect()
    }

    /// The model: one queue with all mailboxes.
    pub(crate) fn model(&self) -> String {
        let testbed = &self.stage.testbed;
        let usual = self.stage.model(&self.stage.secret());
        let port = self.mail.addr().port();
        let linked = usual.replace(&format!("port: {}", testbed.imap_port()), &format!("port: {port}"));
        let (head, _) = linked.split_once("queues:").unwrap();
        let server = serde_json::json!(SERVER);
        let rows: Vec<_> =
            self.mailboxes().iter().map(|it| format!("      - {{email: {it}, server: {server}}}\n")).collect();
        format!("{head}queues:\n  - name: Many\n    instance: core1\n    addresses:\n{}", rows.concat())
    }

    /// Mail begins to come.
    pub(crate) fn send(&mut self) {
        let lmtp = self.stage.testbed.dovecot.lmtp_addr();
        self.post = Some(Post::start(lmtp, self.mailboxes(), self.scale.messages));
    }

    /// Little mail comes while something is timed, or as much as usual again.
    pub(crate) fn slow_mail(&self, slow: bool) {
        self.post.as_ref().expect("mail that comes").set_slow(slow);
    }

    /// Waits until so many more messages were delivered.
    pub(crate) async fn more_mail(&self, count: usize) {
        let post = self.post.as_ref().expect("mail that comes");
        let goal = post.count() + count;
        eventually_within(PATIENCE, "more mail is delivered", || async { post.count() >= goal }).await;
    }

    /// Takes back what was decided about workers, as soon as somebody can.
    pub(crate) async fn undrain(&self, workers: &[&str]) {
        for name in workers {
            let client = self.client();
            eventually_within(PATIENCE, "a worker is not drained", || async {
                client.undrain_worker((*name).into()).await.is_ok()
            })
            .await;
        }
    }

    /// Waits until mail that is delivered from now on becomes contacts, and all that was before.
    pub(crate) async fn mail_flows(&self) {
        let post = self.post.as_ref().expect("mail that comes");
        let goal = post.count() + 20;
        let client = self.client();
        let arrived = async || audit::contact_count(&client).await.is_some_and(|count| count >= goal);
        let until = Instant::now() + PATIENCE;
        while !(post.count() >= goal && arrived().await) {
            assert!(Instant::now() < until, "not within {PATIENCE:?}: {goal} contacts\n{}", self.logs());
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn terms(&self) -> Terms {
        self.terms
    }

    pub(crate) fn plane(&self) -> &ControlPlane {
        self.plane.as_ref().expect("a control plane")
    }

    pub(crate) fn client(&self) -> Client {
        self.plane().client()
    }

    /// Starts the control plane over the store as it is now. All roads lead to it, wherever it listens.
    pub(crate) async fn start_plane(&mut self) {
        self.plane_lives += 1;
        let log = format!("control-plane-{}.log", self.plane_lives);
        let url = self.store.url();
        let args = [&["--listen", "127.0.0.1:0", "--store", &url], self.terms.args()].concat();
        self.plane = Some(ControlPlane::launch(self.stage.folder.path(), &self.stage.data(), &log, &args).await);
        for worker in self.workers.values() {
            worker.road.set_upstream(self.address());
        }
    }

    /// Where the control plane listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.plane().context.endpoint.trim_start_matches("http://").parse().unwrap()
    }

    /// kill -9 of the control plane.
    pub(crate) fn kill_plane(&mut self) {
        self.plane.take().expect("a control plane").process.kill();
    }

    /// SIGTERM of the control plane, and waits for its end.
    pub(crate) async fn stop_plane(&mut self) {
        let mut plane = self.plane.take().expect("a control plane");
        plane.process.terminate();
        assert_eq!(plane.process.ended().await.code(), Some(0), "{}", plane.process.log());
    }

    /// A new worker, by a road of its own to the control plane.
    pub(crate) async fn add_worker(&mut self, name: &str, args: &[&str]) -> &mut Worker {
        let road = Link::start(self.address()).await.unwrap();
        // However many mailboxes there are, these tests are not about the pace of a start.
        let all = [&["--start-burst=1000", "--start-spread=0s"], args].concat();
        let mut worker = Worker::new(name, road, &all, self.stage.folder.path().into());
        worker.start(self.plane());
        self.workers.entry(name.into()).or_insert(worker)
    }

    /// A new worker whose calls go another way to the control plane.
    pub(crate) async fn add_worker_calling(&mut self, name: &str, endpoint: &str) {
        let road = Link::start(self.address()).await.unwrap();
        let mut worker = Worker::new(name, road, &["--start-burst=1000"], self.stage.folder.path().into());
        worker.start_calling(self.plane(), endpoint);
        self.workers.insert(name.into(), worker);
    }

    pub(crate) fn worker(&mut self, name: &str) -> &mut Worker {
        self.workers.get_mut(name).expect("a worker of this name")
    }

    /// Starts a worker again that was stopped or killed.
    pub(crate) fn start_worker(&mut self, name: &str) {
        let plane = self.plane.as_ref().expect("a control plane");
        self.workers.get_mut(name).expect("a worker of this name").start(plane);
    }

    /// Waits until a worker has registered so often, over all its lives.
    pub(crate) async fn registered(&self, name: &str, times: usize) {
        let worker = &self.workers[name];
        eventually_within(PATIENCE, "a worker registers", || async { worker.said("registered") >= times }).await;
    }

    /// Waits until every mailbox is read, by workers that pass. The mailboxes then.
    pub(crate) async fn read_by(&self, who: impl Fn(&str) -> bool) -> Vec<v1::Mailbox> {
        let (client, until) = (self.client(), Instant::now() + PATIENCE);
        let mut refused = None;
        loop {
            let listed = client.list_mailboxes().await.map(|listed| listed.mailboxes);
            let listed = listed.map_err(|error| refused = Some(error)).unwrap_or_default();
            let is_read = |it: &v1::Mailbox| {
                it.state() == MailboxState::Idle && it.holder.as_ref().is_some_and(|holder| who(&holder.worker))
            };
            if listed.len() == self.scale.mailboxes && listed.iter().all(is_read) {
                return listed;
            }
            if Instant::now() > until {
                let others: Vec<_> = listed.iter().filter(|it| !is_read(it)).take(3).collect();
                let (count, logs) = (listed.len(), self.logs());
                panic!("not within {PATIENCE:?}: every mailbox is read: {count}, {others:#?}, {refused:?}\n{logs}");
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until every mailbox is read.
    pub(crate) async fn all_read(&self) -> Vec<v1::Mailbox> {
        self.read_by(|_| true).await
    }

    /// Sign-ins that Dovecot has counted so far.
    pub(crate) fn sign_ins(&self) -> usize {
        let log = std::fs::read(self.stage.testbed.dovecot.dir().join("dovecot.log")).unwrap();
        String::from_utf8_lossy(&log)
            .lines()
            .filter(|line| line.contains("imap-login: Info: Login: user=<box-"))
            .count()
    }

    /// Waits for the last mail, and says what there is to say. Every message is one contact, and nobody overlapped.
    pub(crate) async fn finish(mut self, scenario: &str) {
        let post = self.post.take().expect("mail that comes");
        let sent = post.finish().await;
        self.all_read().await;
        audit::each_is_one_contact(&self.client(), &sent).await;
        let trust = self.terms.trust();
        let held: Vec<_> = self.workers.values().flat_map(|worker| worker.held(trust)).collect();
        assert!(held.len() >= self.scale.mailboxes, "the logs tell who held what: {held:?}");
        let leases = held.len();
        audit::nobody_overlapped(held, trust);
        let (mailboxes, messages, time) = (self.scale.mailboxes, sent.len(), self.began.elapsed());
        eprintln!("{scenario}: {messages} messages of {mailboxes} mailboxes, {leases} leases, {time:.1?}");
    }

    /// The ends of all logs, for a test that fails.
    pub(crate) fn logs(&self) -> String {
        let workers = self.workers.values().filter(|it| it.runs()).map(|it| (it.name.clone(), it.process().log()));
        let plane = self.plane.iter().map(|plane| ("control plane".to_owned(), plane.process.log()));
        let ends = plane.chain(workers).map(|(name, log)| {
            let lines: Vec<_> = log.lines().collect();
            format!("== {name}\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
        });
        ends.collect()
    }
}

impl Drop for Fleet {
    /// Keeps the logs of a scenario that fails, where POSTROOM_FLEET_LOGS says.
    fn drop(&mut self) {
        let Some(keep) = std::env::var_os("POSTROOM_FLEET_LOGS").filter(|_| std::thread::panicking()) else { return };
        let scenario = std::thread::current().name().unwrap_or("scenario").replace("::", "-");
        let keep = PathBuf::from(keep).join(scenario);
        let folders = [self.stage.folder.path(), self.stage.testbed.dovecot.dir(), self.store.etcd.folder()];
        // What cannot be kept is no reason to hide why the scenario fails.
        let _ = std::fs::create_dir_all(&keep);
        for entry in folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten() {
            if entry.path().extension().is_some_and(|ending| ending == "log") {
                let _ = std::fs::copy(entry.path(), keep.join(entry.file_name()));
            }
        }
    }
}

/// Who holds each mailbox, under which lease.
pub(crate) fn leases(mailboxes: &[v1::Mailbox]) -> BTreeMap<String, (String, String, u64)> {
    let lease = |it: &v1::Mailbox| it.holder.clone().map(|it| (it.worker, it.session, it.epoch)).unwrap_or_default();
    mailboxes.iter().map(|it| (it.email.clone(), lease(it))).collect()
}

/// The worker of each mailbox.
pub(crate) fn names(mailboxes: &[v1::Mailbox]) -> BTreeMap<String, String> {
    leases(mailboxes).into_iter().map(|(email, (worker, ..))| (email, worker)).collect()
}

/// Waits until a condition holds, and fails the test when it does not in time.
pub(crate) async fn eventually_within<F: Future<Output = bool>>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let until = Instant::now() + patience;
    while !condition().await {
        assert!(Instant::now() < until, "not within {patience:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
