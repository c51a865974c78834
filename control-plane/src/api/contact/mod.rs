//! Contacts, for instances that take them and people who look.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::Extensions;
use postroom_proto::convert::{from_duration, to_timestamp};
use postroom_proto::reason::{Failure, Reason, name};
use postroom_proto::trace;
use postroom_proto::v1::{self, contact_service_server::ContactService};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::scope::Scope;
use super::{bytes, role};
use crate::blob::Blobs;
use crate::clock;
use crate::contact::allocation::Refused;
use crate::contact::arrival::Arrivals;
use crate::contact::taking::Allocator;
use crate::contact::watching;
use crate::definition::model::Model;
use crate::ledger::{Answer, AnswerOutcome, Answered, SharedLedger, Take, Transfer};
use crate::telemetry::traces::Work;
use crate::watching::Watcher;

mod list;

/// Most contacts of one call.
const MOST: u32 = 500;
/// Longest wait of a taker.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Time to accept, unless the taker says otherwise.
const ACCEPT_WITHIN: Duration = Duration::from_secs(120);
/// Longest word on how a contact ended, in bytes.
const LONGEST_OUTCOME: usize = 200;

/// Serves [`ContactService`].
#[derive(Clone)]
pub struct Contacts {
    scope: Scope,
    ledger: SharedLedger,
    blobs: Blobs,
    arrivals: Arc<Arrivals>,
    allocator: Allocator,
    watcher: Watcher<watching::Contacts>,
}

impl Contacts {
    /// Serves what `ledger` has to the instances of the model.
    pub fn new(
        model: watch::Receiver<Arc<Model>>,
        ledger: SharedLedger,
        blobs: Blobs,
        arrivals: Arc<Arrivals>,
        allocator: Allocator,
        watcher: Watcher<watching::Contacts>,
    ) -> Self {
        Self { scope: Scope { model }, ledger, blobs, arrivals, allocator, watcher }
    }

    async fn answer(
        &self,
        extensions: &Extensions,
        instance: &str,
        answer: Answer,
        contacts: Vec<v1::AllocatedContact>,
    ) -> Result<Vec<v1::ContactOutcome>, Failure> {
        let (work, name) = (Work::of(extensions), word(&answer));
        let instance_uid = self.scope.instance(&role(extensions)?, instance)?.uid.clone();
        let (ids, named) = named(contacts)?;
        let queues = matches!(answer, Answer::Reject | Answer::Requeue);
        let outcomes = self.ledger.answer(&instance_uid, answer, named, clock::now()).await?;
        if queues {
            self.arrivals.raise(&instance_uid);
        }
        let outcomes = encode(ids, outcomes);
        work.answered(name, instance, &outcomes);
        Ok(outcomes)
    }

    async fn transfer(
        &self,
        extensions: &Extensions,
        request: v1::TransferContactsRequest,
    ) -> Result<Vec<v1::ContactOutcome>, Failure> {
        let work = Work::of(extensions);
        let from = self.scope.instance(&role(extensions)?, &request.instance)?.uid.clone();
        let (ids, named) = named(request.contacts)?;
        let transfer = {
            let model = self.scope.model.borrow();
            let queue = model.queue(&request.queue).ok_or_else(|| {
                let text = format!("there is no queue {:?}; see `postroom queue list`", request.queue);
                Failure::new(Reason::NotFound, text)
            })?;
            // Invariant: a queue of the model names an instance of the model.
            let instance = model.instance(&queue.instance).ok_or_else(|| {
                Failure::new(Reason::NotFound, format!("there is no instance {:?} any more", queue.instance))
            })?;
            Transfer {
                request_id: request_id("requestId", &request.request_id)?,
                contacts: named,
                instance_uid: instance.uid.clone(),
                instance: instance.name.clone(),
                queue_uid: queue.uid.clone(),
                queue: queue.name.clone(),
                priority: if request.priority == 0 { queue.priority(model.system()) } else { request.priority },
                language: queue.language(model.system()).to_owned(),
            }
        };
        let to = transfer.instance_uid.clone();
        let outcomes = self.ledger.transfer(&from, transfer, clock::now()).await?;
        self.arrivals.raise(&to);
        let outcomes = encode(ids, outcomes);
        work.answered("transfer", &request.instance, &outcomes);
        Ok(outcomes)
    }
}

#[tonic::async_trait]
impl ContactService for Contacts {
    type GetRawMessageStream = BoxStream<'static, Result<v1::RawMessageChunk, Status>>;
    type GetAttachmentStream = BoxStream<'static, Result<v1::AttachmentChunk, Status>>;
    type WatchContactsStream = BoxStream<'static, Result<v1::WatchContactsResponse, Status>>;

    async fn allocate_contacts(
        &self,
        request: Request<v1::AllocateContactsRequest>,
    ) -> Result<Response<v1::AllocateContactsResponse>, Status> {
        let (work, role) = (Work::of(request.extensions()), role(request.extensions())?);
        let request = request.into_inner();
        let wait = duration("wait", request.wait.as_ref(), Duration::ZERO, Duration::ZERO, LONGEST_WAIT)?;
        let accept_within = accept_within(request.accept_within.as_ref())?;
        if !(1..=MOST).contains(&request.max_count) {
            return Err(Failure::invalid_field("maxCount", format!("must be 1 to {MOST}")).into());
        }
        let instance = self.scope.instance(&role, &request.instance)?;
        let take = Take {
            instance_uid: instance.uid.clone(),
            policy: instance.allocation,
            max: request.max_count,
            request_id: request_id("requestId", &request.request_id)?,
            accept_within,
        };
        let mut contacts = self.allocator.take(take, wait).await?;
        work.taken(&mut contacts);
        Ok(Response::new(v1::AllocateContactsResponse { contacts }))
    }

    async fn accept_contacts(
        &self,
        request: Request<v1::AcceptContactsRequest>,
    ) -> Result<Response<v1::AcceptContactsResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let outcomes = self.answer(&extensions, &request.instance, Answer::Accept, request.contacts).await?;
        Ok(Response::new(v1::AcceptContactsResponse { outcomes }))
    }

    async fn reject_contacts(
        &self,
        request: Request<v1::RejectContactsRequest>,
    ) -> Result<Response<v1::RejectContactsResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let outcomes = self.answer(&extensions, &request.instance, Answer::Reject, request.contacts).await?;
        Ok(Response::new(v1::RejectContactsResponse { outcomes }))
    }

    async fn extend_contacts(
        &self,
        request: Request<v1::ExtendContactsRequest>,
    ) -> Result<Response<v1::ExtendContactsResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let answer = Answer::Extend(accept_within(request.accept_within.as_ref())?);
        let outcomes = self.answer(&extensions, &request.instance, answer, request.contacts).await?;
        Ok(Response::new(v1::ExtendContactsResponse { outcomes }))
    }

    async fn end_contacts(
        &self,
        request: Request<v1::EndContactsRequest>,
    ) -> Result<Response<v1::EndContactsResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        if request.outcome.len() > LONGEST_OUTCOME {
            return Err(Failure::invalid_field("outcome", format!("is longer than {LONGEST_OUTCOME} bytes")).into());
        }
        let answer = Answer::End(request.outcome);
        let outcomes = self.answer(&extensions, &request.instance, answer, request.contacts).await?;
        Ok(Response::new(v1::EndContactsResponse { outcomes }))
    }

    async fn requeue_contacts(
        &self,
        request: Request<v1::RequeueContactsRequest>,
    ) -> Result<Response<v1::RequeueContactsResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let named = |contact| v1::AllocatedContact { contact, ..Default::default() };
        let contacts = request.contacts.into_iter().map(named).collect();
        let outcomes = self.answer(&extensions, &request.instance, Answer::Requeue, contacts).await?;
        Ok(Response::new(v1::RequeueContactsResponse { outcomes }))
    }

    async fn transfer_contacts(
        &self,
        request: Request<v1::TransferContactsRequest>,
    ) -> Result<Response<v1::TransferContactsResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        let outcomes = self.transfer(&extensions, request).await?;
        Ok(Response::new(v1::TransferContactsResponse { outcomes }))
    }

    async fn watch_contacts(
        &self,
        request: Request<v1::WatchContactsRequest>,
    ) -> Result<Response<Self::WatchContactsStream>, Status> {
        let role = role(request.extensions())?;
        let request = request.into_inner();
        let instance_uid = self.scope.instance_or_all(&role, &request.instance)?;
        let told = self.watcher.watch(instance_uid, request.from_revision).await?;
        Ok(Response::new(told.map(|event| event.map_err(Status::from)).boxed()))
    }

    async fn list_contacts(
        &self,
        request: Request<v1::ListContactsRequest>,
    ) -> Result<Response<v1::ListContactsResponse>, Status> {
        let role = role(request.extensions())?;
        Ok(Response::new(self.list(&role, request.into_inner()).await?))
    }

    async fn get_contact(&self, request: Request<v1::GetContactRequest>) -> Result<Response<v1::Contact>, Status> {
        let role = role(request.extensions())?;
        let id = request.into_inner().contact;
        let found = self.ledger.contact(&id).await.map_err(Failure::from)?;
        let (_, mut contact) =
            found.filter(|(instance, _)| self.scope.may_see(&role, instance)).ok_or_else(|| unknown(&id))?;
        contact.traceparent = trace::header_of(&contact.id);
        Ok(Response::new(contact))
    }

    async fn get_raw_message(
        &self,
        request: Request<v1::GetRawMessageRequest>,
    ) -> Result<Response<Self::GetRawMessageStream>, Status> {
        let role = role(request.extensions())?;
        let id = request.into_inner().contact;
        let found = self.ledger.raw(&id).await.map_err(Failure::from)?;
        let (_, raw) = found.filter(|(instance, _)| self.scope.may_see(&role, instance)).ok_or_else(|| unknown(&id))?;
        let pieces = bytes::all(&self.blobs, raw).await?.ok_or_else(|| unknown(&id))?;
        Ok(Response::new(pieces.map(|piece| piece.map(|data| v1::RawMessageChunk { data })).boxed()))
    }

    async fn get_attachment(
        &self,
        request: Request<v1::GetAttachmentRequest>,
    ) -> Result<Response<Self::GetAttachmentStream>, Status> {
        let role = role(request.extensions())?;
        let v1::GetAttachmentRequest { contact: id, index } = request.into_inner();
        let found = self.ledger.contact(&id).await.map_err(Failure::from)?;
        let (_, contact) =
            found.filter(|(instance, _)| self.scope.may_see(&role, instance)).ok_or_else(|| unknown(&id))?;
        let attachments = contact.content.unwrap_or_default().attachments;
        let count = attachments.len();
        let attachment = attachments.into_iter().find(|attachment| attachment.index == index).ok_or_else(|| {
            Failure::new(Reason::NotFound, format!("contact {id} has {count} attachments and none of index {index}"))
        })?;
        let raw = self.ledger.raw(&id).await.map_err(Failure::from)?;
        let (_, raw) = raw.ok_or_else(|| unknown(&id))?;
        let pieces = bytes::attachment(&self.blobs, raw, &attachment).await?;
        Ok(Response::new(pieces.map(|piece| piece.map(|data| v1::AttachmentChunk { data })).boxed()))
    }
}

/// What an answer is called in traces.
fn word(answer: &Answer) -> &'static str {
    match answer {
        Answer::Accept => "accept",
        Answer::Extend(_) => "extend",
        Answer::Reject => "reject",
        Answer::End(_) => "end",
        Answer::Requeue => "requeue",
    }
}

/// One spelling of a UUID, however the caller writes it.
fn request_id(field: &str, text: &str) -> Result<String, Failure> {
    let id = uuid::Uuid::try_parse(text)
        .map_err(|_| Failure::invalid_field(field, "is not a UUID; choose one for each taking"))?;
    Ok(id.to_string())
}

/// The contacts of a call: their ids, and what the ledger is told.
fn named(contacts: Vec<v1::AllocatedContact>) -> Result<(Vec<String>, Vec<Answered>), Failure> {
    if contacts.is_empty() || contacts.len() > MOST as usize {
        return Err(Failure::invalid_field("contacts", format!("must name 1 to {MOST} contacts")));
    }
    let ids = contacts.iter().map(|contact| contact.contact.clone()).collect();
    let named = contacts.into_iter().enumerate().map(|(index, contact)| match contact.request_id.as_str() {
        "" => Ok((contact.contact, String::new())),
        id => Ok((contact.contact, request_id(&format!("contacts[{index}].requestId"), id)?)),
    });
    Ok((ids, named.collect::<Result<_, Failure>>()?))
}

fn unknown(id: &str) -> Failure {
    Failure::new(Reason::NotFound, format!("there is no contact {id:?}"))
}

fn duration(
    field: &str,
    value: Option<&prost_types::Duration>,
    absent: Duration,
    shortest: Duration,
    longest: Duration,
) -> Result<Duration, Failure> {
    let Some(value) = value else { return Ok(absent) };
    let duration = from_duration(value).filter(|duration| (shortest..=longest).contains(duration));
    duration.ok_or_else(|| Failure::invalid_field(field, format!("must be {shortest:?} to {longest:?}")))
}

/// How long a taker has to accept, in microseconds.
fn accept_within(value: Option<&prost_types::Duration>) -> Result<i64, Failure> {
    let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(3600));
    let duration = duration("acceptWithin", value, ACCEPT_WITHIN, shortest, longest)?;
    Ok(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}

fn encode(ids: Vec<String>, outcomes: Vec<AnswerOutcome>) -> Vec<v1::ContactOutcome> {
    let encode = |(contact, outcome): (String, AnswerOutcome)| {
        let reason = outcome.refused.map(|refused| match refused {
            Refused::Unknown => Reason::NotFound,
            Refused::NotAllocated | Refused::OtherRequest => Reason::AllocationLost,
            Refused::WrongState(_) => Reason::WrongState,
        });
        v1::ContactOutcome {
            contact,
            state: outcome.state.into(),
            reason: reason.map(name).unwrap_or_default().into(),
            message: outcome.refused.map(|refused| refused.to_string()).unwrap_or_default(),
            deadline_time: outcome.deadline_at.map(to_timestamp),
        }
    };
    ids.into_iter().zip(outcomes).map(encode).collect()
}
