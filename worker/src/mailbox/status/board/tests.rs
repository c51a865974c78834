//! That a status is told after all older ones of its mailbox, and never before.

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use tokio::sync::Semaphore;

use super::*;

/// Hears statuses, each call for as long as nobody lets it pass.
struct Desk {
    heard: Mutex<Vec<v1::MailboxStatus>>,
    calls: Mutex<usize>,
    deaf: Mutex<bool>,
    passes: Semaphore,
}

impl Desk {
    fn new() -> Self {
        Self { heard: Mutex::default(), calls: Mutex::default(), deaf: Mutex::default(), passes: Semaphore::new(0) }
    }

    /// Epochs of what was heard of a mailbox, in the order in which it was.
    fn of(&self, mailbox: &str) -> Vec<u64> {
        let heard = self.heard.lock().expect("heard");
        heard.iter().filter(|status| status.mailbox == mailbox).map(|status| status.epoch).collect()
    }

    fn calls(&self) -> usize {
        *self.calls.lock().expect("calls")
    }
}

#[async_trait]
impl Reporter for Desk {
    async fn open(&self, _: v1::MailboxLease) -> Result<v1::OpenedMailbox, Error> {
        unreachable!("nothing is opened")
    }

    async fn report(&self, _: &v1::ReportRequest) -> Result<v1::ReportResponse, Error> {
        unreachable!("nothing is reported")
    }

    async fn upload(&self, _: v1::BlobHeader, _: Bytes) -> Result<(), Error> {
        unreachable!("nothing is uploaded")
    }

    async fn find_known(&self, _: &v1::FindKnownRequest) -> Result<v1::FindKnownResponse, Error> {
        unreachable!("nothing is sought")
    }

    async fn status(&self, statuses: Vec<v1::MailboxStatus>) -> Result<(), Error> {
        *self.calls.lock().expect("calls") += 1;
        self.passes.acquire().await.expect("open").forget();
        if *self.deaf.lock().expect("deaf") {
            return Err(Error::Unavailable { after: None, detail: "deaf".into() });
        }
        self.heard.lock().expect("heard").extend(statuses);
        Ok(())
    }
}

/// The epoch stands for the age of a status.
fn status(mailbox: &str, age: u64) -> v1::MailboxStatus {
    v1::MailboxStatus { mailbox: mailbox.into(), epoch: age, ..Default::default() }
}

#[tokio::test]
async fn what_may_not_wait_overtakes_nothing_older_and_nothing_older_comes_after_it() {
    let (board, desk) = (Board::new(), Desk::new());
    let stop = CancellationToken::new();
    board.publish(status("a", 1));
    let mut forward = Box::pin(board.forward(&desk, stop));
    assert!((&mut forward).now_or_never().is_none() && desk.calls() == 1, "the first is on its way");
    board.publish(status("a", 2));
    let mut told = Box::pin(board.tell(&desk, "a"));
    assert!((&mut told).now_or_never().is_none());
    assert_eq!(desk.calls(), 1, "it waits for the one before");
    desk.passes.add_permits(2);
    assert!((&mut forward).now_or_never().is_none());
    assert!(told.await.is_ok());
    assert_eq!(desk.of("a"), [1, 2]);
    assert!(board.take().is_empty(), "and the older one is not told again");
}

#[tokio::test]
async fn what_was_put_up_while_another_was_told_stays_up() {
    let (board, desk) = (Board::new(), Desk::new());
    board.publish(status("a", 1));
    board.publish(status("b", 1));
    let mut told = Box::pin(board.tell(&desk, "a"));
    assert!((&mut told).now_or_never().is_none());
    board.publish(status("a", 2));
    desk.passes.add_permits(1);
    assert!(told.await.is_ok());
    assert_eq!((desk.of("a"), desk.of("b")), (vec![1], vec![1]), "others go along");
    assert_eq!(board.take(), [status("a", 2)]);
}

#[tokio::test]
async fn what_was_not_heard_stays_up() {
    let (board, desk) = (Board::new(), Desk::new());
    board.publish(status("a", 1));
    *desk.deaf.lock().expect("deaf") = true;
    desk.passes.add_permits(1);
    assert!(board.tell(&desk, "a").await.is_err());
    assert!(board.tell(&desk, "a").now_or_never().is_none(), "whoever is dropped on the way loses none");
    *desk.deaf.lock().expect("deaf") = false;
    desk.passes.add_permits(1);
    assert!(board.tell(&desk, "a").await.is_ok());
    assert_eq!(desk.of("a"), [1]);
    assert!(board.tell(&desk, "a").await.is_ok(), "told already");
    assert_eq!(desk.calls(), 3);
}

#[tokio::test]
async fn many_do_not_wait_for_a_silent_control_plane_one_after_the_other() {
    let (board, desk) = (Board::new(), Desk::new());
    *desk.deaf.lock().expect("deaf") = true;
    board.publish(status("first", 1));
    let mut first = Box::pin(board.tell(&desk, "first"));
    assert!((&mut first).now_or_never().is_none());
    let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    names.iter().for_each(|name| board.publish(status(name, 1)));
    let mut waiting: Vec<_> = names.iter().map(|name| Box::pin(board.tell(&desk, name))).collect();
    assert!(waiting.iter_mut().all(|told| told.now_or_never().is_none()));
    desk.passes.add_permits(2);
    assert!(first.await.is_err());
    for told in futures::future::join_all(waiting).await {
        assert!(told.is_err());
    }
    assert_eq!(desk.calls(), 2, "one more, which all of them waited for");
}

#[tokio::test]
async fn what_is_left_is_told_at_the_end() {
    let (board, desk) = (Board::new(), Desk::new());
    let stop = CancellationToken::new();
    desk.passes.add_permits(2);
    board.publish(status("a", 1));
    let mut forward = Box::pin(board.forward(&desk, stop.clone()));
    assert!((&mut forward).now_or_never().is_none());
    board.publish(status("a", 2));
    stop.cancel();
    forward.await;
    assert_eq!(desk.of("a"), [1, 2]);
}
