//! A stand-in for Microsoft Graph's mail (v1.0) over TLS: sendMail, drafts with attachments, and the look for what was
//! sent. It takes tokens of the testbed's tenant for Graph's audience, keeps to Graph's limits, refuses as Graph does, and
//! delivers into Dovecot: to whom the headers To, Cc and Bcc of a mail name, from the mailbox of the path, whatever the
//! header From says, and with a copy in Sent Items. A draft can be told to be from another address (PATCH `from`), which
//! only who may send as it can send.
//!
//! A recipient `bounce-5.1.1@…` gets nothing, and the sender a report of that (RFC 3464), as at [`crate::postfix`].

mod answer;
mod deliver;
mod drafts;
mod limits;
mod mime;
mod server;

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::answer::Answer;
use self::{deliver::Deliverer, drafts::Drafts, limits::Limits};
use crate::{
    dovecot::Dovecot,
    error::Result,
    script::{Script, Stall},
    tenant::{Judge, Tenant},
    web,
};

/// Requests of an application for a mailbox that Graph works on at once.
pub const CONCURRENT: usize = 4;
/// Largest request.
pub const LARGEST_REQUEST: usize = 4 << 20;
/// Attachments from this size on go by an upload session, and smaller ones do not.
pub const UPLOAD_FROM: usize = 3 << 20;

/// Where in the work on a request something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
pub enum Step {
    /// A draft is to be made.
    Draft,
    /// An attachment of a draft is to be added, or a session for its upload begun.
    Attach,
    /// A part of an attachment came.
    Upload,
    /// A mail, or a draft, is to be sent: nothing has been delivered.
    Send,
    /// It was delivered: the client has not been told.
    Accepted,
    /// A mail is looked for.
    Search,
}

/// A mail that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The mailbox that sent.
    pub mailbox: String,
    /// The address that it is from.
    pub from: String,
    /// The mail's Message-ID, without brackets.
    pub message_id: String,
    /// Who gets it.
    pub recipients: Vec<String>,
    /// It was a draft before.
    pub was_draft: bool,
    /// When.
    pub at: Instant,
}

/// A running stand-in. Dropping it cuts its connections.
#[derive(Debug)]
pub struct Graph {
    shared: Arc<Shared>,
    addr: SocketAddr,
    stop: CancellationToken,
}

/// What the server's tasks and the handle share.
#[derive(Debug)]
struct Shared {
    base: String,
    judge: Judge,
    deliverer: Deliverer,
    script: Script<Step, Answer>,
    state: Mutex<State>,
    /// Work on requests, which outlives a client that has gone.
    tasks: TaskTracker,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    drafts: Drafts,
    keeps_copy: bool,
    largest_mail: usize,
    /// Mailboxes, and other addresses that they may send as.
    send_as: HashSet<(String, String)>,
    accepted: Vec<Accepted>,
}

impl Graph {
    /// Starts a stand-in for a tenant whose mail is in `dovecot`, with its certificate.
    pub async fn start(tenant: &Tenant, dovecot: &Dovecot) -> Result<Self> {
        let (listener, addr) = web::bind().await?;
        let state = State {
            limits: Limits::new(CONCURRENT),
            drafts: Drafts::default(),
            keeps_copy: true,
            largest_mail: 150 << 20,
            send_as: HashSet::new(),
            accepted: Vec::new(),
        };
        let shared = Arc::new(Shared {
            base: format!("https://{addr}"),
            judge: tenant.judge(),
            deliverer: Deliverer::new(dovecot),
            script: Script::new(),
            state: Mutex::new(state),
            tasks: TaskTracker::new(),
        });
        let stop = CancellationToken::new();
        web::run(listener, dovecot.authority(), server::router(Arc::clone(&shared)), &stop, &TaskTracker::new())?;
        Ok(Self { shared, addr, stop })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers the next `times` (0: all from now on) that come to `step` with `answer`, for `mailbox` (empty: for any).
    pub fn answer(&self, step: Step, mailbox: &str, times: usize, answer: Answer) {
        self.shared.script.answer(step, mailbox, times, answer);
    }

    /// Breaks the connection off for the next `times` (0: all from now on) that come to `step`.
    pub fn cut(&self, step: Step, mailbox: &str, times: usize) {
        self.shared.script.cut(step, mailbox, times);
    }

    /// Lets the next `times` (0: all from now on) that come to `step` wait. Who waits is worked on when it is released,
    /// even when the client has gone.
    pub fn stall(&self, step: Step, mailbox: &str, times: usize) -> Stall {
        self.shared.script.stall(step, mailbox, times)
    }

    /// Takes back all answers and cuts that were ordered.
    pub fn mend(&self) {
        self.shared.script.mend();
    }

    /// How many requests for a mailbox are worked on at once; [`CONCURRENT`] at the start.
    pub fn set_concurrent(&self, concurrent: usize) {
        self.shared.state().limits.set_concurrent(concurrent);
    }

    /// How many mails of a mailbox are taken within `minute`; any number at the start.
    pub fn set_rate(&self, mails: usize, minute: Duration) {
        self.shared.state().limits.set_rate(mails, minute);
    }

    /// Largest mail, with its attachments; 150 MB at the start.
    pub fn set_largest_mail(&self, bytes: usize) {
        self.shared.state().largest_mail = bytes;
    }

    /// Lets a mailbox send from another address, which none may at the start.
    pub fn allow_send_as(&self, mailbox: &str, address: &str) {
        self.shared.state().send_as.insert((mailbox.to_lowercase(), address.to_lowercase()));
    }

    /// Whether what is sent is copied into Sent Items, as at the start.
    pub fn set_keeps_copy(&self, keeps_copy: bool) {
        self.shared.state().keeps_copy = keeps_copy;
    }

    /// Most requests for this mailbox that were worked on at once.
    pub fn most_at_once(&self, mailbox: &str) -> usize {
        self.shared.state().limits.most(mailbox)
    }

    /// Drafts that have not been sent.
    pub fn draft_count(&self) -> usize {
        self.shared.state().drafts.count()
    }

    /// The mails that were taken, in order.
    pub fn accepted(&self) -> Vec<Accepted> {
        self.shared.state().accepted.clone()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked; a poisoned state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
