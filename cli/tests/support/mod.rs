//! A control plane that answers what a test tells it to, and the command run against it.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use postroom_cli::context::Context;
use postroom_cli::streams::Streams;
use postroom_proto::v1;
use postroom_proto::v1::access_service_server::AccessServiceServer;
use postroom_proto::v1::contact_service_server::{ContactService, ContactServiceServer};
use postroom_proto::v1::definition_service_server::{DefinitionService, DefinitionServiceServer};
use postroom_proto::v1::message_service_server::{MessageService, MessageServiceServer};
use postroom_proto::v1::operator_service_server::{OperatorService, OperatorServiceServer};
use postroom_proto::v1::outbox_service_server::OutboxServiceServer;
use postroom_proto::v1::store_service_server::StoreServiceServer;
use postroom_proto::v1::worker_service_server::WorkerServiceServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

mod access;
pub(crate) mod fixture;
mod fleet;
mod outbox;

pub(crate) const TOKEN: &str = "planted-token";

/// What the control plane holds and has seen.
#[derive(Default)]
pub(crate) struct State {
    /// Statuses that the next calls fail with.
    pub(crate) failures: VecDeque<Status>,
    /// True: calls are never answered.
    pub(crate) silent: bool,
    /// Methods called so far.
    pub(crate) calls: Vec<&'static str>,
    /// `authorization` of the calls.
    pub(crate) authorizations: Vec<String>,
    pub(crate) model: v1::Model,
    pub(crate) revisions: Vec<v1::Revision>,
    pub(crate) rollout: v1::Rollout,
    /// What every apply and rollback would change, and what is said of it. None: it creates the first instance.
    pub(crate) changes: Vec<v1::Change>,
    pub(crate) notes: Vec<String>,
    /// Requests to change the model, plans among them.
    pub(crate) applies: Vec<v1::ApplyModelRequest>,
    pub(crate) mailboxes: Vec<v1::Mailbox>,
    pub(crate) steps: Vec<v1::CheckStep>,
    pub(crate) contacts: Vec<v1::Contact>,
    pub(crate) allocations: Vec<v1::AllocateContactsRequest>,
    pub(crate) settled: Vec<v1::AllocatedContact>,
    pub(crate) status: v1::Status,
    pub(crate) raw: Vec<&'static [u8]>,
    pub(crate) lists: Vec<v1::ListContactsRequest>,
    pub(crate) transfers: Vec<v1::TransferContactsRequest>,
    /// What a watch tells before it ends.
    pub(crate) events: Vec<Result<v1::WatchContactsResponse, Status>>,
    pub(crate) messages: Vec<v1::Message>,
    pub(crate) mails: Vec<v1::OutboxMail>,
    pub(crate) composed: Vec<outbox::Composed>,
    pub(crate) fleet: v1::ListWorkersResponse,
    pub(crate) store: v1::StoreInfo,
    pub(crate) credentials: Vec<v1::Credential>,
    /// What a reconciliation tells.
    pub(crate) reconciliation: Vec<v1::reconcile_mailbox_response::Told>,
}

/// Two rows a page, whatever is asked for: as many pages as possible.
const PAGE: usize = 2;

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

impl Fake {
    async fn enter<T>(&self, method: &'static str, request: Request<T>) -> Result<T, Status> {
        let silent = {
            let mut state = self.0.lock().unwrap();
            state.calls.push(method);
            let authorization = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
            state.authorizations.push(authorization.unwrap_or_default());
            if let Some(failure) = state.failures.pop_front() {
                return Err(failure);
            }
            state.silent
        };
        if silent {
            std::future::pending::<()>().await;
        }
        Ok(request.into_inner())
    }

    fn page<T: Clone>(all: &[T], size: i32, token: &str) -> (Vec<T>, String) {
        let start: usize = token.parse().unwrap_or(0);
        let end = (start + PAGE.min(usize::try_from(size).unwrap())).min(all.len());
        let next = if end < all.len() { end.to_string() } else { String::new() };
        (all[start..end].to_vec(), next)
    }
}

/// A running control plane; it stops when dropped.
pub(crate) struct ControlPlane {
    pub(crate) context: Context,
    pub(crate) data: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    _stop: DropGuard,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: u8,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Outcome {
    pub(crate) fn out(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }
}

impl ControlPlane {
    pub(crate) async fn start(state: State) -> Self {
        Self::serve(state, Server::builder(), |address| format!("http://{address}")).await
    }

    /// With a certificate of its own CA, whose PEM file is returned.
    pub(crate) async fn start_with_tls(state: State) -> (Self, std::path::PathBuf) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let identity = Identity::from_pem(made.cert.pem(), made.signing_key.serialize_pem());
        let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
        let plane = Self::serve(state, server, |address| format!("https://localhost:{}", address.port())).await;
        let ca_file = plane.data.path().join("ca.pem");
        std::fs::write(&ca_file, made.cert.pem()).unwrap();
        (plane, ca_file)
    }

    async fn serve(state: State, mut server: Server, endpoint: impl Fn(SocketAddr) -> String) -> Self {
        let fake = Fake(Arc::new(Mutex::new(state)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = endpoint(listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let router = server
            .add_service(DefinitionServiceServer::new(fake.clone()))
            .add_service(OperatorServiceServer::new(fake.clone()))
            .add_service(MessageServiceServer::new(fake.clone()))
            .add_service(WorkerServiceServer::new(fake.clone()))
            .add_service(StoreServiceServer::new(fake.clone()))
            .add_service(AccessServiceServer::new(fake.clone()))
            .add_service(OutboxServiceServer::new(fake.clone()))
            .add_service(ContactServiceServer::new(fake.clone()));
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            let serving = router.serve_with_incoming(TcpListenerStream::new(listener));
            tokio::select! { _ = serving => {}, () = stopped => {} }
        });
        let data = tempfile::tempdir().unwrap();
        let context = Context { endpoint, ca_file: None, token: TOKEN.into() };
        context.write(data.path()).unwrap();
        Self { context, data, state: fake.0, _stop: stop.drop_guard() }
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Runs `postroom` with these arguments against it.
    pub(crate) async fn run(&self, args: &[&str]) -> Outcome {
        let data = self.data.path().to_str().unwrap();
        run(&[&["--data", data], args].concat()).await
    }
}

/// Runs `postroom` in an empty environment.
pub(crate) async fn run(args: &[&str]) -> Outcome {
    let args = std::iter::once("postroom").chain(args.iter().copied()).map(OsString::from);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let streams = Streams { now: Some(fixture::now()), ..Streams::plain(&mut out, &mut err) };
    let code = postroom_cli::run(args, &|_| None, streams).await;
    Outcome { code, out, err: String::from_utf8(err).unwrap() }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl DefinitionService for Fake {
    async fn apply_model(&self, request: Request<v1::ApplyModelRequest>) -> Answer<v1::ApplyModelResponse> {
        self.0.lock().unwrap().applies.push(request.get_ref().clone());
        let request = self.enter("ApplyModel", request).await?;
        let mut state = self.0.lock().unwrap();
        let model = request.model.unwrap_or_default();
        let mut changes = state.changes.clone();
        if changes.is_empty() {
            let name = model.instances.first().map(|instance| instance.name.clone()).unwrap_or_default();
            let kind = v1::change::Kind::Create.into();
            changes.push(v1::Change { kind, noun: "instance".into(), name, ..Default::default() });
        }
        if !request.validate_only {
            state.model = model;
        }
        let revision = if request.validate_only { 0 } else { 1 };
        Ok(Response::new(v1::ApplyModelResponse { revision, changes, notes: state.notes.clone() }))
    }

    async fn rollback_model(&self, request: Request<v1::RollbackModelRequest>) -> Answer<v1::ApplyModelResponse> {
        let request = self.enter("RollbackModel", request).await?;
        let state = self.0.lock().unwrap();
        let revision = if request.validate_only { 7 } else { 8 };
        Ok(Response::new(v1::ApplyModelResponse { revision, changes: state.changes.clone(), ..Default::default() }))
    }

    async fn list_revisions(&self, request: Request<v1::ListRevisionsRequest>) -> Answer<v1::ListRevisionsResponse> {
        let request = self.enter("ListRevisions", request).await?;
        let (revisions, next_page_token) =
            Self::page(&self.0.lock().unwrap().revisions, request.page_size, &request.page_token);
        Ok(Response::new(v1::ListRevisionsResponse { revisions, next_page_token }))
    }

    async fn compare_revisions(
        &self,
        request: Request<v1::CompareRevisionsRequest>,
    ) -> Answer<v1::CompareRevisionsResponse> {
        let v1::CompareRevisionsRequest { old_revision, new_revision } =
            self.enter("CompareRevisions", request).await?;
        let changes = self.0.lock().unwrap().changes.clone();
        Ok(Response::new(v1::CompareRevisionsResponse { old_revision, new_revision, changes }))
    }

    async fn get_rollout(&self, request: Request<v1::GetRolloutRequest>) -> Answer<v1::Rollout> {
        self.enter("GetRollout", request).await?;
        Ok(Response::new(self.0.lock().unwrap().rollout.clone()))
    }

    async fn get_system(&self, request: Request<v1::GetSystemRequest>) -> Answer<v1::System> {
        self.enter("GetSystem", request).await?;
        Ok(Response::new(self.0.lock().unwrap().model.system.clone().unwrap_or_default()))
    }

    async fn list_outgoing_servers(
        &self,
        request: Request<v1::ListOutgoingServersRequest>,
    ) -> Answer<v1::ListOutgoingServersResponse> {
        let request = self.enter("ListOutgoingServers", request).await?;
        let (outgoing_servers, next_page_token) =
            Self::page(&self.0.lock().unwrap().model.outgoing_servers, request.page_size, &request.page_token);
        Ok(Response::new(v1::ListOutgoingServersResponse { outgoing_servers, next_page_token }))
    }

    async fn get_outgoing_server(&self, request: Request<v1::GetOutgoingServerRequest>) -> Answer<v1::OutgoingServer> {
        let name = self.enter("GetOutgoingServer", request).await?.outgoing_server;
        let found = self.0.lock().unwrap().model.outgoing_servers.iter().find(|s| s.name == name).cloned();
        found.map(Response::new).ok_or_else(|| not_found("outgoing server", &name))
    }

    async fn export_model(&self, request: Request<v1::ExportModelRequest>) -> Answer<v1::ExportModelResponse> {
        self.enter("ExportModel", request).await?;
        let model = self.0.lock().unwrap().model.clone();
        Ok(Response::new(v1::ExportModelResponse { revision: 1, model: Some(model) }))
    }

    async fn list_instances(&self, request: Request<v1::ListInstancesRequest>) -> Answer<v1::ListInstancesResponse> {
        let request = self.enter("ListInstances", request).await?;
        let (instances, next_page_token) =
            Self::page(&self.0.lock().unwrap().model.instances, request.page_size, &request.page_token);
        Ok(Response::new(v1::ListInstancesResponse { instances, next_page_token }))
    }

    async fn get_instance(&self, request: Request<v1::GetInstanceRequest>) -> Answer<v1::Instance> {
        let request = self.enter("GetInstance", request).await?;
        let found = self.0.lock().unwrap().model.instances.iter().find(|i| i.name == request.instance).cloned();
        found.map(Response::new).ok_or_else(|| not_found("instance", &request.instance))
    }

    async fn list_incoming_servers(
        &self,
        request: Request<v1::ListIncomingServersRequest>,
    ) -> Answer<v1::ListIncomingServersResponse> {
        let request = self.enter("ListIncomingServers", request).await?;
        let (incoming_servers, next_page_token) =
            Self::page(&self.0.lock().unwrap().model.incoming_servers, request.page_size, &request.page_token);
        Ok(Response::new(v1::ListIncomingServersResponse { incoming_servers, next_page_token }))
    }

    async fn get_incoming_server(&self, request: Request<v1::GetIncomingServerRequest>) -> Answer<v1::IncomingServer> {
        let name = self.enter("GetIncomingServer", request).await?.incoming_server;
        let found = self.0.lock().unwrap().model.incoming_servers.iter().find(|s| s.name == name).cloned();
        found.map(Response::new).ok_or_else(|| not_found("incoming server", &name))
    }

    async fn list_queues(&self, request: Request<v1::ListQueuesRequest>) -> Answer<v1::ListQueuesResponse> {
        let request = self.enter("ListQueues", request).await?;
        let (queues, next_page_token) =
            Self::page(&self.0.lock().unwrap().model.queues, request.page_size, &request.page_token);
        Ok(Response::new(v1::ListQueuesResponse { queues, next_page_token }))
    }

    async fn get_queue(&self, request: Request<v1::GetQueueRequest>) -> Answer<v1::Queue> {
        let name = self.enter("GetQueue", request).await?.queue;
        let found = self.0.lock().unwrap().model.queues.iter().find(|q| q.name == name).cloned();
        found.map(Response::new).ok_or_else(|| not_found("queue", &name))
    }
}

#[tonic::async_trait]
impl OperatorService for Fake {
    type CheckMailboxStream = CheckSteps;
    type CheckIncomingServerStream = CheckSteps;
    type CheckOutgoingServerStream = CheckSteps;

    async fn list_mailboxes(&self, request: Request<v1::ListMailboxesRequest>) -> Answer<v1::ListMailboxesResponse> {
        let request = self.enter("ListMailboxes", request).await?;
        let (mailboxes, next_page_token) =
            Self::page(&self.0.lock().unwrap().mailboxes, request.page_size, &request.page_token);
        Ok(Response::new(v1::ListMailboxesResponse { mailboxes, next_page_token }))
    }

    async fn get_mailbox(&self, request: Request<v1::GetMailboxRequest>) -> Answer<v1::Mailbox> {
        let name = self.enter("GetMailbox", request).await?.mailbox;
        let found = self.0.lock().unwrap().mailboxes.iter().find(|m| m.email == name).cloned();
        found.map(Response::new).ok_or_else(|| not_found("mailbox", &name))
    }

    async fn get_backlog(&self, request: Request<v1::GetBacklogRequest>) -> Answer<v1::Backlog> {
        let name = self.enter("GetBacklog", request).await?.mailbox;
        self.backlog(&name).map(Response::new)
    }

    async fn approve_backlog(&self, request: Request<v1::ApproveBacklogRequest>) -> Answer<v1::Backlog> {
        let request = self.enter("ApproveBacklog", request).await?;
        let backlog = self.backlog(&request.mailbox)?;
        Ok(Response::new(fixture::approved(backlog, &request)))
    }

    async fn stop_backlog(&self, request: Request<v1::StopBacklogRequest>) -> Answer<v1::Backlog> {
        let name = self.enter("StopBacklog", request).await?.mailbox;
        self.backlog(&name).map(Response::new)
    }

    async fn get_status(&self, request: Request<v1::GetStatusRequest>) -> Answer<v1::Status> {
        self.enter("GetStatus", request).await?;
        Ok(Response::new(self.0.lock().unwrap().status.clone()))
    }

    async fn get_version(&self, request: Request<v1::GetVersionRequest>) -> Answer<v1::Version> {
        self.enter("GetVersion", request).await?;
        Ok(Response::new(v1::Version { version: "7.0.0".into(), commit: "3f2a9c1d0b7e".into() }))
    }

    async fn check_mailbox(&self, request: Request<v1::CheckMailboxRequest>) -> Answer<Self::CheckMailboxStream> {
        self.enter("CheckMailbox", request).await?;
        Ok(Response::new(steps(&self.0.lock().unwrap().steps)))
    }

    async fn check_incoming_server(
        &self,
        request: Request<v1::CheckIncomingServerRequest>,
    ) -> Answer<Self::CheckIncomingServerStream> {
        self.enter("CheckIncomingServer", request).await?;
        Ok(Response::new(steps(&self.0.lock().unwrap().steps)))
    }

    async fn check_outgoing_server(
        &self,
        request: Request<v1::CheckOutgoingServerRequest>,
    ) -> Answer<Self::CheckOutgoingServerStream> {
        self.enter("CheckOutgoingServer", request).await?;
        Ok(Response::new(steps(&self.0.lock().unwrap().steps)))
    }
}

type CheckSteps = tokio_stream::Iter<std::vec::IntoIter<Result<v1::CheckStep, Status>>>;

fn steps(steps: &[v1::CheckStep]) -> CheckSteps {
    tokio_stream::iter(steps.iter().cloned().map(Ok).collect::<Vec<_>>())
}

#[tonic::async_trait]
impl MessageService for Fake {
    type GetMessageRawStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::RawMessageChunk, Status>>>;
    type ReconcileMailboxStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::ReconcileMailboxResponse, Status>>>;

    async fn list_messages(&self, request: Request<v1::ListMessagesRequest>) -> Answer<v1::ListMessagesResponse> {
        let request = self.enter("ListMessages", request).await?;
        let all = self.0.lock().unwrap().messages.clone();
        let wanted = |m: &v1::Message| request.dispositions.is_empty() || request.dispositions.contains(&m.disposition);
        let all: Vec<_> = all.into_iter().filter(wanted).collect();
        let (messages, next_page_token) = Self::page(&all, request.page_size, &request.page_token);
        Ok(Response::new(v1::ListMessagesResponse { messages, next_page_token }))
    }

    async fn get_message(&self, request: Request<v1::GetMessageRequest>) -> Answer<v1::Message> {
        let id = self.enter("GetMessage", request).await?.message;
        self.message(&id).map(Response::new)
    }

    async fn get_message_raw(&self, request: Request<v1::GetMessageRawRequest>) -> Answer<Self::GetMessageRawStream> {
        self.enter("GetMessageRaw", request).await?;
        let chunk = |data: &&'static [u8]| Ok(v1::RawMessageChunk { data: bytes::Bytes::from_static(data) });
        let chunks: Vec<_> = self.0.lock().unwrap().raw.iter().map(chunk).collect();
        Ok(Response::new(tokio_stream::iter(chunks)))
    }

    async fn replay_message(&self, request: Request<v1::ReplayMessageRequest>) -> Answer<v1::ReplayMessageResponse> {
        let id = self.enter("ReplayMessage", request).await?.message;
        let mut message = self.message(&id)?;
        let already_contact = message.disposition() == v1::Disposition::Contact;
        message.set_disposition(v1::Disposition::Contact);
        Ok(Response::new(v1::ReplayMessageResponse { message: Some(message), already_contact }))
    }

    async fn discard_message(&self, request: Request<v1::DiscardMessageRequest>) -> Answer<v1::Message> {
        let request = self.enter("DiscardMessage", request).await?;
        let mut message = self.message(&request.message)?;
        message.set_disposition(v1::Disposition::Filtered);
        message.reason = format!("discarded by admin: {}", request.reason);
        Ok(Response::new(message))
    }

    async fn reconcile_mailbox(
        &self,
        request: Request<v1::ReconcileMailboxRequest>,
    ) -> Answer<Self::ReconcileMailboxStream> {
        self.enter("ReconcileMailbox", request).await?;
        let told = self.0.lock().unwrap().reconciliation.clone();
        let told: Vec<_> = told.into_iter().map(|told| Ok(v1::ReconcileMailboxResponse { told: Some(told) })).collect();
        Ok(Response::new(tokio_stream::iter(told)))
    }
}

#[tonic::async_trait]
impl ContactService for Fake {
    type GetAttachmentStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::AttachmentChunk, Status>>>;
    type WatchContactsStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::WatchContactsResponse, Status>>>;
    type GetRawMessageStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::RawMessageChunk, Status>>>;

    async fn allocate_contacts(
        &self,
        request: Request<v1::AllocateContactsRequest>,
    ) -> Answer<v1::AllocateContactsResponse> {
        // Recorded before the failure: the first of two tries is a call whose answer was lost.
        self.0.lock().unwrap().allocations.push(request.get_ref().clone());
        let request = self.enter("AllocateContacts", request).await?;
        let mut contacts = self.0.lock().unwrap().contacts.clone();
        contacts.truncate(request.max_count as usize);
        for contact in &mut contacts {
            contact.allocation = Some(v1::Allocation { request_id: request.request_id.clone(), ..Default::default() });
        }
        Ok(Response::new(v1::AllocateContactsResponse { contacts }))
    }

    async fn accept_contacts(&self, request: Request<v1::AcceptContactsRequest>) -> Answer<v1::AcceptContactsResponse> {
        let contacts = self.enter("AcceptContacts", request).await?.contacts;
        let outcomes = self.settle(contacts, v1::ContactState::Accepted);
        Ok(Response::new(v1::AcceptContactsResponse { outcomes }))
    }

    async fn reject_contacts(&self, request: Request<v1::RejectContactsRequest>) -> Answer<v1::RejectContactsResponse> {
        let contacts = self.enter("RejectContacts", request).await?.contacts;
        let outcomes = self.settle(contacts, v1::ContactState::Queued);
        Ok(Response::new(v1::RejectContactsResponse { outcomes }))
    }

    async fn extend_contacts(&self, request: Request<v1::ExtendContactsRequest>) -> Answer<v1::ExtendContactsResponse> {
        let request = self.enter("ExtendContacts", request).await?;
        let mut outcomes = self.settle(request.contacts, v1::ContactState::Allocated);
        let deadline = request.accept_within.map(|within| prost_types::Timestamp { seconds: within.seconds, nanos: 0 });
        outcomes.iter_mut().for_each(|outcome| outcome.deadline_time = deadline);
        Ok(Response::new(v1::ExtendContactsResponse { outcomes }))
    }

    async fn end_contacts(&self, request: Request<v1::EndContactsRequest>) -> Answer<v1::EndContactsResponse> {
        let contacts = self.enter("EndContacts", request).await?.contacts;
        let outcomes = self.settle(contacts, v1::ContactState::Ended);
        Ok(Response::new(v1::EndContactsResponse { outcomes }))
    }

    async fn requeue_contacts(
        &self,
        request: Request<v1::RequeueContactsRequest>,
    ) -> Answer<v1::RequeueContactsResponse> {
        let ids = self.enter("RequeueContacts", request).await?.contacts;
        let named = ids.into_iter().map(|contact| v1::AllocatedContact { contact, ..Default::default() });
        let outcomes = self.settle(named.collect(), v1::ContactState::Queued);
        Ok(Response::new(v1::RequeueContactsResponse { outcomes }))
    }

    async fn transfer_contacts(
        &self,
        request: Request<v1::TransferContactsRequest>,
    ) -> Answer<v1::TransferContactsResponse> {
        self.0.lock().unwrap().transfers.push(request.get_ref().clone());
        let contacts = self.enter("TransferContacts", request).await?.contacts;
        let outcomes = self.settle(contacts, v1::ContactState::Queued);
        Ok(Response::new(v1::TransferContactsResponse { outcomes }))
    }

    async fn watch_contacts(&self, request: Request<v1::WatchContactsRequest>) -> Answer<Self::WatchContactsStream> {
        self.enter("WatchContacts", request).await?;
        let events: Vec<_> = self.0.lock().unwrap().events.clone();
        Ok(Response::new(tokio_stream::iter(events)))
    }

    async fn get_attachment(&self, request: Request<v1::GetAttachmentRequest>) -> Answer<Self::GetAttachmentStream> {
        self.enter("GetAttachment", request).await?;
        let chunk = |data: &&'static [u8]| Ok(v1::AttachmentChunk { data: bytes::Bytes::from_static(data) });
        let chunks: Vec<_> = self.0.lock().unwrap().raw.iter().map(chunk).collect();
        Ok(Response::new(tokio_stream::iter(chunks)))
    }

    async fn list_contacts(&self, request: Request<v1::ListContactsRequest>) -> Answer<v1::ListContactsResponse> {
        self.0.lock().unwrap().lists.push(request.get_ref().clone());
        let request = self.enter("ListContacts", request).await?;
        let (contacts, next_page_token) =
            Self::page(&self.0.lock().unwrap().contacts, request.page_size, &request.page_token);
        Ok(Response::new(v1::ListContactsResponse { contacts, next_page_token }))
    }

    async fn get_contact(&self, request: Request<v1::GetContactRequest>) -> Answer<v1::Contact> {
        let id = self.enter("GetContact", request).await?.contact;
        let found = self.0.lock().unwrap().contacts.iter().find(|c| c.id == id).cloned();
        found.map(Response::new).ok_or_else(|| not_found("contact", &id))
    }

    async fn get_raw_message(&self, request: Request<v1::GetRawMessageRequest>) -> Answer<Self::GetRawMessageStream> {
        self.enter("GetRawMessage", request).await?;
        let chunk = |data: &&'static [u8]| Ok(v1::RawMessageChunk { data: bytes::Bytes::from_static(data) });
        let chunks: Vec<_> = self.0.lock().unwrap().raw.iter().map(chunk).collect();
        Ok(Response::new(tokio_stream::iter(chunks)))
    }
}

impl Fake {
    fn backlog(&self, mailbox: &str) -> Result<v1::Backlog, Status> {
        let found = self.0.lock().unwrap().mailboxes.iter().find(|m| m.email == mailbox).cloned();
        let mailbox = found.ok_or_else(|| not_found("mailbox", mailbox))?;
        mailbox.backlog.ok_or_else(|| {
            let text = format!("nothing of {} waits or ever waited for an operator", mailbox.email);
            postroom_proto::reason::Failure::new(v1::Reason::NoBacklog, text).into()
        })
    }

    fn message(&self, id: &str) -> Result<v1::Message, Status> {
        let found = self.0.lock().unwrap().messages.iter().find(|m| m.id == id).cloned();
        found.ok_or_else(|| not_found("message", id))
    }

    /// Refuses the contacts whose id starts with "lost", and does not know those that start with "unknown".
    fn settle(&self, contacts: Vec<v1::AllocatedContact>, state: v1::ContactState) -> Vec<v1::ContactOutcome> {
        self.0.lock().unwrap().settled.extend(contacts.iter().cloned());
        let outcome = |contact: v1::AllocatedContact| {
            let (state, reason, message) = match contact.contact.split('-').next() {
                Some(lost) if lost.starts_with("lost") => {
                    (v1::ContactState::Queued, "ALLOCATION_LOST", "its deadline passed")
                }
                Some("unknown") => (v1::ContactState::Unspecified, "NOT_FOUND", "there is no such contact"),
                _ => (state, "", ""),
            };
            let (reason, message) = (reason.into(), message.into());
            v1::ContactOutcome { contact: contact.contact, state: state.into(), reason, message, ..Default::default() }
        };
        contacts.into_iter().map(outcome).collect()
    }
}

fn not_found(noun: &str, name: &str) -> Status {
    use postroom_proto::reason::{Failure, Reason};
    Failure::new(Reason::NotFound, format!("there is no {noun} {name:?}")).into()
}
