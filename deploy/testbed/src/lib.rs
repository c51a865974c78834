//! Real mail servers and a local tenant, started and stopped by tests, by the quickstart and by operators who rehearse
//! faults: a [`Dovecot`] that speaks Microsoft 365's sign-in, a [`Cyrus`] that knows passwords alone, a [`Postfix`] that
//! sends as Dovecot signs in, an [`Exchange`] before it that answers as Exchange Online does, a [`Tenant`] whose token
//! endpoint behaves as Entra's, a [`Graph`] that sends, a [`Relay`] that loses or delays gRPC calls, a [`Link`] that can be
//! cut, a [`Front`] that speaks for the mail server where Exchange differs, a [`Proxy`], a [`Bucket`] of a server that
//! speaks S3, a [`Prometheus`], a [`Collector`] of traces, and an [`Etcd`] whose members can be killed, frozen and set
//! back. Nothing listens beyond loopback, and everything ends with the value that stands for it.
//!
//! ```no_run
//! # async fn example() -> postroom_testbed::Result<()> {
//! let testbed = postroom_testbed::Testbed::start().await?;
//! testbed.deliver(&postroom_testbed::Mail::to("billing@contoso.example").subject("Invoice 17")).await?;
//! assert_eq!(testbed.dovecot.count_unseen("billing@contoso.example", "INBOX").await?, 1);
//! # Ok(())
//! # }
//! ```

pub mod authority;
pub mod bucket;
pub mod collector;
pub mod cyrus;
pub mod dovecot;
mod error;
pub mod etcd;
pub mod exchange;
mod file;
pub mod front;
pub mod graph;
pub mod imap;
pub mod link;
pub mod lmtp;
pub mod mail;
pub mod port;
pub mod postfix;
mod process;
pub mod prometheus;
pub mod proxy;
pub mod relay;
mod sasl;
mod script;
pub mod tenant;
mod wait;
mod web;

use std::{path::Path, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{OnceCell, Semaphore};
use uuid::Uuid;

pub use self::{
    authority::Authority,
    bucket::Bucket,
    collector::Collector,
    cyrus::Cyrus,
    dovecot::Dovecot,
    error::{Error, Result},
    etcd::Etcd,
    exchange::Exchange,
    front::Front,
    graph::Graph,
    link::Link,
    lmtp::Delivery,
    mail::Mail,
    postfix::Postfix,
    prometheus::Prometheus,
    proxy::Proxy,
    relay::Relay,
    script::Stall,
    tenant::Tenant,
};

/// GUID of the tenant.
pub const TENANT_ID: &str = "7e57bed0-1c1e-4a11-9b0d-0c0ffee0ca11";
/// Domain of the tenant.
pub const DOMAIN: &str = "contoso.example";
/// Scope that an incoming server asks for with OAuth Service.
pub const APP_SCOPE: &str = "https://outlook.office365.com/.default";
/// Scope that an incoming server asks for with OAuth User.
pub const USER_SCOPE: &str = "https://outlook.office.com/IMAP.AccessAsUser.All";
/// Scope that an outgoing server asks for with OAuth User to send by SMTP; with OAuth Service it is [`APP_SCOPE`].
pub const SMTP_USER_SCOPE: &str = "https://outlook.office.com/SMTP.Send";
/// Scope that an outgoing server asks for to send by Graph.
pub const GRAPH_SCOPE: &str = "https://graph.microsoft.com/.default";

/// LMTP connections that are open at once.
const DELIVERIES_AT_ONCE: usize = 4;

/// Messages that [`Testbed::fill`] puts into a mailbox in one transaction.
const FILLED_AT_ONCE: usize = 500;

/// A tenant and a Dovecot that trusts its tokens, with one application for each kind of sign-in. What sends mail is
/// started when it is asked for.
///
/// Dropping it stops everything and removes all mail.
#[derive(Debug)]
pub struct Testbed {
    // Ordering: fields drop from top to bottom; those who deliver end before Dovecot does.
    exchange: OnceCell<Exchange>,
    postfix: OnceCell<Postfix>,
    graph: OnceCell<Graph>,
    front: OnceCell<Front>,
    /// The tenant.
    pub tenant: Tenant,
    /// The IMAP and LMTP server.
    pub dovecot: Dovecot,
    service: App,
    user: App,
    deliveries: Arc<Semaphore>,
}

/// An application of the tenant.
#[derive(Clone)]
pub struct App {
    /// Application (client) id.
    pub client_id: String,
    /// Client secret at the start; absent for a public client.
    pub secret: Option<String>,
}

impl Testbed {
    /// Starts everything on free loopback ports and waits until it answers.
    pub async fn start() -> Result<Self> {
        Self::start_with(dovecot::Options::default()).await
    }

    /// Starts everything with another Dovecot.
    pub async fn start_with(options: dovecot::Options) -> Result<Self> {
        let key: Vec<u8> = [Uuid::new_v4(), Uuid::new_v4()].iter().flat_map(|part| *part.as_bytes()).collect();
        let dovecot = Dovecot::start(&key, options).await?;
        let tenant = Tenant::start(dovecot.authority(), &key, TENANT_ID, DOMAIN).await?;
        let service =
            App { client_id: Uuid::new_v4().to_string(), secret: Some(format!("s~{}", Uuid::new_v4().simple())) };
        let user = App { client_id: Uuid::new_v4().to_string(), secret: None };
        for app in [&service, &user] {
            tenant.add_client(&app.client_id, app.secret.as_deref());
        }
        let deliveries = Arc::new(Semaphore::new(DELIVERIES_AT_ONCE));
        let (exchange, postfix, graph) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        let front = OnceCell::new();
        Ok(Self { exchange, postfix, graph, front, tenant, dovecot, service, user, deliveries })
    }

    /// The SMTP server, started by the first who asks.
    ///
    /// # Errors
    /// [`Error::NotRoot`], and what else [`Postfix::start`] says.
    pub async fn postfix(&self) -> Result<&Postfix> {
        self.postfix_with(&postfix::Options::default()).await
    }

    /// The same; it has these options if nobody has asked for it before.
    pub async fn postfix_with(&self, options: &postfix::Options) -> Result<&Postfix> {
        self.postfix.get_or_try_init(|| Postfix::start(&self.dovecot, options)).await
    }

    /// The SMTP server behind a front that answers as Exchange Online does, started by the first who asks.
    pub async fn exchange(&self) -> Result<&Exchange> {
        let upstream = self.postfix().await?.submissions_addr();
        self.exchange.get_or_try_init(|| Exchange::start(upstream, self.dovecot.authority())).await
    }

    /// The stand-in for Microsoft Graph, started by the first who asks.
    pub async fn graph(&self) -> Result<&Graph> {
        self.graph.get_or_try_init(|| Graph::start(&self.tenant, &self.dovecot)).await
    }

    /// A front before the IMAP server, started by the first who asks.
    pub async fn front(&self) -> Result<&Front> {
        self.front.get_or_try_init(|| Front::start(self.dovecot.imap_addr(), self.dovecot.authority())).await
    }

    /// The front before the IMAP server, when somebody has asked for it.
    pub fn running_front(&self) -> Option<&Front> {
        self.front.get()
    }

    /// The front before the SMTP server, when somebody has asked for it.
    pub fn running_exchange(&self) -> Option<&Exchange> {
        self.exchange.get()
    }

    /// The stand-in for Microsoft Graph, when somebody has asked for it.
    pub fn running_graph(&self) -> Option<&Graph> {
        self.graph.get()
    }

    /// The application for OAuth Service: confidential, with a secret.
    pub fn service(&self) -> &App {
        &self.service
    }

    /// The application for OAuth User: public.
    pub fn user(&self) -> &App {
        &self.user
    }

    /// The certificate that clients of the tenant and of Dovecot have to trust, as PEM.
    pub fn ca_file(&self) -> &Path {
        self.dovecot.authority().ca_file()
    }

    /// Host that the IMAP server and the token endpoint are reached by.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// TCP port of IMAP over TLS.
    pub fn imap_port(&self) -> u16 {
        self.dovecot.imap_addr().port()
    }

    /// Delivers one message. Any number of callers may do so at once.
    pub async fn deliver(&self, mail: &Mail) -> Result<()> {
        self.deliver_in_order(vec![mail.delivery()]).await
    }

    /// Delivers messages one after the other over one connection: they lie in the mailbox in this order.
    pub async fn deliver_in_order(&self, deliveries: Vec<Delivery>) -> Result<()> {
        // The semaphore is never closed.
        let _permit = self.deliveries.acquire().await;
        lmtp::Client::connect(self.dovecot.lmtp_addr()).await?.deliver(deliveries).await
    }

    /// Delivers messages as fast as possible over several connections, in no particular order.
    pub async fn deliver_all(&self, deliveries: Vec<Delivery>) -> Result<()> {
        let share = deliveries.len().div_ceil(DELIVERIES_AT_ONCE).max(1);
        let shares: Vec<Vec<Delivery>> = deliveries.chunks(share).map(<[Delivery]>::to_vec).collect();
        stream::iter(shares.into_iter().map(|share| self.deliver_in_order(share)))
            .buffer_unordered(DELIVERIES_AT_ONCE)
            .try_collect()
            .await
    }

    /// Puts messages into a mailbox's INBOX by IMAP, in their order: many times faster than a delivery of each.
    pub async fn fill(&self, mailbox: &str, messages: &[Vec<u8>]) -> Result<()> {
        let mut client = imap::Client::connect(self.dovecot.imap_addr(), self.dovecot.authority()).await?;
        client.sign_in_with_password(mailbox, self.dovecot.password()).await?;
        for some in messages.chunks(FILLED_AT_ONCE) {
            client.append("INBOX", some.iter().map(Vec::as_slice)).await?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}
