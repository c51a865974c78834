//! An office for the tests: mailboxes that send, what they send by, and the outbox as an instance sees it.

use std::time::Duration;

use bytes::Bytes;
use postroom_cli::client::Client;
use postroom_cli::context::Context;
use postroom_proto::v1;
use postroom_proto::v1::compose_request::Part;
use postroom_proto::v1::outbox_service_client::OutboxServiceClient;
use postroom_testbed::dovecot::SENT_ITEMS;
use postroom_testbed::{Exchange, TENANT_ID, Testbed};
use secrecy::ExposeSecret as _;
use tokio_stream::StreamExt as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::control_plane::ControlPlane;
use crate::harness::{INSTANCE, PATIENCE, Stage, Up, accept, eventually, take};

/// Who writes to everybody here, and is answered.
pub(crate) const ANNA: &str = "anna@customer.example";
/// Largest part of an attachment in one request.
const CHUNK: usize = 256 * 1024;

/// How a mailbox sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// SMTP behind the front that answers as Exchange does, STARTTLS, XOAUTH2.
    Smtp,
    /// The same, but nobody keeps a copy that could be looked for.
    SmtpWithoutCopy,
    /// SMTP over TLS from the first byte, XOAUTH2.
    Smtps,
    /// SMTP with user name and password.
    Password,
    /// A relay that wants no sign-in.
    Relay,
    /// Microsoft Graph, by the GUID of the mailbox.
    Graph,
}

/// Servers, and a place for an installation.
pub(crate) struct Office {
    pub(crate) stage: Stage,
    senders: Vec<(String, By)>,
}

impl Office {
    /// An office whose mailboxes send so.
    pub(crate) async fn open(senders: &[(&str, By)]) -> Self {
        let stage = Stage::set().await;
        let senders = senders.iter().map(|(mailbox, by)| ((*mailbox).to_owned(), *by)).collect();
        let office = Self { stage, senders };
        std::fs::write(office.stage.model_file(), office.model().await).unwrap();
        office
    }

    pub(crate) fn bed(&self) -> &Testbed {
        &self.stage.testbed
    }

    pub(crate) async fn exchange(&self) -> &Exchange {
        self.bed().exchange().await.unwrap()
    }

    /// A model with one queue of all mailboxes, each of which may send.
    pub(crate) async fn model(&self) -> String {
        let bed = self.bed();
        let (authority, ca) = (bed.tenant.authority(), serde_json::json!(bed.ca_file()));
        let secret = serde_json::json!(self.stage.secret());
        let (client_id, host, imap) = (&bed.service().client_id, bed.host(), bed.imap_port());
        let mut model = format!(
            "instances:
  - {{name: {INSTANCE}}}
incomingServers:
  - {{name: Entra, address: {authority:?}, authentication: oauth-service, clientId: {client_id},
     secret: {{value: {secret}}}, imap: {{host: {host}, port: {imap}}}, caFile: {ca}}}
outgoingServers:
"
        );
        for (mailbox, by) in &self.senders {
            model.push_str(&format!("  - {{name: {}, {}}}\n", server_of(mailbox), self.outgoing(mailbox, *by).await));
        }
        model.push_str(&format!("queues:\n  - name: Office\n    instance: {INSTANCE}\n    addresses:\n"));
        for (mailbox, _) in &self.senders {
            model.push_str(&format!("      - {{email: {mailbox}, server: Entra, sender: true}}\n"));
        }
        model
    }

    /// What the model says of the outgoing server of a mailbox, beside its name.
    async fn outgoing(&self, mailbox: &str, by: By) -> String {
        let bed = self.bed();
        let ca = serde_json::json!(bed.ca_file());
        let oauth = format!("server: {TENANT_ID}, authentication: oauth-service, registration: Entra");
        match by {
            By::Smtp | By::SmtpWithoutCopy => {
                let port = self.exchange().await.submission_addr().port();
                let copy = if by == By::Smtp { "server" } else { "none" };
                format!("{oauth}, user: {mailbox}, smtp: {{host: 127.0.0.1, port: {port}}}, sentCopy: {copy}")
            }
            By::Smtps => {
                let port = self.exchange().await.submissions_addr().port();
                format!("{oauth}, user: {mailbox}, smtp: {{host: 127.0.0.1, port: {port}, security: tls}}")
            }
            By::Password => {
                let port = self.exchange().await.submission_addr().port();
                let password = serde_json::json!(bed.dovecot.password());
                format!(
                    "server: \"127.0.0.1:{port}\", authentication: password, user: {mailbox}, \
                     password: {{value: {password}}}, caFile: {ca}"
                )
            }
            By::Relay => {
                let port = bed.postfix().await.unwrap().open_addr().port();
                format!("server: \"127.0.0.1:{port}\", authentication: none, smtp: {{security: none}}")
            }
            By::Graph => {
                let (guid, host) = (bed.tenant.object_id(mailbox), bed.graph().await.unwrap().addr());
                let scope = postroom_testbed::GRAPH_SCOPE;
                format!("{oauth}, user: {guid}, graphHost: \"{host}\", scope: {scope:?}")
            }
        }
    }

    /// A control plane that has the model.
    pub(crate) async fn plane(&self, listen: &str, settings: &[&str]) -> ControlPlane {
        let plane = self.bare_plane(listen, settings).await;
        plane.apply(&self.model().await).await;
        plane
    }

    /// The same over what it had.
    pub(crate) async fn bare_plane(&self, listen: &str, settings: &[&str]) -> ControlPlane {
        let terms = ["--listen", listen, "--lease-heartbeat=300ms", "--lease-leader-ttl=1s", "--lease-margin=500ms"];
        let args = [&terms[..], &["--lease-ttl=5s"], settings].concat();
        ControlPlane::launch(self.stage.folder.path(), &self.stage.data(), "control-plane.log", &args).await
    }

    /// How often a mail lies in a mailbox's INBOX.
    pub(crate) async fn arrived(&self, mailbox: &str, message_id: &str) -> usize {
        self.bed().dovecot.count_by_id(mailbox, "INBOX", message_id).await.unwrap()
    }

    /// Waits until a mail lies in a mailbox's INBOX.
    pub(crate) async fn arrives(&self, mailbox: &str, message_id: &str) {
        eventually(&format!("{message_id} arrives at {mailbox}"), || async {
            self.arrived(mailbox, message_id).await > 0
        })
        .await;
    }

    /// How often a mail lies in a mailbox's Sent Items.
    pub(crate) async fn kept(&self, mailbox: &str, message_id: &str) -> usize {
        self.bed().dovecot.count_by_id(mailbox, SENT_ITEMS, message_id).await.unwrap()
    }
}

/// The name of the outgoing server of a mailbox.
pub(crate) fn server_of(mailbox: &str) -> String {
    format!("out-{}", mailbox.split('@').next().unwrap())
}

/// The outbox of an installation.
#[derive(Clone)]
pub(crate) struct Outbox {
    client: OutboxServiceClient<InterceptedService<Channel, Bearer>>,
}

#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A file that goes along with a mail.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) media_type: String,
    pub(crate) content_id: String,
    pub(crate) content: Vec<u8>,
}

impl Outbox {
    /// That of `postroom up`, as an admin.
    pub(crate) fn of_up(up: &Up) -> Self {
        Self::of(&Context::read(up.data()).unwrap())
    }

    /// As an admin.
    pub(crate) fn of(context: &Context) -> Self {
        let channel = Endpoint::from_shared(context.endpoint.clone()).unwrap().connect_lazy();
        let bearer = Bearer(format!("Bearer {}", context.token.expose_secret()).parse().unwrap());
        Self { client: OutboxServiceClient::with_interceptor(channel, bearer) }
    }

    /// Sends a mail that answers no contact.
    pub(crate) async fn send(&self, draft: v1::Draft, files: &[File]) -> Result<v1::OutboxMail, Status> {
        let sent = self.client.clone().send(tokio_stream::iter(parts(draft, files))).await?;
        Ok(sent.into_inner())
    }

    /// Answers a contact.
    pub(crate) async fn reply(&self, draft: v1::Draft, files: &[File]) -> Result<v1::OutboxMail, Status> {
        let sent = self.client.clone().reply(tokio_stream::iter(parts(draft, files))).await?;
        Ok(sent.into_inner())
    }

    pub(crate) async fn get(&self, mail: &str) -> v1::OutboxMail {
        // A control plane that restarts answers again soon.
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            match self.client.clone().get_outbox_mail(v1::GetOutboxMailRequest { mail: mail.into() }).await {
                Ok(found) => return found.into_inner(),
                Err(error) => assert!(tokio::time::Instant::now() < until, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// All mails in these states.
    pub(crate) async fn list(&self, states: &[v1::OutboxState]) -> Vec<v1::OutboxMail> {
        let mut found = Vec::new();
        let mut request = v1::ListOutboxRequest {
            states: states.iter().map(|state| (*state).into()).collect(),
            page_size: 1000,
            ..Default::default()
        };
        loop {
            let page = self.client.clone().list_outbox(request.clone()).await.unwrap().into_inner();
            found.extend(page.mails);
            if page.next_page_token.is_empty() {
                return found;
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Waits until a mail is in this state, and returns it.
    pub(crate) async fn becomes(&self, mail: &str, state: v1::OutboxState) -> v1::OutboxMail {
        self.until(mail, &format!("{state:?}"), |found| found.state() == state).await
    }

    /// Waits until this holds for a mail, and returns it.
    pub(crate) async fn until(
        &self,
        mail: &str,
        what: &str,
        holds: impl Fn(&v1::OutboxMail) -> bool,
    ) -> v1::OutboxMail {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let found = self.get(mail).await;
            if holds(&found) {
                return found;
            }
            assert!(tokio::time::Instant::now() < until, "not {what} within {PATIENCE:?}: {found:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn retry(&self, mail: &str, may_arrive_twice: bool) -> Result<v1::OutboxMail, Status> {
        let request = v1::RetryOutboxMailRequest { mail: mail.into(), may_arrive_twice };
        Ok(self.client.clone().retry_outbox_mail(request).await?.into_inner())
    }

    pub(crate) async fn cancel(&self, mail: &str) -> Result<v1::OutboxMail, Status> {
        let request = v1::CancelOutboxMailRequest { mail: mail.into() };
        Ok(self.client.clone().cancel_outbox_mail(request).await?.into_inner())
    }

    pub(crate) async fn confirm(&self, mail: &str) -> Result<v1::OutboxMail, Status> {
        let request = v1::ConfirmOutboxMailRequest { mail: mail.into() };
        Ok(self.client.clone().confirm_outbox_mail(request).await?.into_inner())
    }

    /// The mail as it is sent.
    pub(crate) async fn raw(&self, mail: &str) -> Vec<u8> {
        let request = v1::GetOutboxRawRequest { mail: mail.into() };
        let mut chunks = self.client.clone().get_outbox_raw(request).await.unwrap().into_inner();
        let mut raw = Vec::new();
        while let Some(chunk) = chunks.next().await {
            raw.extend_from_slice(&chunk.unwrap().data);
        }
        raw
    }

    /// A watch of the instance's mails.
    pub(crate) async fn watch(&self) -> Watch {
        let request = v1::WatchOutboxRequest { instance: INSTANCE.into(), from_revision: 0 };
        Watch(self.client.clone().watch_outbox(request).await.unwrap().into_inner())
    }
}

/// What is told of an instance's mails.
pub(crate) struct Watch(tonic::Streaming<v1::WatchOutboxResponse>);

impl Watch {
    /// Waits until it tells of a mail in this state.
    pub(crate) async fn tells(mut self, mail: &str, state: v1::OutboxState) -> v1::OutboxMail {
        let found = async {
            while let Some(told) = self.0.next().await {
                let found = told.unwrap().mail.filter(|found| found.id == mail && found.state() == state);
                if let Some(found) = found {
                    return found;
                }
            }
            panic!("the watch ended");
        };
        tokio::time::timeout(PATIENCE, found).await.expect("the watch tells of it")
    }
}

/// Waits for a contact, and takes it into custody.
pub(crate) async fn next_contact(client: &Client) -> v1::Contact {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(taken) = take(client, 1, Duration::from_secs(20)).await.pop() {
            accept(client, std::slice::from_ref(&taken)).await;
            return taken;
        }
        assert!(tokio::time::Instant::now() < until, "no contact within {PATIENCE:?}");
    }
}

/// A mail from a mailbox to somebody.
pub(crate) fn draft(from: &str, to: &[&str], subject: &str) -> v1::Draft {
    v1::Draft {
        instance: INSTANCE.into(),
        request_id: uuid::Uuid::new_v4().to_string(),
        from: Some(address(from)),
        to: to.iter().map(|to| address(to)).collect(),
        subject: subject.into(),
        text: "Good morning,\n\nyour parcel is here.\n".into(),
        ..Default::default()
    }
}

pub(crate) fn address(address: &str) -> v1::EmailAddress {
    v1::EmailAddress { name: String::new(), address: address.into() }
}

fn parts(draft: v1::Draft, files: &[File]) -> Vec<v1::ComposeRequest> {
    let mut parts = vec![Part::Draft(draft)];
    for file in files {
        parts.push(Part::Attachment(v1::DraftAttachment {
            name: file.name.clone(),
            media_type: file.media_type.clone(),
            content_id: file.content_id.clone(),
            size_bytes: file.content.len() as u64,
        }));
        parts.extend(file.content.chunks(CHUNK).map(|chunk| Part::Chunk(Bytes::copy_from_slice(chunk))));
    }
    parts.into_iter().map(|part| v1::ComposeRequest { part: Some(part) }).collect()
}
