//! Errands between an asker and a worker, both played here, over a real store.

use tokio::time::timeout;

use super::*;
use crate::lease::desk::Ended;
use crate::lease::profile::Profile;
use crate::lease::record::SessionRecord;
use crate::store::Write;
use crate::store::sqlite::Sqlite;

/// Reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time for an errand that is to be finished.
const ENOUGH: Duration = Duration::from_secs(60);

struct Bench {
    errands: Errands,
    store: SharedStore,
    stopping: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: SharedStore = Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap());
        let stopping = CancellationToken::new();
        let model = watch::channel(Arc::default()).1;
        Self { errands: Errands::new(store.clone(), model, stopping.clone()), store, stopping, _folder: folder }
    }

    async fn begin(&self, worker: &str) -> SessionId {
        let session = SessionId::random();
        self.put(key::session(&session), SessionRecord::begun(Profile::new(worker), 0).encode()).await;
        session
    }

    async fn end(&self, session: &SessionId) {
        self.put(key::session(session), SessionRecord::begun(Profile::new("w"), 0).ended(Ended::default()).encode())
            .await;
    }

    async fn assign(&self, session: &SessionId) {
        self.put(key::assignment(&mailbox()), session.as_str().to_owned().into()).await;
    }

    async fn put(&self, key: String, value: bytes::Bytes) {
        self.store.commit(vec![], vec![Write::Put(key, value)]).await.unwrap();
    }

    /// The one errand that waits for a session.
    async fn taken(&self, session: &SessionId) -> v1::Errand {
        let taken = timeout(PATIENCE, self.errands.take(session, PATIENCE)).await.unwrap().unwrap();
        assert_eq!(taken.len(), 1);
        taken.into_iter().next().unwrap()
    }

    async fn ask(&self, time: Duration) -> Result<Asked, Failure> {
        let definition = v1::MailboxDefinition { mailbox: mailbox().to_string(), ..Default::default() };
        self.errands.ask(definition, Task::Check(v1::CheckTask {}), time).await
    }
}

fn mailbox() -> MailboxUid {
    MailboxUid::derive("a@x.example", "INBOX", "x.example")
}

fn step(name: &str) -> Found {
    Found::Step(v1::CheckStep { name: name.into(), ..Default::default() })
}

fn report(session: &SessionId, errand: &v1::Errand, sequence: u32) -> v1::ReportErrandRequest {
    v1::ReportErrandRequest {
        session: session.to_string(),
        errand: errand.id.clone(),
        sequence,
        ..v1::ReportErrandRequest::default()
    }
}

#[tokio::test]
async fn the_holder_of_the_mailbox_finds_out_and_every_finding_comes_once() {
    let bench = Bench::new().await;
    let (idle, holder) = (bench.begin("idle").await, bench.begin("holder").await);
    bench.assign(&holder).await;
    assert_eq!(bench.errands.take(&idle, Duration::ZERO).await, Ok(vec![]));
    let mut asked = bench.ask(ENOUGH).await.unwrap();
    assert_eq!((asked.doer().worker.as_str(), asked.doer().holds), ("holder", true));
    let errand = bench.taken(&holder).await;
    assert_eq!(errand.definition.as_ref().unwrap().mailbox, mailbox().as_str());
    for sequence in [1, 1, 2] {
        let found = Some(step(&format!("step-{sequence}")));
        let request = v1::ReportErrandRequest { found, ..report(&holder, &errand, sequence) };
        bench.errands.report(&holder, request).await.unwrap();
    }
    let last = v1::ReportErrandRequest { ended: true, ..report(&holder, &errand, 3) };
    bench.errands.report(&holder, last).await.unwrap();
    for sequence in [1, 2] {
        assert_eq!(asked.next().await, Ok(Some(step(&format!("step-{sequence}")))));
    }
    assert_eq!(asked.next().await, Ok(None));
    let late = bench.errands.report(&holder, report(&holder, &errand, 4)).await;
    assert_eq!(late.unwrap_err().reason, Reason::NotFound);
}

#[tokio::test]
async fn a_mailbox_that_nobody_holds_is_looked_at_by_whoever_lives() {
    let bench = Bench::new().await;
    assert_eq!(bench.ask(ENOUGH).await.unwrap_err().reason, Reason::NoWorker);
    let (gone, alive) = (bench.begin("gone").await, bench.begin("alive").await);
    for session in [&gone, &alive] {
        bench.errands.take(session, Duration::ZERO).await.unwrap();
    }
    bench.end(&gone).await;
    bench.assign(&gone).await;
    let asked = bench.ask(ENOUGH).await.unwrap();
    assert_eq!((asked.doer().worker.as_str(), asked.doer().holds), ("alive", false));
    let refused = bench.errands.take(&gone, Duration::ZERO).await.unwrap_err();
    assert_eq!(refused.reason, Reason::SessionEnded);
}

#[tokio::test]
async fn what_could_not_be_done_is_told_with_cause_and_remedy() {
    let bench = Bench::new().await;
    let worker = bench.begin("w").await;
    bench.assign(&worker).await;
    let mut asked = bench.ask(ENOUGH).await.unwrap();
    let errand = bench.taken(&worker).await;
    let problem = v1::Problem {
        code: "UNREACHABLE".into(),
        cause: "no route".into(),
        remedy: "mend it".into(),
        ..Default::default()
    };
    let last = v1::ReportErrandRequest { ended: true, problem: Some(problem.clone()), ..report(&worker, &errand, 1) };
    bench.errands.report(&worker, last).await.unwrap();
    let unfinished = asked.next().await.unwrap_err();
    assert_eq!(unfinished, Unfinished::Problem(problem));
    let failure = Failure::from(unfinished);
    assert_eq!((failure.reason, failure.message.as_str()), (Reason::ErrandFailed, "no route; mend it"));
}

#[tokio::test]
async fn an_errand_ends_with_its_asker_its_time_its_worker_and_the_control_plane() {
    let bench = Bench::new().await;
    let worker = bench.begin("w").await;
    bench.assign(&worker).await;

    let asked = bench.ask(ENOUGH).await.unwrap();
    let errand = bench.taken(&worker).await;
    drop(asked);
    let late = bench.errands.report(&worker, report(&worker, &errand, 1)).await;
    assert_eq!(late.unwrap_err().reason, Reason::NotFound, "the asker has gone");

    let mut asked = bench.ask(Duration::from_millis(1)).await.unwrap();
    let late = timeout(PATIENCE, asked.next()).await.unwrap().unwrap_err();
    assert_eq!(Failure::from(late).reason, Reason::ErrandFailed, "no time is left");

    let mut asked = bench.ask(ENOUGH).await.unwrap();
    bench.end(&worker).await;
    let gone = timeout(PATIENCE, asked.next()).await.unwrap().unwrap_err();
    assert_eq!(Failure::from(gone).reason, Reason::NoWorker, "the worker has gone");

    let worker = bench.begin("w").await;
    bench.assign(&worker).await;
    let mut asked = bench.ask(ENOUGH).await.unwrap();
    bench.taken(&worker).await;
    bench.stopping.cancel();
    let stopped = timeout(PATIENCE, asked.next()).await.unwrap().unwrap_err();
    assert_eq!(Failure::from(stopped).reason, Reason::ShuttingDown);
    let stopped = timeout(PATIENCE, bench.errands.take(&worker, PATIENCE)).await.unwrap();
    assert_eq!(stopped.unwrap_err().reason, Reason::ShuttingDown);
}

#[tokio::test]
async fn a_worker_that_finds_faster_than_its_asker_reads_waits_and_loses_nothing() {
    let bench = Bench::new().await;
    let worker = bench.begin("w").await;
    bench.assign(&worker).await;
    let mut asked = bench.ask(ENOUGH).await.unwrap();
    let errand = bench.taken(&worker).await;
    let count = u32::try_from(FINDINGS).unwrap() * 3;
    let finding = async {
        for sequence in 1..=count {
            let found = Some(step(&sequence.to_string()));
            let request =
                v1::ReportErrandRequest { found, ended: sequence == count, ..report(&worker, &errand, sequence) };
            bench.errands.report(&worker, request).await.unwrap();
        }
    };
    let reading = async {
        let mut read = 0;
        while let Some(found) = asked.next().await.unwrap() {
            read += 1;
            assert_eq!(found, step(&read.to_string()));
            tokio::task::yield_now().await;
        }
        read
    };
    let ((), read) = timeout(PATIENCE, async { tokio::join!(finding, reading) }).await.unwrap();
    assert_eq!(read, count);
}
