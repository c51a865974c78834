//! Requests to Microsoft Graph for one mailbox: with a token that is renewed once, and answers in our own words.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use postroom_proto::catalogue::send;
use postroom_proto::v1::OutgoingDefinition;
use url::Url;

use crate::diagnosis::{self, Diagnosis, claims};
use crate::http_client::{self, Client, Content};
use crate::send::Sending;
use crate::send::claim::{Broken, Deadline};
use crate::send::smtp::sign_in::credential;
use crate::send::verdict::Fault;
use crate::send::verdict::graph::{self as verdict, Answer, Refused, Step};
use crate::token::{Credential, Token};

/// Longest wait for an answer to a request of a few kilobytes; each further megabyte adds as much as a slow line takes.
const ANSWER: Duration = Duration::from_secs(100);
const FOR_A_MEGABYTE: Duration = Duration::from_secs(20);
/// Bytes that are encoded at once.
const PIECE: usize = 48 * 1024;

/// What a request carries.
#[derive(Debug, Clone)]
pub(in crate::send) enum Body {
    None,
    Json(serde_json::Value),
    /// A mail, as base64 (RFC 4648 section 4) in text/plain.
    Mime(Bytes),
}

/// A 2xx.
#[derive(Debug)]
pub(in crate::send) struct Good {
    /// For people.
    pub(in crate::send) response: String,
    /// The body, `null` where it is no JSON.
    pub(in crate::send) body: serde_json::Value,
}

/// One mailbox at Graph.
pub(in crate::send) struct Api {
    sending: Sending,
    definition: OutgoingDefinition,
    credential: Credential,
    tls: Arc<rustls::ClientConfig>,
    client: Client,
    token: Token,
    user: Url,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("user", &self.user.as_str()).finish_non_exhaustive()
    }
}

impl Api {
    /// With a token; nothing is asked of Graph yet.
    pub(in crate::send) async fn open(sending: &Sending, definition: &OutgoingDefinition) -> Result<Self, Fault> {
        let credential = credential(definition)?;
        let token = sending.shared.broker.token(&credential).await.map_err(Fault::of_server)?.token;
        let (client, tls) = client(sending, definition).await?;
        let user = user(sending, definition)?;
        let (sending, definition) = (sending.clone(), definition.clone());
        Ok(Self { sending, definition, credential, tls, client, token, user })
    }

    /// A request below the mailbox. A token that is refused is renewed once, for it may only be stale.
    pub(in crate::send) async fn ask(
        &mut self,
        step: Step,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Body,
    ) -> Result<Good, Broken> {
        self.request(step, method, path, query, body, None).await
    }

    /// The request by which the mail leaves, which breaks off once the deadline is past.
    pub(in crate::send) async fn hand_over(
        &mut self,
        step: Step,
        path: &[&str],
        body: Body,
        deadline: Deadline,
    ) -> Result<Good, Broken> {
        self.request(step, Method::POST, path, &[], body, Some(deadline)).await
    }

    async fn request(
        &mut self,
        step: Step,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Body,
        deadline: Option<Deadline>,
    ) -> Result<Good, Broken> {
        let mut url = self.user.clone();
        // A URL of https can be a base.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        if !query.is_empty() {
            // Spaces as %20: OData takes a plus for a plus.
            let pairs: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
            url.set_query(Some(&pairs.join("&")));
        }
        let mut answer = self.once(step, &method, &url, &body, deadline).await?;
        let broker = &self.sending.shared.broker;
        if answer.0.status == 401 && broker.discard(&self.credential, &self.token, self.sending.renewed_from).await {
            self.token = broker.token(&self.credential).await.map_err(Fault::of_server)?.token;
            answer = self.once(step, &method, &url, &body, deadline).await?;
        }
        let (answer, raw) = answer;
        let id = raw.header("request-id").map(|id| format!(" (request {})", diagnosis::excerpt(id, 64)));
        self.judge(step, &answer)?;
        // Of what was handed over the status says all; anything else goes by what the body says.
        if let Some(found) = raw.cut.filter(|_| !step.is_sending()) {
            return Err(Fault::of_server(*found).into());
        }
        let body = serde_json::from_slice(&raw.body).unwrap_or_default();
        Ok(Good { response: format!("{answer}{}", id.unwrap_or_default()), body })
    }

    fn judge(&self, step: Step, answer: &Answer) -> Result<(), Broken> {
        if answer.is_ok() {
            return Ok(());
        }
        Err(match verdict::refused(step, answer) {
            Refused::Unknown(found) => Broken::Lost(Fault::of_server(found)),
            Refused::Fault(fault) if is_about_the_token(&fault) => {
                // Graph says that a right is missing; the token says which it has.
                let explained = |found: Diagnosis| {
                    let code = found.code.clone();
                    let found = claims::explain_sending(found, self.token.expose(), &self.definition);
                    let is_draft = matches!(step, Step::Prepare | Step::Draft);
                    if is_draft && found.code != code { with_read_write(found) } else { found }
                };
                fault.told(explained).into()
            }
            Refused::Fault(fault) => fault.into(),
        })
    }

    async fn once(
        &self,
        step: Step,
        method: &Method,
        url: &Url,
        body: &Body,
        deadline: Option<Deadline>,
    ) -> Result<(Answer, http_client::Answer), Broken> {
        let (media_type, content) = match body {
            Body::None => (None, Content::from(Vec::new())),
            Body::Json(value) => (Some("application/json"), Content::from(value.to_string().into_bytes())),
            Body::Mime(raw) => (Some("text/plain"), encoded(raw)),
        };
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", self.token.expose()))
            .map_err(|_| Fault::of_server(diagnosis::defect("a token has characters that no header can carry")))?;
        bearer.set_sensitive(true);
        let mut request = Request::builder()
            .method(method.clone())
            .uri(url.as_str())
            .header(AUTHORIZATION, bearer)
            // Ids that stay when a message is moved, as a draft is when it is sent.
            .header("Prefer", "IdType=\"ImmutableId\"");
        if let Some(media_type) = media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        let length = content.length();
        let is_late = move || deadline.is_some_and(|deadline| deadline.is_past());
        if is_late() {
            return Err(Broken::ClaimLost);
        }
        let content = content.while_allowed(move || !is_late());
        let request = request.body(content).map_err(|error| Fault::of_server(diagnosis::defect(&error.to_string())))?;
        match exchange(&self.client, request, length, step).await {
            // Broken off by ourselves: not all of it was handed over.
            Err(Broken::Fault(..)) if is_late() => Err(Broken::ClaimLost),
            answer => answer,
        }
    }

    /// One range of an upload, to the address that Graph named for it: another host, which must not see the token.
    pub(in crate::send) async fn put(
        &self,
        url: &str,
        piece: Bytes,
        from: u64,
        total: u64,
    ) -> Result<(Answer, http_client::Answer), Broken> {
        let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        let client = self.client_of(&host)?;
        let length = piece.len() as u64;
        let request = Request::builder()
            .method(Method::PUT)
            .uri(url)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("Content-Range", format!("bytes {from}-{}/{total}", (from + length).saturating_sub(1)))
            .body(Content::made(length, std::iter::once(piece)))
            .map_err(|error| Fault::of_server(diagnosis::defect(&error.to_string())))?;
        exchange(&client, request, length, Step::Draft).await
    }

    fn client_of(&self, host: &str) -> Result<Client, Fault> {
        let connecting = self.sending.shared.reading.connect_timeout;
        Client::new(&self.tls, host, &self.definition.proxy, connecting, self.sending.plain).map_err(Fault::of_server)
    }
}

async fn exchange(
    client: &Client,
    request: Request<Content>,
    length: u64,
    step: Step,
) -> Result<(Answer, http_client::Answer), Broken> {
    let megabytes = u32::try_from(length / 1_000_000).unwrap_or(u32::MAX);
    let deadline = ANSWER + FOR_A_MEGABYTE.saturating_mul(megabytes);
    match client.exchange(request, deadline, "answer a request").await {
        Ok(raw) => Ok((Answer::read(raw.status, raw.header("retry-after"), &raw.body), raw)),
        Err(failed) if step.is_sending() && failed.left => Err(Broken::Lost(Fault::of_server(failed.found))),
        Err(failed) => Err(Fault::of_server(failed.found).into()),
    }
}

async fn client(
    sending: &Sending,
    definition: &OutgoingDefinition,
) -> Result<(Client, Arc<rustls::ClientConfig>), Fault> {
    let tls = sending.shared.roots.client_config(&definition.ca_file).await;
    let tls = tls.map_err(|error| Fault::of_server(error.diagnosis()))?;
    let connecting = sending.shared.reading.connect_timeout;
    let client = Client::new(&tls, &definition.host, &definition.proxy, connecting, sending.plain);
    Ok((client.map_err(Fault::of_server)?, tls))
}

/// `https://<host>/v1.0/users/<user>`.
fn user(sending: &Sending, definition: &OutgoingDefinition) -> Result<Url, Fault> {
    let scheme = if sending.plain { "http" } else { "https" };
    let port = match definition.port {
        0 | 443 => String::new(),
        port => format!(":{port}"),
    };
    let invalid = || Fault::of_server(diagnosis::host_invalid(&definition.host));
    let mut url = Url::parse(&format!("{scheme}://{}{port}/v1.0/users", definition.host)).map_err(|_| invalid())?;
    url.path_segments_mut().map_err(|()| invalid())?.push(&definition.user);
    Ok(url)
}

fn escaped(value: &str) -> String {
    url::form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>().replace('+', "%20")
}

fn encoded(raw: &Bytes) -> Content {
    let raw = raw.clone();
    let length = raw.len().div_ceil(3) * 4;
    let pieces = (0..raw.len()).step_by(PIECE).map(move |at| {
        let end = raw.len().min(at + PIECE);
        Bytes::from(BASE64.encode(&raw[at..end]))
    });
    Content::made(length as u64, pieces)
}

fn is_about_the_token(fault: &Fault) -> bool {
    [&send::GRAPH_TOKEN_REFUSED, &send::GRAPH_ACCESS_DENIED].iter().any(|entry| entry.code() == fault.found.code)
}

/// A draft needs another right than what is sent.
fn with_read_write(found: Diagnosis) -> Diagnosis {
    let remedy = format!("{}; a mail that is made a draft first needs Mail.ReadWrite, too", found.remedy);
    found.mended_by(remedy)
}
