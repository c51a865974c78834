//! The outbox, for instances that fill it and people who look at it.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::{self, OutboxState, compose_request::Part, outbox_service_server::OutboxService};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::page::Page;
use super::scope::Scope;
use super::{bytes, role};
use crate::access::role::Role;
use crate::blob::Blobs;
use crate::clock;
use crate::definition::model::Model;
use crate::ledger::outbox::{Decided, Mail, MailFilter, SharedOutbox};
use crate::outbox::composing::Composer;
use crate::outbox::sending::Sending;
use crate::outbox::state::Decision;
use crate::outbox::watching::Mails;
use crate::telemetry::traces::Work;
use crate::watching::Watcher;

/// Longest address that is looked for, in bytes.
const LONGEST_ADDRESS: usize = 320;

/// Serves [`OutboxService`].
#[derive(Clone)]
pub struct Service {
    scope: Scope,
    outbox: SharedOutbox,
    blobs: Blobs,
    composer: Composer,
    sending: Sending,
    watcher: Watcher<Mails>,
}

impl Service {
    /// Serves what `outbox` has to the instances of the model.
    pub fn new(
        model: watch::Receiver<Arc<Model>>,
        outbox: SharedOutbox,
        blobs: Blobs,
        composer: Composer,
        sending: Sending,
        watcher: Watcher<Mails>,
    ) -> Self {
        Self { scope: Scope { model }, outbox, blobs, composer, sending, watcher }
    }

    async fn compose(
        &self,
        request: Request<Streaming<v1::ComposeRequest>>,
        reply: bool,
    ) -> Result<v1::OutboxMail, Failure> {
        let (work, role) = (Work::of(request.extensions()), role(request.extensions())?);
        let mut parts = request.into_inner();
        let first = parts.message().await.map_err(|status| Failure::invalid_field("draft", status.to_string()))?;
        let Some(Part::Draft(draft)) = first.and_then(|request| request.part) else {
            return Err(Failure::invalid_field("draft", "must be the first request"));
        };
        let instance = self.scope.instance(&role, &draft.instance)?;
        let mail = self.composer.compose(instance, draft, reply, parts).await?;
        work.composed(&mail.mail);
        self.told(mail).await
    }

    /// The mail with what keeps it waiting.
    async fn told(&self, mail: Mail) -> Result<v1::OutboxMail, Failure> {
        let mut mails = [mail];
        self.sending.explain(&mut mails).await?;
        let [mail] = mails;
        Ok(mail.mail)
    }

    async fn decide(&self, role: &Role, id: &str, decision: Decision) -> Result<v1::OutboxMail, Failure> {
        let only = self.scope.only(role)?;
        match self.outbox.decide(id, only.as_deref(), decision, clock::now()).await? {
            Decided::Unknown => Err(unknown(id)),
            Decided::Refused(state, wrong) => {
                let state = state.as_str_name().trim_start_matches("OUTBOX_STATE_");
                Err(Failure::new(Reason::WrongState, wrong.to_string()).with("state", state))
            }
            Decided::Done(mail) => {
                // An instance would hurry its own mail, and open a mailbox that others send from too.
                if matches!(decision, Decision::Retry { .. }) && only.is_none() {
                    self.sending.try_mailbox_again(&mail).await?;
                }
                self.sending.raise();
                self.told(*mail).await
            }
        }
    }

    async fn list(&self, role: &Role, request: v1::ListOutboxRequest) -> Result<v1::ListOutboxResponse, Failure> {
        let state = |number: i32| OutboxState::try_from(number).ok().filter(|state| *state != OutboxState::Unspecified);
        let states: Option<Vec<_>> = request.states.iter().map(|number| state(*number)).collect();
        let mut states = states.ok_or_else(|| Failure::invalid_field("states", "are not all known here"))?;
        states.sort_unstable();
        states.dedup();
        if request.address.len() > LONGEST_ADDRESS {
            return Err(Failure::invalid_field("address", format!("is longer than {LONGEST_ADDRESS} bytes")));
        }
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let filter = MailFilter {
            instance_uid: self.scope.instance_or_all(role, &request.instance)?,
            states,
            contact: named(&request.contact),
            address: named(&request.address.trim().to_lowercase()),
        };
        // Whatever narrows the list binds the token.
        let page = Page::read(request.page_size, &request.page_token, &["outbox", &format!("{filter:?}")])?;
        let position = |key: &str| {
            key.parse()
                .map_err(|_| Failure::invalid_field("pageToken", "was not made here; start again without a token"))
        };
        let before = page.after.as_deref().map(position).transpose()?;
        let mut found = self.outbox.mails(&filter, before, page.size + 1).await?;
        let more = found.len() > page.size;
        found.truncate(page.size);
        self.sending.explain(&mut found).await?;
        let last = found.last().filter(|_| more);
        let next_page_token = last.map_or_else(String::new, |last| page.next(&last.row.to_string()));
        Ok(v1::ListOutboxResponse { mails: found.into_iter().map(|mail| mail.mail).collect(), next_page_token })
    }
}

#[tonic::async_trait]
impl OutboxService for Service {
    type GetOutboxRawStream = BoxStream<'static, Result<v1::RawMessageChunk, Status>>;
    type WatchOutboxStream = BoxStream<'static, Result<v1::WatchOutboxResponse, Status>>;

    async fn reply(&self, request: Request<Streaming<v1::ComposeRequest>>) -> Result<Response<v1::OutboxMail>, Status> {
        Ok(Response::new(self.compose(request, true).await?))
    }

    async fn send(&self, request: Request<Streaming<v1::ComposeRequest>>) -> Result<Response<v1::OutboxMail>, Status> {
        Ok(Response::new(self.compose(request, false).await?))
    }

    async fn list_outbox(
        &self,
        request: Request<v1::ListOutboxRequest>,
    ) -> Result<Response<v1::ListOutboxResponse>, Status> {
        let role = role(request.extensions())?;
        Ok(Response::new(self.list(&role, request.into_inner()).await?))
    }

    async fn get_outbox_mail(
        &self,
        request: Request<v1::GetOutboxMailRequest>,
    ) -> Result<Response<v1::OutboxMail>, Status> {
        let role = role(request.extensions())?;
        let id = request.into_inner().mail;
        let found = self.outbox.mail(&id).await.map_err(Failure::from)?;
        let mail = found.filter(|mail| self.scope.may_see(&role, &mail.instance_uid)).ok_or_else(|| unknown(&id))?;
        Ok(Response::new(self.told(mail).await?))
    }

    async fn get_outbox_raw(
        &self,
        request: Request<v1::GetOutboxRawRequest>,
    ) -> Result<Response<Self::GetOutboxRawStream>, Status> {
        let role = role(request.extensions())?;
        let id = request.into_inner().mail;
        let found = self.outbox.mail_raw(&id).await.map_err(Failure::from)?;
        let found = found.filter(|(instance, _)| self.scope.may_see(&role, instance));
        let (_, raw) = found.ok_or_else(|| unknown(&id))?;
        let pieces = bytes::all(&self.blobs, raw).await?.ok_or_else(|| unknown(&id))?;
        Ok(Response::new(pieces.map(|piece| piece.map(|data| v1::RawMessageChunk { data })).boxed()))
    }

    async fn retry_outbox_mail(
        &self,
        request: Request<v1::RetryOutboxMailRequest>,
    ) -> Result<Response<v1::OutboxMail>, Status> {
        let role = role(request.extensions())?;
        let request = request.into_inner();
        let decision = Decision::Retry { may_arrive_twice: request.may_arrive_twice };
        Ok(Response::new(self.decide(&role, &request.mail, decision).await?))
    }

    async fn cancel_outbox_mail(
        &self,
        request: Request<v1::CancelOutboxMailRequest>,
    ) -> Result<Response<v1::OutboxMail>, Status> {
        let role = role(request.extensions())?;
        Ok(Response::new(self.decide(&role, &request.into_inner().mail, Decision::Cancel).await?))
    }

    async fn confirm_outbox_mail(
        &self,
        request: Request<v1::ConfirmOutboxMailRequest>,
    ) -> Result<Response<v1::OutboxMail>, Status> {
        let role = role(request.extensions())?;
        Ok(Response::new(self.decide(&role, &request.into_inner().mail, Decision::Confirm).await?))
    }

    async fn watch_outbox(
        &self,
        request: Request<v1::WatchOutboxRequest>,
    ) -> Result<Response<Self::WatchOutboxStream>, Status> {
        let role = role(request.extensions())?;
        let request = request.into_inner();
        let instance_uid = self.scope.instance_or_all(&role, &request.instance)?;
        let told = self.watcher.watch(instance_uid, request.from_revision).await?;
        Ok(Response::new(told.map(|event| event.map_err(Status::from)).boxed()))
    }
}

fn unknown(id: &str) -> Failure {
    Failure::new(Reason::NotFound, format!("there is no mail {id:?}; see `postroom outbox list`"))
}
