//! Contacts, for instances that take them and people who look.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use postroom_proto::convert::from_duration;
use postroom_proto::reason::{Failure, Reason, name};
use postroom_proto::v1::{self, ContactState, contact_service_server::ContactService};
use tokio::sync::watch;
use tonic::{Extensions, Request, Response, Status};

use super::page::Page;
use crate::access::role::Role;
use crate::blob::Blobs;
use crate::clock;
use crate::contact::allocation::Refused;
use crate::contact::arrival::Arrivals;
use crate::contact::taking::Allocator;
use crate::definition::model::Model;
use crate::ledger::{Answer, AnswerOutcome, ContactFilter, ContactPosition, Raw, SharedLedger, Take};

/// Most contacts of one call.
const MOST: u32 = 500;
/// Longest wait of a taker.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Time to accept, unless the taker says otherwise.
const ACCEPT_WITHIN: Duration = Duration::from_secs(120);
/// Bytes in a piece of a raw message.
const PIECE: usize = 256 * 1024;

/// Serves [`ContactService`].
#[derive(Clone)]
pub struct Contacts {
    model: watch::Receiver<Arc<Model>>,
    ledger: SharedLedger,
    blobs: Blobs,
    arrivals: Arc<Arrivals>,
    allocator: Allocator,
}

impl Contacts {
    /// Serves what `ledger` has to the instances of the model.
    pub fn new(
        model: watch::Receiver<Arc<Model>>,
        ledger: SharedLedger,
        blobs: Blobs,
        arrivals: Arc<Arrivals>,
        allocator: Allocator,
    ) -> Self {
        Self { model, ledger, blobs, arrivals, allocator }
    }

    /// The uid of an instance that the caller may serve.
    fn instance(&self, role: &Role, name: &str) -> Result<String, Failure> {
        if !role.may_serve(name) {
            let text = format!("the role {role} may not touch contacts of instance {name}");
            return Err(Failure::new(Reason::PermissionDenied, text));
        }
        let model = self.model.borrow();
        let instance = model.instance(name).ok_or_else(|| {
            Failure::new(Reason::NotFound, format!("there is no instance {name:?}; see `postroom instance list`"))
        })?;
        Ok(instance.uid.clone())
    }

    /// True when the caller may see contacts of this instance.
    fn may_see(&self, role: &Role, instance_uid: &str) -> bool {
        match role {
            Role::Instance(own) => {
                self.model.borrow().instance(own).is_some_and(|instance| instance.uid == instance_uid)
            }
            Role::Admin | Role::Operator | Role::Viewer | Role::Worker => true,
        }
    }

    async fn answer(
        &self,
        role: &Role,
        instance: &str,
        answer: Answer,
        contacts: Vec<v1::AllocatedContact>,
    ) -> Result<Vec<v1::ContactOutcome>, Failure> {
        let instance_uid = self.instance(role, instance)?;
        if contacts.is_empty() || contacts.len() > MOST as usize {
            return Err(Failure::invalid_field("contacts", format!("must name 1 to {MOST} contacts")));
        }
        let ids: Vec<String> = contacts.iter().map(|contact| contact.contact.clone()).collect();
        let named = contacts
            .into_iter()
            .enumerate()
            .map(|(index, contact)| match contact.request_id.as_str() {
                "" => Ok((contact.contact, String::new())),
                id => Ok((contact.contact, request_id(&format!("contacts[{index}].requestId"), id)?)),
            })
            .collect::<Result<_, Failure>>()?;
        let outcomes = self.ledger.answer(&instance_uid, answer, named, clock::now()).await?;
        if answer == Answer::Reject {
            self.arrivals.raise(&instance_uid);
        }
        Ok(ids.into_iter().zip(outcomes).map(|(contact, outcome)| encode(contact, outcome)).collect())
    }
}

#[tonic::async_trait]
impl ContactService for Contacts {
    type GetRawMessageStream = BoxStream<'static, Result<v1::RawMessageChunk, Status>>;

    async fn allocate_contacts(
        &self,
        request: Request<v1::AllocateContactsRequest>,
    ) -> Result<Response<v1::AllocateContactsResponse>, Status> {
        let role = role(request.extensions())?;
        let request = request.into_inner();
        let wait = duration("wait", request.wait.as_ref(), Duration::ZERO, Duration::ZERO, LONGEST_WAIT)?;
        let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(3600));
        let accept_within = duration("acceptWithin", request.accept_within.as_ref(), ACCEPT_WITHIN, shortest, longest)?;
        if !(1..=MOST).contains(&request.max_count) {
            return Err(Failure::invalid_field("maxCount", format!("must be 1 to {MOST}")).into());
        }
        let take = Take {
            instance_uid: self.instance(&role, &request.instance)?,
            max: request.max_count,
            request_id: request_id("requestId", &request.request_id)?,
            accept_within: i64::try_from(accept_within.as_micros()).unwrap_or(i64::MAX),
        };
        let contacts = self.allocator.take(take, wait).await?;
        Ok(Response::new(v1::AllocateContactsResponse { contacts }))
    }

    async fn accept_contacts(
        &self,
        request: Request<v1::AcceptContactsRequest>,
    ) -> Result<Response<v1::AcceptContactsResponse>, Status> {
        let role = role(request.extensions())?;
        let request = request.into_inner();
        let outcomes = self.answer(&role, &request.instance, Answer::Accept, request.contacts).await?;
        Ok(Response::new(v1::AcceptContactsResponse { outcomes }))
    }

    async fn reject_contacts(
        &self,
        request: Request<v1::RejectContactsRequest>,
    ) -> Result<Response<v1::RejectContactsResponse>, Status> {
        let role = role(request.extensions())?;
        let request = request.into_inner();
        let outcomes = self.answer(&role, &request.instance, Answer::Reject, request.contacts).await?;
        Ok(Response::new(v1::RejectContactsResponse { outcomes }))
    }

    async fn list_contacts(
        &self,
        request: Request<v1::ListContactsRequest>,
    ) -> Result<Response<v1::ListContactsResponse>, Status> {
        let role = role(request.extensions())?;
        let request = request.into_inner();
        let state = ContactState::try_from(request.state)
            .map_err(|_| Failure::invalid_field("state", format!("{} is no state", request.state)))?;
        let instance_uid = match (request.instance.as_str(), &role) {
            ("", Role::Instance(own)) => {
                return Err(Failure::invalid_field("instance", format!("is empty; name your own, {own}")).into());
            }
            ("", _) => None,
            (name, _) => Some(self.instance(&role, name)?),
        };
        let filter = ContactFilter { instance_uid, state: (state != ContactState::Unspecified).then_some(state) };
        let narrowed = ["contacts", request.instance.as_str(), state.as_str_name()];
        let page = Page::read(request.page_size, &request.page_token, &narrowed)?;
        let after = page.after.as_deref().map(position).transpose()?;
        let mut rows = self.ledger.contacts(&filter, after.as_ref(), page.size + 1).await.map_err(Failure::from)?;
        let more = rows.len() > page.size;
        rows.truncate(page.size);
        let next_page_token = match rows.last() {
            Some((position, _)) if more => page.next(&serde_json::json!(position).to_string()),
            _ => String::new(),
        };
        let contacts = rows.into_iter().map(|(_, contact)| contact).collect();
        Ok(Response::new(v1::ListContactsResponse { contacts, next_page_token }))
    }

    async fn get_contact(&self, request: Request<v1::GetContactRequest>) -> Result<Response<v1::Contact>, Status> {
        let role = role(request.extensions())?;
        let id = request.into_inner().contact;
        let found = self.ledger.contact(&id).await.map_err(Failure::from)?;
        let (_, contact) = found.filter(|(instance, _)| self.may_see(&role, instance)).ok_or_else(|| unknown(&id))?;
        Ok(Response::new(contact))
    }

    async fn get_raw_message(
        &self,
        request: Request<v1::GetRawMessageRequest>,
    ) -> Result<Response<Self::GetRawMessageStream>, Status> {
        let role = role(request.extensions())?;
        let id = request.into_inner().contact;
        let found = self.ledger.raw(&id).await.map_err(Failure::from)?;
        let (_, raw) = found.filter(|(instance, _)| self.may_see(&role, instance)).ok_or_else(|| unknown(&id))?;
        let pieces = match raw {
            Raw::None => return Err(unknown(&id).into()),
            Raw::Inline(bytes) => futures::stream::iter([Ok(bytes)]).boxed(),
            Raw::Blob(digest) => self.blobs.read(&digest).await.map_err(Failure::from)?,
        };
        let chunks = pieces.flat_map(|piece| {
            let chunks: Vec<_> = match piece {
                Ok(bytes) => split(bytes).map(|data| Ok(v1::RawMessageChunk { data })).collect(),
                Err(error) => vec![Err(Status::from(Failure::from(error)))],
            };
            futures::stream::iter(chunks)
        });
        Ok(Response::new(chunks.boxed()))
    }
}

/// One spelling of a UUID, however the caller writes it.
fn request_id(field: &str, text: &str) -> Result<String, Failure> {
    let id = uuid::Uuid::try_parse(text)
        .map_err(|_| Failure::invalid_field(field, "is not a UUID; choose one for each taking"))?;
    Ok(id.to_string())
}

/// The place that a page token names.
fn position(key: &str) -> Result<ContactPosition, Failure> {
    serde_json::from_str(key)
        .map_err(|_| Failure::invalid_field("page_token", "was not made here; start again without a token"))
}

/// Invariant: no request reaches a service but through the gate, which puts the role there.
fn role(extensions: &Extensions) -> Result<Role, Failure> {
    extensions.get().cloned().ok_or_else(|| Failure::new(Reason::Unauthenticated, "the call came past the gate"))
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

fn split(bytes: Bytes) -> impl Iterator<Item = Bytes> {
    (0..bytes.len()).step_by(PIECE).map(move |from| bytes.slice(from..bytes.len().min(from + PIECE)))
}

fn encode(contact: String, outcome: AnswerOutcome) -> v1::ContactOutcome {
    match outcome {
        Ok(state) => v1::ContactOutcome { contact, state: state.into(), ..Default::default() },
        Err(refused) => {
            let reason = if refused == Refused::Unknown { Reason::NotFound } else { Reason::AllocationLost };
            let state = match refused {
                Refused::Unknown => ContactState::Unspecified,
                Refused::NotAllocated => ContactState::Queued,
                Refused::OtherRequest => ContactState::Allocated,
                Refused::Accepted => ContactState::Accepted,
            };
            let message = refused.to_string();
            v1::ContactOutcome { contact, state: state.into(), reason: name(reason).into(), message }
        }
    }
}
