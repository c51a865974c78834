//! What ends a wait, and what is told when a mailbox cannot be opened.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use tokio::time::Instant;

use super::*;
use crate::mailbox::lease::{self, Switch};
use crate::report::Error;

/// Opens nothing.
struct Refusing(Error);

#[async_trait]
impl Reporter for Refusing {
    async fn open(&self, _: v1::MailboxLease) -> Result<v1::OpenedMailbox, Error> {
        Err(self.0.clone())
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

fn session(answer: Error) -> (Session, Switch, watch::Sender<u64>, Arc<Board>) {
    let trust = lease::Trust::new();
    trust.extend(Instant::now() + Duration::from_secs(600));
    let (switch, lease) = Switch::new(&trust);
    let (revision, newest) = watch::channel(1);
    let board = Arc::new(Board::new());
    let shared = Shared::new(Reading::default(), Arc::new(Refusing(answer)), board.clone());
    let mailbox = MailboxUid::derive("a", "INBOX", "x.example");
    (Session::new(shared, mailbox, Epoch(7), lease, newest), switch, revision, board)
}

#[tokio::test]
async fn a_definition_that_came_during_a_failing_try_ends_the_wait_after_it() {
    let (session, _switch, revision, _) = session(Error::LeaseLost);
    let long = Duration::from_secs(600);
    assert!(session.pause(long, 1).now_or_never().is_none());
    revision.send_replace(2);
    assert!(session.pause(long, 1).now_or_never().is_some());
    assert!(session.pause(long, 2).now_or_never().is_none(), "it was that one which failed");
}

#[tokio::test]
async fn why_a_mailbox_cannot_be_opened_is_told_at_once() {
    let unreadable = Error::SecretUnreadable { detail: "the secret of server X cannot be read".into() };
    for (answer, code) in [(unreadable, "SECRET_UNREADABLE"), (Error::NotFound { detail: "gone".into() }, "NOT_FOUND")]
    {
        let (mut session, _switch, _revision, board) = session(answer.clone());
        assert!(session.run().now_or_never().is_none(), "it waits after the first try");
        let told = board.take();
        let problem = told[0].problem.clone().expect("a problem");
        assert_eq!((problem.code.as_str(), told[0].generation), (code, 0));
        assert!(answer.to_string().contains(&problem.cause) && !problem.remedy.is_empty(), "{problem:?}");
    }
    let (mut session, _switch, _revision, board) = session(Error::Unavailable { after: None, detail: "no".into() });
    assert!(session.run().now_or_never().is_none());
    assert!(board.take().is_empty(), "it may pass within the second");
}
