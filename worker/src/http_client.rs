//! HTTP to token endpoints and to Microsoft Graph: straight or by a proxy, without redirects, with bounded answers, and
//! with a word on whether a request that failed can have reached the server.
//!
//! Only this file knows reqwest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Request};
use tokio::time::{Instant, timeout_at};

use crate::diagnosis::{self, Diagnosis};
use crate::tls;

/// Largest answer that is read; what follows is left out.
const MAX_ANSWER: usize = 256 * 1024;

/// A client of one host.
#[derive(Debug, Clone)]
pub struct Client {
    client: reqwest::Client,
    host: String,
    proxy: String,
}

/// What a request carries.
pub struct Content {
    length: u64,
    parts: Box<dyn Iterator<Item = Bytes> + Send>,
    /// Whether it may still be sent, asked before each part.
    allowed: Box<dyn Fn() -> bool + Send>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Content {
    /// `length` bytes that are made as they are sent.
    pub fn made(length: u64, parts: impl Iterator<Item = Bytes> + Send + 'static) -> Self {
        Self { length, parts: Box::new(parts), allowed: Box::new(|| true) }
    }

    /// The same, broken off where this does not hold any more.
    pub fn while_allowed(self, allowed: impl Fn() -> bool + Send + 'static) -> Self {
        Self { allowed: Box::new(allowed), ..self }
    }

    /// How many bytes.
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::made(bytes.len() as u64, std::iter::once(Bytes::from(bytes)))
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    headers: HeaderMap,
    /// The body, or its beginning.
    pub body: Vec<u8>,
    /// Why the body broke off, where it did: what the status says holds all the same.
    pub cut: Option<Box<Diagnosis>>,
}

impl Answer {
    /// The text of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Cause and remedy.
    pub found: Diagnosis,
    /// All of the request was on its way: the server may have done what it asks for. False: it cannot have.
    pub left: bool,
}

impl Client {
    /// A client of `host`, by the proxy unless that is empty. `connecting`: longest wait for a connection. `plain` allows
    /// a server without TLS, for tests against a scripted one.
    pub fn new(
        tls: &Arc<rustls::ClientConfig>,
        host: &str,
        proxy: &str,
        connecting: Duration,
        plain: bool,
    ) -> Result<Self, Diagnosis> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.as_ref().clone())
            // A redirect could carry the secret elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .https_only(!plain)
            .connect_timeout(connecting)
            // The definition says by which proxy, or none: what the environment says holds for other programs.
            .no_proxy();
        if !proxy.is_empty() {
            // With `socks5h` the proxy looks the name up.
            let url = proxy.replacen("socks5://", "socks5h://", 1);
            let proxy = reqwest::Proxy::all(url);
            builder = builder.proxy(proxy.map_err(|error| diagnosis::proxy_invalid(&error.to_string()))?);
        }
        let client = builder.build().map_err(|error| diagnosis::defect(&error.to_string()))?;
        Ok(Self { client, host: host.to_owned(), proxy: proxy.to_owned() })
    }

    /// The host, for messages to people.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Sends a request once and waits for the answer, for `deadline` in all; an answer of which only the head came in that
    /// time is one, too. `purpose`: what it is for, behind "did not answer in time to".
    pub async fn exchange(
        &self,
        request: Request<Content>,
        deadline: Duration,
        purpose: &str,
    ) -> Result<Answer, Failed> {
        let left = Arc::new(AtomicBool::new(false));
        let (mut body, until) = (Vec::new(), Instant::now() + deadline);
        let late = || diagnosis::timed_out(&self.host, purpose);
        let explained = |error: &reqwest::Error| match error.is_timeout() {
            true => late(),
            false => tls::diagnose(&self.host, error).unwrap_or_else(|| self.not_reached(&chain(error))),
        };
        let (found, connected) = match timeout_at(until, self.send(request, left.clone())).await {
            Ok(Ok(mut response)) => {
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                let cut = match timeout_at(until, read(&mut response, &mut body)).await {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(Box::new(explained(&error))),
                    Err(_) => Some(Box::new(late())),
                };
                return Ok(Answer { status, headers, body, cut });
            }
            Ok(Err(error)) => (explained(&error), !error.is_connect()),
            Err(_) => (late(), true),
        };
        Err(Failed { found, left: connected && left.load(Ordering::SeqCst) })
    }

    /// Sends it and waits for the head of the answer.
    async fn send(
        &self,
        request: Request<Content>,
        left: Arc<AtomicBool>,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let (head, content) = request.into_parts();
        let Content { length, mut parts, allowed } = content;
        let mut headers = head.headers;
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        // Ordering: before the last bytes are handed to the connection, so that whatever happens then is not taken for
        // a request that cannot have arrived.
        let mut remaining = length;
        let mut next = move || {
            if !allowed() {
                return Some(Err(std::io::Error::other("it is too late to send this")));
            }
            let part = parts.next();
            remaining = remaining.saturating_sub(part.as_ref().map_or(0, Bytes::len) as u64);
            if remaining == 0 {
                left.store(true, Ordering::SeqCst);
            }
            part.map(Ok::<_, std::io::Error>)
        };
        let request = self.client.request(head.method, head.uri.to_string()).headers(headers);
        let request = match length {
            // Nobody asks for its content: once there is a connection it counts as on its way.
            0 => {
                next();
                request
            }
            _ => request.body(reqwest::Body::wrap_stream(stream::iter(std::iter::from_fn(next)))),
        };
        request.send().await
    }

    /// Who could not be reached: the host, its proxy, or the host by the proxy.
    fn not_reached(&self, detail: &str) -> Diagnosis {
        if self.proxy.is_empty() {
            return diagnosis::unreachable(&self.host, detail);
        }
        let refused = detail.contains("tunnel") || detail.to_lowercase().contains("socks");
        match refused && !detail.contains("underlying connection") {
            true => diagnosis::proxy_refused(&self.proxy, &self.host, detail),
            false => diagnosis::proxy_unreachable(&self.proxy, detail),
        }
    }
}

async fn read(response: &mut reqwest::Response, body: &mut Vec<u8>) -> Result<(), reqwest::Error> {
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(())
}

/// The texts of an error and of what caused it, without the URL.
fn chain(error: &dyn std::error::Error) -> String {
    let mut texts = Vec::new();
    let mut next = error.source();
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    texts.dedup();
    diagnosis::excerpt(&texts.join(": "), 300)
}
