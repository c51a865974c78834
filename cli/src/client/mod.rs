//! Calls to the control plane: one method a call, each with token, deadline and retry.
//!
//! Every call here may safely be repeated: reading changes nothing, applying the same model twice changes nothing, and
//! what an instance does with contacts is told apart by contact and request id.

use std::future::Future;
use std::time::Duration;

use postroom_proto::reason::Failure;
use postroom_proto::v1;
use postroom_proto::v1::backup_service_client::BackupServiceClient;
use postroom_proto::v1::contact_service_client::ContactServiceClient;
use postroom_proto::v1::definition_service_client::DefinitionServiceClient;
use postroom_proto::v1::operator_service_client::OperatorServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::progress::Progress;

mod audit;
mod connect;
mod contact;
mod message;
mod outbox;
mod retry;
mod secret;
mod store;
mod token;
mod worker;

pub use outbox::Composition;
pub use retry::Repeat;

/// How long one try of a call may take, beside the time that the call itself asks to wait.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for a step of a check: the control plane ends the whole check before.
const CHECK: Duration = Duration::from_secs(200);
/// How much longer it may take when it is about a whole model: of 100,000 addresses and more, on a machine that is busy.
const MODEL: Duration = Duration::from_secs(110);
/// Most rows of one page.
const PAGE_SIZE: u32 = 1000;
/// Largest answer. The control plane is trusted; a model of a large cluster passes the 4 MiB that tonic allows.
const MAX_ANSWER: usize = 64 << 20;
/// Largest answer about a model, which may tell every field of it, old and new.
const MAX_MODEL: usize = 256 << 20;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control plane answered with a failure of its own.
    #[error("{failure}")]
    Answered {
        /// What it said.
        failure: Failure,
    },
    /// No answer in time.
    #[error("{endpoint} did not answer within {seconds} s")]
    Deadline {
        /// Who was called.
        endpoint: String,
        /// How long was waited.
        seconds: u64,
    },
    /// TLS: the other side is not who it should be.
    #[error("the certificate of {endpoint} is not trusted: {detail}")]
    Untrusted {
        /// Who was called.
        endpoint: String,
        /// What is wrong with the certificate.
        detail: String,
    },
    /// What answers there is no TLS.
    #[error("{endpoint} does not speak TLS")]
    NoTls {
        /// Who was called.
        endpoint: String,
    },
    /// No connection, or it broke.
    #[error("cannot reach {endpoint}: {detail}")]
    Unreachable {
        /// Who was called.
        endpoint: String,
        /// The innermost cause.
        detail: String,
    },
    /// An answer that does not come from Postroom, for example from a proxy.
    #[error("{endpoint} answered {code:?}: {message}")]
    Foreign {
        /// Who was called.
        endpoint: String,
        /// Its gRPC code.
        code: Code,
        /// What it said.
        message: String,
    },
    /// The connection cannot even be tried.
    #[error("{message}")]
    Setup {
        /// What is wrong.
        message: String,
        /// What to do.
        help: String,
    },
}

/// A connection to a control plane. It connects with the first call.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: String,
    channel: Channel,
    bearer: Bearer,
    deadline: Duration,
    progress: Progress,
}

/// Adds the token to every request.
#[derive(Debug, Clone)]
struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Authorized = InterceptedService<Channel, Bearer>;

impl Client {
    /// The same client with another deadline for one try of a call.
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Where the control plane is.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The same client, which tells this progress what it has read: the rows of a listing of many pages.
    pub fn with_progress(self, progress: &Progress) -> Self {
        Self { progress: progress.clone(), ..self }
    }

    /// Creates and updates what the model names.
    pub async fn apply_model(&self, model: v1::Model) -> Result<v1::ApplyModelResponse, Error> {
        let request = v1::ApplyModelRequest { model: Some(model), ..Default::default() };
        // Nothing was read before that could be stale, so a conflict with another apply is settled by applying again.
        self.call(Repeat::Operation, MODEL, request, async |r| self.definitions().apply_model(r).await).await
    }

    /// Changes the model as the request says. With an etag it needs a request id, so that a lost answer can be repeated.
    pub async fn change_model(&self, request: v1::ApplyModelRequest) -> Result<v1::ApplyModelResponse, Error> {
        self.model(request, async |r| self.definitions().apply_model(r).await).await
    }

    /// Makes an old revision the newest. As [`change_model`](Self::change_model).
    pub async fn roll_back(&self, request: v1::RollbackModelRequest) -> Result<v1::ApplyModelResponse, Error> {
        self.model(request, async |r| self.definitions().rollback_model(r).await).await
    }

    /// What differs between two revisions; a new one of 0 is the newest.
    pub async fn compare_revisions(&self, old: u64, new: u64) -> Result<v1::CompareRevisionsResponse, Error> {
        let request = v1::CompareRevisionsRequest { old_revision: old, new_revision: new };
        self.model(request, async |r| self.definitions().compare_revisions(r).await).await
    }

    /// The newest `limit` revisions. `next_page_token` stays when there are more.
    pub async fn list_revisions(&self, limit: u32) -> Result<v1::ListRevisionsResponse, Error> {
        let mut all = v1::ListRevisionsResponse::default();
        loop {
            let missing = limit - u32::try_from(all.revisions.len()).unwrap_or(limit).min(limit);
            let page_size = page_size(Some(missing)).min(100);
            let page = v1::ListRevisionsRequest { page_size, page_token: all.next_page_token };
            let page = self.model(page, async |r| self.definitions().list_revisions(r).await).await?;
            all.revisions.extend(page.revisions);
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() || all.revisions.len() >= limit as usize {
                return Ok(all);
            }
        }
    }

    /// Which revision each replica and worker runs.
    pub async fn get_rollout(&self) -> Result<v1::Rollout, Error> {
        self.read(v1::GetRolloutRequest {}, async |r| self.definitions().get_rollout(r).await).await
    }

    /// The system settings.
    pub async fn get_system(&self) -> Result<v1::System, Error> {
        self.read(v1::GetSystemRequest {}, async |r| self.definitions().get_system(r).await).await
    }

    /// All outgoing servers, by name.
    pub async fn list_outgoing_servers(&self) -> Result<v1::ListOutgoingServersResponse, Error> {
        let mut all = v1::ListOutgoingServersResponse::default();
        loop {
            let page = v1::ListOutgoingServersRequest { page_size: page_size(None), page_token: all.next_page_token };
            let page = self.read(page, async |r| self.definitions().list_outgoing_servers(r).await).await?;
            all.outgoing_servers.extend(page.outgoing_servers);
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// One outgoing server by name or uid.
    pub async fn get_outgoing_server(&self, outgoing_server: String) -> Result<v1::OutgoingServer, Error> {
        let request = v1::GetOutgoingServerRequest { outgoing_server };
        self.read(request, async |r| self.definitions().get_outgoing_server(r).await).await
    }

    /// All definitions, without secrets.
    pub async fn export_model(&self) -> Result<v1::ExportModelResponse, Error> {
        self.model(v1::ExportModelRequest::default(), async |r| self.definitions().export_model(r).await).await
    }

    /// All instances, by name.
    pub async fn list_instances(&self) -> Result<v1::ListInstancesResponse, Error> {
        let mut all = v1::ListInstancesResponse::default();
        loop {
            let page = v1::ListInstancesRequest { page_size: page_size(None), page_token: all.next_page_token };
            let page = self.read(page, async |r| self.definitions().list_instances(r).await).await?;
            all.instances.extend(page.instances);
            self.progress.at(all.instances.len() as u64, 0);
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// One instance by name or uid.
    pub async fn get_instance(&self, instance: String) -> Result<v1::Instance, Error> {
        self.read(v1::GetInstanceRequest { instance }, async |r| self.definitions().get_instance(r).await).await
    }

    /// All incoming servers, by name.
    pub async fn list_incoming_servers(&self) -> Result<v1::ListIncomingServersResponse, Error> {
        let mut all = v1::ListIncomingServersResponse::default();
        loop {
            let page = v1::ListIncomingServersRequest { page_size: page_size(None), page_token: all.next_page_token };
            let page = self.read(page, async |r| self.definitions().list_incoming_servers(r).await).await?;
            all.incoming_servers.extend(page.incoming_servers);
            self.progress.at(all.incoming_servers.len() as u64, 0);
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// One incoming server by name or uid.
    pub async fn get_incoming_server(&self, incoming_server: String) -> Result<v1::IncomingServer, Error> {
        let request = v1::GetIncomingServerRequest { incoming_server };
        self.read(request, async |r| self.definitions().get_incoming_server(r).await).await
    }

    /// All queues, by name.
    pub async fn list_queues(&self) -> Result<v1::ListQueuesResponse, Error> {
        let mut all = v1::ListQueuesResponse::default();
        loop {
            let page = v1::ListQueuesRequest { page_size: page_size(None), page_token: all.next_page_token };
            let page = self.read(page, async |r| self.definitions().list_queues(r).await).await?;
            all.queues.extend(page.queues);
            self.progress.at(all.queues.len() as u64, 0);
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// One queue by name or uid.
    pub async fn get_queue(&self, queue: String) -> Result<v1::Queue, Error> {
        self.read(v1::GetQueueRequest { queue }, async |r| self.definitions().get_queue(r).await).await
    }

    /// All mailboxes, by e-mail.
    pub async fn list_mailboxes(&self) -> Result<v1::ListMailboxesResponse, Error> {
        let mut all = v1::ListMailboxesResponse::default();
        loop {
            let page = v1::ListMailboxesRequest { page_size: page_size(None), page_token: all.next_page_token };
            let page = self.read(page, async |r| self.operator().list_mailboxes(r).await).await?;
            all.mailboxes.extend(page.mailboxes);
            self.progress.at(all.mailboxes.len() as u64, 0);
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// One mailbox by e-mail or uid.
    pub async fn get_mailbox(&self, mailbox: String) -> Result<v1::Mailbox, Error> {
        self.read(v1::GetMailboxRequest { mailbox }, async |r| self.operator().get_mailbox(r).await).await
    }

    /// The old messages of a mailbox that wait, or waited, for an operator.
    pub async fn get_backlog(&self, mailbox: String) -> Result<v1::Backlog, Error> {
        self.read(v1::GetBacklogRequest { mailbox }, async |r| self.operator().get_backlog(r).await).await
    }

    /// Releases them.
    pub async fn approve_backlog(&self, request: v1::ApproveBacklogRequest) -> Result<v1::Backlog, Error> {
        self.read(request, async |r| self.operator().approve_backlog(r).await).await
    }

    /// Holds them back again.
    pub async fn stop_backlog(&self, mailbox: String) -> Result<v1::Backlog, Error> {
        self.read(v1::StopBacklogRequest { mailbox }, async |r| self.operator().stop_backlog(r).await).await
    }

    /// Checks a mailbox, named by e-mail or uid.
    pub async fn check_mailbox(&self, mailbox: String) -> Result<Steps, Error> {
        let open = async |mut request: Request<v1::CheckMailboxRequest>| {
            // It would limit the whole stream.
            request.metadata_mut().remove("grpc-timeout");
            self.operator().check_mailbox(request).await
        };
        let stream = self.read(v1::CheckMailboxRequest { mailbox }, open).await?;
        Ok(Steps { client: self.clone(), stream })
    }

    /// Checks an incoming server, with the mailbox of this e-mail or (empty) without one.
    pub async fn check_incoming_server(&self, server: String, mailbox: String) -> Result<Steps, Error> {
        let open = async |mut request: Request<v1::CheckIncomingServerRequest>| {
            request.metadata_mut().remove("grpc-timeout");
            self.operator().check_incoming_server(request).await
        };
        let stream = self.read(v1::CheckIncomingServerRequest { server, mailbox }, open).await?;
        Ok(Steps { client: self.clone(), stream })
    }

    /// Checks an outgoing server, for mail from an address or (empty) without one.
    pub async fn check_outgoing_server(&self, server: String, from: String) -> Result<Steps, Error> {
        let open = async |mut request: Request<v1::CheckOutgoingServerRequest>| {
            request.metadata_mut().remove("grpc-timeout");
            self.operator().check_outgoing_server(request).await
        };
        let stream = self.read(v1::CheckOutgoingServerRequest { server, from }, open).await?;
        Ok(Steps { client: self.clone(), stream })
    }

    /// How the installation is doing.
    pub async fn get_status(&self) -> Result<v1::Status, Error> {
        self.read(v1::GetStatusRequest {}, async |r| self.operator().get_status(r).await).await
    }

    /// Which version the control plane is.
    pub async fn get_version(&self) -> Result<v1::Version, Error> {
        self.read(v1::GetVersionRequest {}, async |r| self.operator().get_version(r).await).await
    }

    /// Opens an answer in parts; `patience` is how long each part may take.
    async fn parts<Req: Clone, Part>(
        &self,
        request: Req,
        patience: Duration,
        call: impl AsyncFn(Request<Req>) -> Result<Response<tonic::Streaming<Part>>, Status>,
    ) -> Result<Parts<Part>, Error> {
        let open = async |mut request: Request<Req>| {
            // It would limit the whole stream, however long it is.
            request.metadata_mut().remove("grpc-timeout");
            call(request).await
        };
        let stream = self.read(request, open).await?;
        Ok(Parts { client: self.clone().with_deadline(patience), stream })
    }

    /// A backup of the installation, as a stream. Each answer of it has the deadline of a call.
    pub async fn create_backup(&self, include_key: bool) -> Result<BackupStream, Error> {
        let request = v1::CreateBackupRequest { include_key };
        let open = async |mut request: Request<v1::CreateBackupRequest>| {
            // It would limit the whole stream, however large the installation.
            request.metadata_mut().remove("grpc-timeout");
            self.backups().create_backup(request).await
        };
        let stream = self.read(request, open).await?;
        Ok(BackupStream { client: self.clone(), stream })
    }

    /// As [`read`](Self::read), for what is about a whole model.
    async fn model<Req: Clone, Res>(
        &self,
        request: Req,
        call: impl AsyncFn(Request<Req>) -> Result<Response<Res>, Status>,
    ) -> Result<Res, Error> {
        self.call(Repeat::Call, MODEL, request, call).await
    }

    async fn read<Req: Clone, Res>(
        &self,
        request: Req,
        call: impl AsyncFn(Request<Req>) -> Result<Response<Res>, Status>,
    ) -> Result<Res, Error> {
        self.call(Repeat::Call, Duration::ZERO, request, call).await
    }

    /// The one way to the control plane: every try has a deadline, and what may be repeated is.
    async fn call<Req: Clone, Res>(
        &self,
        repeat: Repeat,
        wait: Duration,
        request: Req,
        call: impl AsyncFn(Request<Req>) -> Result<Response<Res>, Status>,
    ) -> Result<Res, Error> {
        let deadline = self.deadline + wait;
        let mut tries = retry::Tries::new(repeat);
        loop {
            let mut attempt = Request::new(request.clone());
            // So that the other side stops too. Later than our own timer, because tonic watches this one as well.
            attempt.set_timeout(deadline + Duration::from_secs(1));
            let status = match self.within(deadline, call(attempt)).await? {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            match tries.delay_after(&status) {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(connect::classify(&self.endpoint, &status)),
            }
        }
    }

    /// Waits with our own timer: tonic's answers CANCELLED, which is something else.
    async fn within<T>(&self, deadline: Duration, future: impl Future<Output = T>) -> Result<T, Error> {
        let late = |_| Error::Deadline { endpoint: self.endpoint.clone(), seconds: deadline.as_secs() };
        tokio::time::timeout(deadline, future).await.map_err(late)
    }

    fn definitions(&self) -> DefinitionServiceClient<Authorized> {
        DefinitionServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_MODEL)
    }

    fn operator(&self) -> OperatorServiceClient<Authorized> {
        OperatorServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_ANSWER)
    }

    fn backups(&self) -> BackupServiceClient<Authorized> {
        BackupServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    fn contacts(&self) -> ContactServiceClient<Authorized> {
        ContactServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_ANSWER)
    }
}

/// The steps of a check as they come.
#[derive(Debug)]
pub struct Steps {
    client: Client,
    stream: tonic::Streaming<v1::CheckStep>,
}

impl Steps {
    /// The next step; `None` after the last. One may take as long as a whole check.
    pub async fn next(&mut self) -> Result<Option<v1::CheckStep>, Error> {
        let client = self.client.clone();
        match client.within(CHECK, self.stream.message()).await? {
            Ok(step) => Ok(step),
            Err(status) => Err(connect::classify(&client.endpoint, &status)),
        }
    }
}

/// An answer that comes in parts.
#[derive(Debug)]
pub struct Parts<T> {
    client: Client,
    stream: tonic::Streaming<T>,
}

impl<T> Parts<T> {
    /// The next part; `None` after the last. Each has the deadline of a call.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        let client = self.client.clone();
        let next = client.within(client.deadline, self.stream.message()).await?;
        next.map_err(|status| connect::classify(&client.endpoint, &status))
    }
}

/// A backup on its way here.
#[derive(Debug)]
pub struct BackupStream {
    client: Client,
    stream: tonic::Streaming<v1::CreateBackupResponse>,
}

impl BackupStream {
    /// What comes next; `None` at the end, which counts only behind [`v1::Backup`].
    pub async fn next(&mut self) -> Result<Option<v1::create_backup_response::Event>, Error> {
        let client = self.client.clone();
        loop {
            match client.within(client.deadline, self.stream.message()).await? {
                Ok(None) => return Ok(None),
                // What a newer control plane says besides is no matter.
                Ok(Some(answer)) if answer.event.is_none() => {}
                Ok(Some(answer)) => return Ok(answer.event),
                Err(status) => return Err(connect::classify(&client.endpoint, &status)),
            }
        }
    }
}

fn page_size(missing: Option<u32>) -> i32 {
    missing.unwrap_or(PAGE_SIZE).min(PAGE_SIZE).cast_signed()
}
