//! The sender: mail that keeps coming while everything else breaks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postroom_testbed::lmtp::Client;
use postroom_testbed::mail::Mail;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Messages that are handed over at once.
const AT_ONCE: usize = 5;
/// How often: 100 messages a second.
const USUALLY: Duration = Duration::from_millis(50);
/// The same for what is timed: 10 messages a second.
const SLOWLY: Duration = Duration::from_millis(500);

/// Delivers by LMTP, to one mailbox after the other, until it is told to finish.
pub(crate) struct Post {
    /// Mailbox of each Message-ID that Dovecot has taken.
    delivered: Arc<Mutex<BTreeMap<String, String>>>,
    pause: watch::Sender<Duration>,
    finish: CancellationToken,
    task: JoinHandle<()>,
}

impl Post {
    /// Begins. It delivers at least `least` messages, however soon it is told to finish.
    pub(crate) fn start(lmtp: SocketAddr, mailboxes: Vec<String>, least: usize) -> Self {
        let delivered: Arc<Mutex<BTreeMap<_, _>>> = Arc::default();
        let (pause, paused) = watch::channel(USUALLY);
        let finish = CancellationToken::new();
        let (written, told) = (delivered.clone(), finish.clone());
        let task = tokio::spawn(async move {
            let mut client = Client::connect(lmtp).await.unwrap();
            let mut number = 0;
            while number < least || !told.is_cancelled() {
                let pause = *paused.borrow();
                sleep(pause).await;
                let mails: BTreeMap<String, String> = (number..number + AT_ONCE)
                    .map(|number| (format!("{number}@customer.example"), mailboxes[number % mailboxes.len()].clone()))
                    .collect();
                number += AT_ONCE;
                let deliveries: Vec<_> =
                    mails.iter().map(|(id, to)| Mail::to(to).subject(id).message_id(id).delivery()).collect();
                client.deliver(deliveries).await.unwrap();
                written.lock().unwrap().extend(mails);
            }
        });
        Self { delivered, pause, finish, task }
    }

    /// Sends less for a while, or as usual again.
    pub(crate) fn set_slow(&self, slow: bool) {
        self.pause.send_replace(if slow { SLOWLY } else { USUALLY });
    }

    /// How many messages Dovecot has taken so far.
    pub(crate) fn count(&self) -> usize {
        self.delivered.lock().unwrap().len()
    }

    /// Delivers what is left of the least, and ends. Mailbox of each Message-ID.
    pub(crate) async fn finish(self) -> BTreeMap<String, String> {
        self.finish.cancel();
        self.task.await.unwrap();
        std::mem::take(&mut self.delivered.lock().unwrap())
    }
}
