//! Checks: which mailbox or server is meant, who looks, and what is found, step by step.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use postroom_proto::convert::to_duration;
use postroom_proto::id::MailboxUid;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::{self, CheckOutcome, CheckStep, errand::Task, report_errand_request::Found};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::access::vault::Vault;
use crate::definition::model::{Model, OutgoingServer, Queue};
use crate::definition::{self, sending};
use crate::errand::{Asked, Errands};
use crate::observation::Observer;

/// Time for a whole check: each of its steps has a shorter one of its own.
const TIME: Duration = Duration::from_secs(180);
/// The steps that a worker takes to read.
const READING: [&str; 7] = ["dns", "tcp", "tls", "token", "claims", "sign-in", "select"];
/// The steps that it takes to send.
const SENDING: [&str; 7] = ["dns", "tcp", "tls", "token", "claims", "sign-in", "send-right"];

/// The steps of a check as they end.
pub type Steps = BoxStream<'static, Result<CheckStep, Failure>>;

/// Has mailboxes and servers checked by workers.
#[derive(Clone)]
pub struct Checker {
    observer: Observer,
    errands: Errands,
    model: watch::Receiver<Arc<Model>>,
    vault: Arc<Vault>,
}

impl Checker {
    /// Finds mailboxes by `observer` and has `errands` done.
    pub fn new(observer: Observer, errands: Errands, model: watch::Receiver<Arc<Model>>, vault: Arc<Vault>) -> Self {
        Self { observer, errands, model, vault }
    }

    /// Checks a mailbox of the model, named by e-mail or uid.
    pub async fn mailbox(&self, wanted: &str) -> Result<Steps, Failure> {
        let begun = Instant::now();
        let mailbox = self.observer.mailbox(wanted).await?;
        let uid = MailboxUid::parse(&mailbox.uid).map_err(|error| Failure::new(Reason::Internal, error.to_string()))?;
        let what = format!("{} in queue {:?}", mailbox.email, mailbox.queue);
        let model = self.model.borrow().clone();
        let steps = self.check(begun, what, definition::resolve(&model, &self.vault, &uid)).await?;
        let observer = self.observer.clone();
        let last = stream::once(async move { observer.mailbox(uid.as_str()).await.map(|mailbox| reading(&mailbox)) });
        Ok(steps.chain(last).boxed())
    }

    /// Checks an incoming server, named by name or uid, with a mailbox (an e-mail) or without one.
    pub async fn server(&self, wanted: &str, mailbox: &str) -> Result<Steps, Failure> {
        let begun = Instant::now();
        let model = self.model.borrow().clone();
        let server = model.server(wanted).cloned().ok_or_else(|| {
            let text = format!("there is no incoming server {wanted:?}; see `postroom incoming-server list`");
            Failure::new(Reason::NotFound, text)
        })?;
        let what = match mailbox {
            "" => "no mailbox named".to_owned(),
            mailbox => mailbox.to_owned(),
        };
        self.check(begun, what, definition::resolve_server(&model, &self.vault, &server, mailbox)).await
    }

    /// Checks an outgoing server, named by name or uid, for mail from an address or (empty) without one.
    pub async fn outgoing(&self, wanted: &str, from: &str) -> Result<Steps, Failure> {
        let begun = Instant::now();
        let model = self.model.borrow().clone();
        let server = model.outgoing_server(wanted).cloned().ok_or_else(|| {
            let text = format!("there is no outgoing server {wanted:?}; see `postroom outgoing-server list`");
            Failure::new(Reason::NotFound, text)
        })?;
        let from = from.trim();
        let (outcome, what) = standing(&model, &server, from);
        let definition = match sending::resolve_outgoing(&model, &self.vault, &server, from) {
            Ok(definition) => definition,
            Err(failure) => return unusable(begun, what, failure, SENDING),
        };
        let pool =
            model.queues().find(|queue| has_sender(queue, from)).and_then(|queue| model.instance(&queue.instance));
        let pool = pool.map(|instance| instance.pool().to_owned());
        let task = v1::CheckOutgoingTask { definition: Some(definition), sender: from.into() };
        let asked = self.errands.ask_anybody(pool.as_deref(), Task::CheckOutgoing(task), TIME).await?;
        let detail = format!("{what}; looked at by worker {}", asked.doer().worker);
        let first = stream::iter([Ok(defined(begun, outcome, detail, None))]);
        Ok(first.chain(found(asked)).boxed())
    }

    async fn check(
        &self,
        begun: Instant,
        what: String,
        resolved: Result<v1::MailboxDefinition, Failure>,
    ) -> Result<Steps, Failure> {
        let definition = match resolved {
            Ok(definition) => definition,
            Err(failure) => return unusable(begun, what, failure, READING),
        };
        let server = definition.server.clone();
        let account = match &definition.account {
            account if account.is_empty() || *account == definition.email => String::new(),
            account => format!(", signed in as {account}"),
        };
        let asked = self.errands.ask(definition, Task::Check(v1::CheckTask {}), TIME).await?;
        let doer = asked.doer();
        let holds = if doer.holds { "which reads it" } else { "which does not read it at the moment" };
        let detail =
            format!("{what}, incoming server {server:?}{account}; looked at by worker {}, {holds}", doer.worker);
        let first = stream::iter([Ok(defined(begun, CheckOutcome::Ok, detail, None))]);
        Ok(first.chain(found(asked)).boxed())
    }
}

/// The first step of each check.
fn defined(begun: Instant, outcome: CheckOutcome, detail: String, problem: Option<v1::Problem>) -> CheckStep {
    CheckStep {
        name: "definition".into(),
        outcome: outcome.into(),
        duration: Some(to_duration(begun.elapsed())),
        detail,
        problem,
    }
}

/// A definition that cannot be used is what the check has found, not a reason to fail.
fn unusable(begun: Instant, what: String, failure: Failure, steps: [&str; 7]) -> Result<Steps, Failure> {
    if failure.reason != Reason::SecretUnreadable {
        return Err(failure);
    }
    let entry = &postroom_proto::catalogue::own::SECRET_UNREADABLE;
    let problem = v1::Problem {
        kind: entry.kind.into(),
        code: entry.code().into(),
        cause: failure.message,
        remedy: entry.remedy.into(),
        ..v1::Problem::default()
    };
    let first = defined(begun, CheckOutcome::Failed, what, Some(problem));
    let rest = steps.map(|name| CheckStep {
        name: name.into(),
        outcome: CheckOutcome::Skipped.into(),
        detail: "the definition cannot be used".into(),
        ..CheckStep::default()
    });
    Ok(stream::iter(std::iter::once(first).chain(rest).map(Ok)).boxed())
}

/// What the model makes of mail from an address by this server.
fn standing(model: &Model, server: &OutgoingServer, from: &str) -> (CheckOutcome, String) {
    let name = &server.name;
    if !server.enabled {
        return (CheckOutcome::Warning, format!("outgoing server {name:?} is not enabled, so it sends nothing"));
    }
    if from.is_empty() {
        return (CheckOutcome::Ok, format!("outgoing server {name:?}, no sender named"));
    }
    let Some(queue) = model.queues().find(|queue| has_sender(queue, from)) else {
        let text = format!("no queue has {from} with `sender: true`, so no mail is sent from it");
        return (CheckOutcome::Warning, text);
    };
    let instance = model.instance(&queue.instance).map(|instance| instance.uid.as_str()).unwrap_or_default();
    match sending::road(model, instance, &queue.uid, from) {
        Ok(road) if road.server.uid == server.uid => {
            (CheckOutcome::Ok, format!("mail from {from} of queue {:?} is sent by it", queue.name))
        }
        Ok(road) => {
            let other = &road.server.name;
            (CheckOutcome::Warning, format!("mail from {from} is sent by outgoing server {other:?}, not by {name:?}"))
        }
        Err(_) => (CheckOutcome::Warning, format!("{name:?} cannot send for {from}: it is of another tenant")),
    }
}

fn has_sender(queue: &Queue, from: &str) -> bool {
    queue.addresses.iter().any(|address| address.sender && address.email.eq_ignore_ascii_case(from))
}

/// How the reading itself goes, which may fail for what no step tries: that messages cannot be stored, marked or moved.
fn reading(mailbox: &v1::Mailbox) -> CheckStep {
    const NOT_STEPS: [&str; 5] =
        ["STORAGE_FAILED", "CONTROL_PLANE", "UIDVALIDITY_CHANGED", "MOVE_REFUSED", "MARK_REFUSED"];
    let outcome = match &mailbox.problem {
        None => CheckOutcome::Ok,
        Some(problem) if NOT_STEPS.contains(&problem.code.as_str()) => CheckOutcome::Failed,
        // What the steps above have tried is known from them; the reader may not have tried again since.
        Some(_) => CheckOutcome::Warning,
    };
    let mut detail = match &mailbox.holder {
        Some(holder) => format!("by worker {}, {} messages so far", holder.worker, mailbox.message_count),
        None => "nobody reads it at the moment".to_owned(),
    };
    if let Some(backlog) = mailbox.backlog.as_ref().filter(|backlog| !backlog.remedy.is_empty()) {
        detail += &format!("; {}: {}", backlog.cause, backlog.remedy);
    }
    CheckStep {
        name: "reading".into(),
        outcome: outcome.into(),
        duration: None,
        detail,
        problem: mailbox.problem.clone(),
    }
}

/// What the worker finds.
fn found(asked: Asked) -> impl futures::Stream<Item = Result<CheckStep, Failure>> + Send {
    stream::unfold(Some(asked), |asked| async move {
        let mut asked = asked?;
        loop {
            match asked.next().await {
                Ok(Some(Found::Step(step))) => return Some((Ok(step), Some(asked))),
                // A finding of another kind is none of a check.
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(unfinished) => return Some((Err(unfinished.into()), None)),
            }
        }
    })
}
