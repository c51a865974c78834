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
use crate::definition::{self, model::Model};
use crate::errand::{Asked, Errands};
use crate::observation::Observer;

/// Time for a whole check: each of its steps has a shorter one of its own.
const TIME: Duration = Duration::from_secs(180);
/// The steps that a worker takes.
const STEPS: [&str; 7] = ["dns", "tcp", "tls", "token", "claims", "sign-in", "select"];

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

    async fn check(
        &self,
        begun: Instant,
        what: String,
        resolved: Result<v1::MailboxDefinition, Failure>,
    ) -> Result<Steps, Failure> {
        let step = |outcome: CheckOutcome, detail: String, problem| CheckStep {
            name: "definition".into(),
            outcome: outcome.into(),
            duration: Some(to_duration(begun.elapsed())),
            detail,
            problem,
        };
        let definition = match resolved {
            Ok(definition) => definition,
            // A definition that cannot be used is what the check has found, not a reason to fail.
            Err(failure) if failure.reason == Reason::SecretUnreadable => {
                let entry = &postroom_proto::catalogue::own::SECRET_UNREADABLE;
                let problem = v1::Problem {
                    kind: entry.kind.into(),
                    code: entry.code().into(),
                    cause: failure.message,
                    remedy: entry.remedy.into(),
                    ..v1::Problem::default()
                };
                let first = step(CheckOutcome::Failed, what, Some(problem));
                let rest = STEPS.map(|name| CheckStep {
                    name: name.into(),
                    outcome: CheckOutcome::Skipped.into(),
                    detail: "the definition cannot be used".into(),
                    ..CheckStep::default()
                });
                return Ok(stream::iter(std::iter::once(first).chain(rest).map(Ok)).boxed());
            }
            Err(failure) => return Err(failure),
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
        let first = stream::iter([Ok(step(CheckOutcome::Ok, detail, None))]);
        Ok(first.chain(found(asked)).boxed())
    }
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
    let detail = match &mailbox.holder {
        Some(holder) => format!("by worker {}, {} messages so far", holder.worker, mailbox.message_count),
        None => "nobody reads it at the moment".to_owned(),
    };
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
