//! The one writer of a database. It takes what has queued up while the last commit was being made durable, and commits
//! that as one transaction: nobody waits for a timer, and the cost of an fsync is shared by all who wait for it.
//!
//! Invariant: jobs do not see each other's failures. Each runs in a savepoint of its own; one that fails is undone alone.
//! Invariant: an answer leaves only after the commit that makes it true.

use std::future::Future;
use std::pin::Pin;

use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot};

/// Most jobs in one transaction.
const GROUP: usize = 256;
/// Most jobs that wait; whoever comes then waits before the queue.
const QUEUE: usize = 1024;

/// Why a write did not happen, or may not have.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// Nothing was written.
    #[error("the database refused the write: {0}")]
    Refused(String),
    /// The commit failed; it may have happened or not.
    #[error("the database did not confirm the write: {0}")]
    Unknown(String),
    /// The writer has stopped. Nothing was written.
    #[error("the database is closed")]
    Closed,
}

/// What a job does with the connection. An error undoes all that the job did.
pub type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send + 'c>>;

type Operation<T> = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send>;

/// A handle to the writer. Cheap to clone; the writer ends when all are gone.
#[derive(Debug, Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
}

impl Writer {
    /// A writer over `connection`, and the future that does its work until every handle is gone.
    pub fn new(connection: SqliteConnection) -> (Self, impl Future<Output = ()> + Send) {
        let (jobs, queue) = mpsc::channel(QUEUE);
        (Self { jobs }, run(connection, queue))
    }

    /// Runs `operation` in a transaction that others may share, and returns once it is durable.
    pub async fn write<T, F>(&self, operation: F) -> Result<T, WriteError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    {
        let (answer, receiver) = oneshot::channel();
        let job = Typed { operation: Some(Box::new(operation) as Operation<T>), outcome: None, answer };
        self.jobs.send(Box::new(job)).await.map_err(|_| WriteError::Closed)?;
        // The writer drops a job unanswered only when its process dies.
        receiver.await.map_err(|_| WriteError::Closed)?
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
    operation: Option<Operation<T>>,
    outcome: Option<Result<T, WriteError>>,
    answer: oneshot::Sender<Result<T, WriteError>>,
}

impl<T: Send> Job for Typed<T> {
    fn run<'s>(&'s mut self, connection: &'s mut SqliteConnection) -> Pin<Box<dyn Future<Output = bool> + Send + 's>> {
        Box::pin(async move {
            let Some(operation) = self.operation.take() else { return false };
            let outcome = operation(connection).await.map_err(|error| WriteError::Refused(error.to_string()));
            let keep = outcome.is_ok();
            self.outcome = Some(outcome);
            keep
        })
    }

    fn finish(self: Box<Self>, committed: &Result<(), WriteError>) {
        let answer = match (committed, self.outcome) {
            (_, Some(Err(refused))) => Err(refused),
            (Ok(()), Some(Ok(value))) => Ok(value),
            (Err(error), _) => Err(error.clone()),
            (Ok(()), None) => Err(WriteError::Closed),
        };
        // Whoever asked may have gone; the write stands all the same.
        let _ = self.answer.send(answer);
    }
}

async fn run(mut connection: SqliteConnection, mut queue: mpsc::Receiver<Box<dyn Job>>) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.recv_many(&mut group, GROUP).await > 0 {
        let committed = transaction(&mut connection, &mut group).await;
        if let Err(error) = &committed {
            tracing::error!(%error, jobs = group.len(), "a transaction failed");
        }
        for job in group.drain(..) {
            job.finish(&committed);
        }
    }
    super::close(connection).await;
}

async fn transaction(connection: &mut SqliteConnection, group: &mut [Box<dyn Job>]) -> Result<(), WriteError> {
    let refused = |error: sqlx::Error| WriteError::Refused(error.to_string());
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await.map_err(refused)?;
    for job in group {
        sqlx::query("SAVEPOINT job").execute(&mut *connection).await.map_err(refused)?;
        let end = if job.run(&mut *connection).await { "RELEASE job" } else { "ROLLBACK TO job" };
        if let Err(error) = sqlx::query(end).execute(&mut *connection).await {
            // A full disk or an I/O error rolls the whole transaction back by itself; then nothing of it may stand.
            let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
            return Err(WriteError::Refused(error.to_string()));
        }
    }
    match sqlx::query("COMMIT").execute(&mut *connection).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
            Err(WriteError::Unknown(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Location, Step, open};
    use super::*;

    async fn writer() -> (Writer, sqlx::SqlitePool, tokio::task::JoinHandle<()>) {
        let step = Step { version: 1, title: "thing", sql: "CREATE TABLE thing (name TEXT PRIMARY KEY)" };
        let database = open(&Location::Memory, &[step]).await.unwrap();
        let (writer, run) = Writer::new(database.writer);
        (writer, database.readers, tokio::spawn(run))
    }

    fn insert(name: &'static str) -> impl for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, ()> + Send + 'static {
        move |connection| {
            Box::pin(async move {
                sqlx::query("INSERT INTO thing VALUES (?)").bind(name).execute(connection).await?;
                Ok(())
            })
        }
    }

    #[tokio::test]
    async fn one_job_that_fails_does_not_undo_the_others_of_its_group() {
        let (writer, readers, _run) = writer().await;
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
        let names: Vec<String> =
            sqlx::query_scalar("SELECT name FROM thing ORDER BY name").fetch_all(&readers).await.unwrap();
        assert_eq!(names, ["a", "b"]);
    }

    #[tokio::test]
    async fn the_writer_ends_when_every_handle_is_gone() {
        let (writer, _readers, run) = writer().await;
        writer.write(insert("last")).await.unwrap();
        drop(writer);
        tokio::time::timeout(std::time::Duration::from_secs(5), run).await.unwrap().unwrap();
    }
}
