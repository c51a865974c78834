//! The one writer of a database. It takes what has queued up while the last commit was being made durable, and commits
//! that as one transaction: nobody waits for a timer, and the cost of an fsync is shared by all who wait for it.
//!
//! Invariant: jobs do not see each other's failures. Each runs in a savepoint of its own; one that fails is undone alone.
//! Ordering: COMMIT, then watchers are told, then the answers leave. Whoever has an answer or was told finds what it is
//! about.

use std::future::Future;
use std::pin::Pin;

use postroom_proto::metric;
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Most jobs that wait; whoever comes then waits before the queue.
const QUEUE: usize = 1024;

/// Why a write did not happen, or may not have.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// Nothing was written.
    #[error("the database refused the write: {0}")]
    Refused(String),
    /// The commit failed, or the writer died over it; it may have happened or not.
    #[error("the database did not confirm the write: {0}")]
    Unknown(String),
    /// The writer has stopped and never began with it. Nothing was written.
    #[error("the database is closed")]
    Closed,
}

/// What a job does with the connection. An error undoes all that the job did; it must not begin or end a transaction.
pub type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send + 'c>>;

/// Work that stands in no transaction.
struct Upkeep {
    work: Operation<()>,
    answer: oneshot::Sender<Result<(), WriteError>>,
}

type Operation<T> = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send>;

/// The writer and the task that does its work, which ends when this is closed or dropped.
#[derive(Debug)]
pub struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
    upkeep: mpsc::Sender<Upkeep>,
    commits: watch::Receiver<()>,
    task: TaskTracker,
    stop: DropGuard,
}

impl Writer {
    /// Starts a writer over `connection` that takes at most `group` jobs into one transaction. `name`: of the database, in
    /// metrics.
    pub fn start(connection: SqliteConnection, group: usize, name: &'static str) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (upkeep, chores) = mpsc::channel(1);
        let (told, commits) = watch::channel(());
        let stop = CancellationToken::new();
        let task = TaskTracker::new();
        // The task's owner is this struct: `stop` ends it, `task` waits for it.
        task.spawn(run(connection, Queues { queue, chores }, group, name, told, stop.clone()));
        task.close();
        Self { jobs, upkeep, commits, task, stop: stop.drop_guard() }
    }

    /// Runs `operation` in a transaction that others may share, and returns once it is durable.
    pub async fn write<T, F>(&self, operation: F) -> Result<T, WriteError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    {
        self.send(Box::new(operation), false).await
    }

    /// As [`Writer::write`], but nothing is done when the caller has gone before the work begins: for work whose result
    /// is worth nothing to anybody else.
    pub async fn write_while_wanted<T, F>(&self, operation: F) -> Result<T, WriteError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    {
        self.send(Box::new(operation), true).await
    }

    /// Runs `work` between two transactions, in none: for what SQLite does only there. Everybody who writes waits meanwhile.
    pub async fn maintain<F>(&self, work: F) -> Result<(), WriteError>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, ()> + Send + 'static,
    {
        let (answer, receiver) = oneshot::channel();
        self.upkeep.send(Upkeep { work: Box::new(work), answer }).await.map_err(|_| WriteError::Closed)?;
        receiver.await.unwrap_or(Err(WriteError::Closed))
    }

    async fn send<T: Send + 'static>(&self, operation: Operation<T>, while_wanted: bool) -> Result<T, WriteError> {
        let (answer, receiver) = oneshot::channel();
        let job = Typed { operation: Some(operation), outcome: None, answer: Some(answer), while_wanted };
        self.jobs.send(Box::new(job)).await.map_err(|_| WriteError::Closed)?;
        // Invariant: a job is dropped unanswered only when the writer died after the job had begun.
        receiver.await.unwrap_or_else(|_| Err(WriteError::Unknown("the writer has died".into())))
    }

    /// Changes after every commit, whether or not somebody still waits for its answer. Closed when the writer has ended.
    pub fn commits(&self) -> watch::Receiver<()> {
        self.commits.clone()
    }

    /// Finishes what is queued, then closes the connection. Later writes fail.
    pub async fn close(&self) {
        self.stop.token().cancel();
        self.ended().await;
    }

    /// Returns when the writer has ended: it was closed, or it died.
    pub async fn ended(&self) {
        self.task.wait().await;
    }
}

/// A job whose type is forgotten, so that jobs of all kinds stand in one queue.
trait Job: Send {
    /// Does the work; false when it has to be undone.
    fn run<'s>(&'s mut self, connection: &'s mut SqliteConnection) -> Pin<Box<dyn Future<Output = bool> + Send + 's>>;
    /// Answers, now that the fate of the transaction is known.
    fn finish(self: Box<Self>, committed: &Result<(), WriteError>);
}

impl std::fmt::Debug for dyn Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

struct Typed<T> {
    /// Gone once the work has begun.
    operation: Option<Operation<T>>,
    outcome: Option<Result<T, WriteError>>,
    /// Gone once it was answered.
    answer: Option<oneshot::Sender<Result<T, WriteError>>>,
    /// Not to be begun once the caller has gone.
    while_wanted: bool,
}

impl<T> Typed<T> {
    fn reply(&mut self, answer: Result<T, WriteError>) {
        if let Some(caller) = self.answer.take() {
            // Whoever asked may have gone; the write stands all the same.
            let _ = caller.send(answer);
        }
    }
}

impl<T: Send> Job for Typed<T> {
    fn run<'s>(&'s mut self, connection: &'s mut SqliteConnection) -> Pin<Box<dyn Future<Output = bool> + Send + 's>> {
        Box::pin(async move {
            let gone = self.answer.as_ref().is_none_or(oneshot::Sender::is_closed);
            if self.while_wanted && gone {
                return true;
            }
            let Some(operation) = self.operation.take() else { return false };
            let outcome = operation(connection).await.map_err(|error| WriteError::Refused(error.to_string()));
            let keep = outcome.is_ok();
            self.outcome = Some(outcome);
            keep
        })
    }

    fn finish(mut self: Box<Self>, committed: &Result<(), WriteError>) {
        let answer = match (committed, self.outcome.take()) {
            (_, Some(Err(refused))) => Err(refused),
            (Ok(()), Some(Ok(value))) => Ok(value),
            (Err(error), _) => Err(error.clone()),
            (Ok(()), None) => Err(WriteError::Closed),
        };
        self.reply(answer);
    }
}

impl<T> Drop for Typed<T> {
    /// Ordering: a job that the writer dies over is told apart from one that it never began, which nothing can have
    /// written.
    fn drop(&mut self) {
        if self.operation.is_some() {
            self.reply(Err(WriteError::Closed));
        }
    }
}

/// What waits for the writer.
struct Queues {
    queue: mpsc::Receiver<Box<dyn Job>>,
    chores: mpsc::Receiver<Upkeep>,
}

/// Works until `stop` is raised; then finishes what is queued and closes the connection.
async fn run(
    mut connection: SqliteConnection,
    Queues { mut queue, mut chores }: Queues,
    size: usize,
    name: &'static str,
    told: watch::Sender<()>,
    stop: CancellationToken,
) {
    let mut group = Vec::with_capacity(size);
    loop {
        let taken = tokio::select! {
            biased;
            () = stop.cancelled(), if !queue.is_closed() => {
                queue.close();
                chores.close();
                continue;
            }
            Some(Upkeep { work, answer }) = chores.recv() => {
                let done = work(&mut connection).await.map_err(|error| WriteError::Refused(error.to_string()));
                // Whoever asked may have gone; what was done stands all the same.
                let _ = answer.send(done);
                continue;
            }
            taken = queue.recv_many(&mut group, size) => taken,
        };
        if taken == 0 {
            break;
        }
        let begun = Instant::now();
        let committed = transaction(&mut connection, &mut group).await;
        metric::COMMIT_TIME.observe(&[name], begun.elapsed());
        if let Err(error) = &committed {
            metric::COMMITS_FAILED.count(&[name]);
            tracing::error!(%error, count = group.len(), "a transaction failed");
        }
        if !matches!(committed, Err(WriteError::Refused(_))) {
            told.send_replace(());
        }
        for job in group.drain(..) {
            job.finish(&committed);
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "closing a database failed; its write-ahead log is replayed at the next start");
    }
}

async fn transaction(connection: &mut SqliteConnection, group: &mut [Box<dyn Job>]) -> Result<(), WriteError> {
    let outcome = match work(connection, group).await {
        Ok(()) => match sqlx::query("COMMIT").execute(&mut *connection).await {
            Ok(_) => Ok(()),
            Err(error) => Err(WriteError::Unknown(error.to_string())),
        },
        Err(error) => Err(WriteError::Refused(error.to_string())),
    };
    if outcome.is_err() {
        // A full disk or an I/O error has rolled everything back by itself, and then this fails. After anything else it
        // must not stay open, or no later transaction could begin.
        let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
    }
    outcome
}

async fn work(connection: &mut SqliteConnection, group: &mut [Box<dyn Job>]) -> Result<(), sqlx::Error> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    for job in group {
        sqlx::query("SAVEPOINT job").execute(&mut *connection).await?;
        let end = if job.run(&mut *connection).await { "RELEASE job" } else { "ROLLBACK TO job" };
        sqlx::query(end).execute(&mut *connection).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::super::{Location, Step, open};
    use super::*;

    /// Reached only when something hangs.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn writer() -> (Writer, sqlx::SqlitePool) {
        let step = Step { version: 1, title: "thing", sql: "CREATE TABLE thing (name TEXT PRIMARY KEY)" };
        let connections = open(&Location::Memory, &[step]).await.unwrap();
        (Writer::start(connections.writer, 64, "test"), connections.readers)
    }

    fn insert(name: &'static str) -> impl for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, ()> + Send + 'static {
        move |connection| {
            Box::pin(async move {
                sqlx::query("INSERT INTO thing VALUES (?)").bind(name).execute(connection).await?;
                Ok(())
            })
        }
    }

    async fn names(readers: &sqlx::SqlitePool) -> Vec<String> {
        sqlx::query_scalar("SELECT name FROM thing ORDER BY name").fetch_all(readers).await.unwrap()
    }

    #[tokio::test]
    async fn one_job_that_fails_does_not_undo_the_others_of_its_group() {
        let (writer, readers) = writer().await;
        let (a, again, b) = tokio::join!(
            writer.write(insert("a")),
            writer.write(|connection| Box::pin(async move {
                sqlx::query("INSERT INTO thing VALUES ('half')").execute(&mut *connection).await?;
                sqlx::query("INSERT INTO thing VALUES ('half')").execute(connection).await?;
                Ok(())
            })),
            writer.write(insert("b")),
        );
        assert!(a.is_ok() && b.is_ok());
        assert!(matches!(again, Err(WriteError::Refused(_))), "{again:?}");
        assert_eq!(names(&readers).await, ["a", "b"]);
    }

    #[tokio::test]
    async fn a_commit_is_told_before_its_answer_and_without_anybody_who_waits_for_one() {
        let (writer, readers) = writer().await;
        let mut commits = writer.commits();
        writer.write(insert("a")).await.unwrap();
        assert!(commits.has_changed().unwrap());
        commits.mark_unchanged();
        assert!(writer.write(insert("b")).now_or_never().is_none(), "asked, and gone");
        tokio::time::timeout(PATIENCE, commits.changed()).await.unwrap().unwrap();
        assert_eq!(names(&readers).await, ["a", "b"]);
    }

    #[tokio::test]
    async fn closing_and_dropping_finish_what_is_queued() {
        for close in [true, false] {
            let (writer, readers) = writer().await;
            assert!(writer.write(insert("last")).now_or_never().is_none());
            let mut commits = writer.commits();
            if close {
                tokio::time::timeout(PATIENCE, writer.close()).await.unwrap();
                assert!(matches!(writer.write(insert("late")).await, Err(WriteError::Closed)));
            } else {
                drop(writer);
            }
            let ended = async { while commits.changed().await.is_ok() {} };
            tokio::time::timeout(PATIENCE, ended).await.unwrap();
            assert_eq!(names(&readers).await, ["last"], "closed: {close}");
        }
    }

    #[tokio::test]
    async fn what_a_writer_began_before_it_died_is_unknown_and_the_rest_was_never_written() {
        let (writer, readers) = writer().await;
        let (before, fatal, behind) = tokio::join!(
            writer.write(insert("before")),
            writer.write(|_| -> Work<'_, ()> { Box::pin(async { panic!("a job that kills its writer") }) }),
            writer.write(insert("behind")),
        );
        assert!(matches!(before, Err(WriteError::Unknown(_))), "{before:?}");
        assert!(matches!(fatal, Err(WriteError::Unknown(_))), "{fatal:?}");
        assert!(matches!(behind, Err(WriteError::Closed)), "{behind:?}");
        tokio::time::timeout(PATIENCE, writer.ended()).await.unwrap();
        assert!(matches!(writer.write(insert("late")).await, Err(WriteError::Closed)));
        assert!(names(&readers).await.is_empty());
    }

    fn vacuum(connection: &mut SqliteConnection) -> Work<'_, ()> {
        Box::pin(async move { sqlx::query("VACUUM").execute(connection).await.map(|_| ()) })
    }

    #[tokio::test]
    async fn upkeep_stands_in_no_transaction_and_undoes_none() {
        let folder = tempfile::tempdir().unwrap();
        let step = Step { version: 1, title: "thing", sql: "CREATE TABLE thing (name TEXT PRIMARY KEY)" };
        let connections = open(&Location::File(folder.path().join("x.db")), &[step]).await.unwrap();
        let (writer, readers) = (Writer::start(connections.writer, 64, "test"), connections.readers);
        assert!(writer.write(vacuum).await.is_err(), "SQLite refuses it in a transaction");
        let (a, upkeep, b) =
            tokio::join!(writer.write(insert("a")), writer.maintain(vacuum), writer.write(insert("b")));
        assert!(a.is_ok() && upkeep.is_ok() && b.is_ok(), "{upkeep:?}");
        let wrong = writer.maintain(|c| Box::pin(async move { sqlx::query("NONSENSE").execute(c).await.map(|_| ()) }));
        assert!(matches!(wrong.await, Err(WriteError::Refused(_))));
        assert_eq!(names(&readers).await, ["a", "b"]);
        writer.close().await;
        assert!(matches!(writer.maintain(vacuum).await, Err(WriteError::Closed)));
    }

    #[tokio::test]
    async fn work_that_nobody_wants_any_more_is_not_begun() {
        let (writer, readers) = writer().await;
        let unwanted = writer.write_while_wanted(insert("unwanted"));
        // Polled once: it stands in the queue. Then its caller goes.
        assert!(Box::pin(unwanted).as_mut().now_or_never().is_none());
        writer.write_while_wanted(insert("wanted")).await.unwrap();
        assert_eq!(names(&readers).await, ["wanted"]);
    }
}
