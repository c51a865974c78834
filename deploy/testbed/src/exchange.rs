//! A front before Postfix that answers as Exchange Online does at client submission, where Postfix differs or cannot: more
//! than three connections of a mailbox, a sign-in that is switched off, a sender that may not be used, and whatever a test
//! orders. It can hang up, or hold up, at every step of a conversation, and it counts.
//!
//! Everything that is not ordered is Postfix's to say. A mail is read whole before Postfix sees its first byte: what
//! breaks off before [`Step::Accepted`] has not been delivered, what breaks off there has.

pub mod answers;
mod session;
mod tally;
mod upstream;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::tally::Accepted;
use self::tally::Tally;
use crate::{
    authority::Authority,
    error::{Error, Result},
    script::{Script, Stall},
};

/// Connections of a mailbox that Exchange Online allows at once.
pub const CONNECTIONS: usize = 3;

/// Where in a conversation something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
pub enum Step {
    /// In place of the greeting. Whose connection it is is not known yet, nor before the sign-in.
    Greeting,
    /// EHLO.
    Hello,
    /// STARTTLS.
    StartTls,
    /// AUTH, when the credentials have come.
    SignIn,
    /// MAIL.
    Sender,
    /// RCPT.
    Recipient,
    /// DATA, before the client is told to go on.
    Data,
    /// In the midst of a mail.
    Body,
    /// After the dot that ends a mail: nothing has been delivered.
    End,
    /// After the mail was delivered: the client has not been told.
    Accepted,
}

/// A running front. Dropping it cuts its connections.
#[derive(Debug)]
pub struct Exchange {
    shared: Arc<Shared>,
    submission: SocketAddr,
    submissions: SocketAddr,
    stop: CancellationToken,
}

/// What the front's tasks and its handle share.
#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    connector: Arc<rustls::ClientConfig>,
    acceptor: Arc<rustls::ServerConfig>,
    script: Script<Step, String>,
    rules: Mutex<Rules>,
    tally: Tally,
}

#[derive(Clone, Debug)]
struct Rules {
    /// Connections of a mailbox at once.
    connections: usize,
    /// What a sign-in with a password is answered.
    password: Option<String>,
}

impl Exchange {
    /// Starts a front of the server that takes submissions over TLS at `upstream`, with a certificate of the same
    /// authority.
    pub async fn start(upstream: SocketAddr, authority: &Authority) -> Result<Self> {
        let shared = Arc::new(Shared {
            upstream,
            connector: authority.client_config()?,
            acceptor: authority.server_config(&[])?,
            script: Script::new(),
            rules: Mutex::new(Rules { connections: CONNECTIONS, password: None }),
            tally: Tally::default(),
        });
        let stop = CancellationToken::new();
        let submission = listen(&shared, &stop, false).await?;
        let submissions = listen(&shared, &stop, true).await?;
        Ok(Self { shared, submission, submissions, stop })
    }

    /// Where mail is submitted after STARTTLS, as at Exchange.
    pub fn submission_addr(&self) -> SocketAddr {
        self.submission
    }

    /// Where mail is submitted over TLS from the first byte.
    pub fn submissions_addr(&self) -> SocketAddr {
        self.submissions
    }

    /// Answers the next `times` (0: all from now on) that come to `step` with `answer`, for `mailbox` (empty: for any). A
    /// reply of 421 also hangs up.
    pub fn answer(&self, step: Step, mailbox: &str, times: usize, answer: &str) {
        self.shared.script.answer(step, mailbox, times, answer.to_owned());
    }

    /// Hangs up on the next `times` (0: all from now on) that come to `step`.
    pub fn cut(&self, step: Step, mailbox: &str, times: usize) {
        self.shared.script.cut(step, mailbox, times);
    }

    /// Lets the next `times` (0: all from now on) that come to `step` wait.
    pub fn stall(&self, step: Step, mailbox: &str, times: usize) -> Stall {
        self.shared.script.stall(step, mailbox, times)
    }

    /// Takes back all answers and cuts that were ordered.
    pub fn mend(&self) {
        self.shared.script.mend();
    }

    /// How many connections a mailbox may have at once; [`CONNECTIONS`] at the start.
    pub fn set_connections(&self, connections: usize) {
        self.shared.rules().connections = connections;
    }

    /// Answers every sign-in with a password so, or leaves it to Postfix.
    pub fn set_password_answer(&self, answer: Option<&str>) {
        self.shared.rules().password = answer.map(str::to_owned);
    }

    /// Connections that have been made.
    pub fn connections(&self) -> u64 {
        self.shared.tally.connections()
    }

    /// Connections that are signed in as this mailbox now.
    pub fn open(&self, mailbox: &str) -> usize {
        self.shared.tally.open(mailbox)
    }

    /// Most connections that were signed in as this mailbox at once.
    pub fn most_at_once(&self, mailbox: &str) -> usize {
        self.shared.tally.most(mailbox)
    }

    /// How often the data of a mail with this Message-ID has come, whole or in part.
    pub fn data_begun(&self, message_id: &str) -> usize {
        self.shared.tally.begun(message_id)
    }

    /// The mails that were taken, in order.
    pub fn accepted(&self) -> Vec<Accepted> {
        self.shared.tally.accepted()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        // Nothing panics while it is locked; poisoned rules would still be whole.
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(shared: &Arc<Shared>, stop: &CancellationToken, tls_first: bool) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::system("listen on loopback"))?;
    let addr = listener.local_addr().map_err(Error::system("learn a port"))?;
    let acceptor = TlsAcceptor::from(Arc::clone(&shared.acceptor));
    let (tasks, shared, stop) = (TaskTracker::new(), Arc::clone(shared), stop.clone());
    tokio::spawn(async move {
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let Ok((tcp, _)) = accepted else { continue };
            let (shared, acceptor, stop) = (Arc::clone(&shared), acceptor.clone(), stop.clone());
            shared.tally.connected();
            tasks.spawn(async move {
                let served = session::serve(tcp, acceptor, tls_first, &shared);
                if let Some(Err(error)) = stop.run_until_cancelled(served).await {
                    tracing::debug!(%error, "a connection by the front ended");
                }
            });
        }
    });
    Ok(addr)
}
