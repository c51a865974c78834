//! The listener beside the services of a process: `/metrics`, `/live` and `/ready` over HTTP.
//!
//! It has a thread and a runtime of its own, so that it answers while that of the process is busy, and can say so.
//! Nothing here is secret, but metrics name mailboxes: it listens on loopback unless it is told otherwise.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::metric;

mod health;

pub use health::Health;

/// Most connections at one time; whoever comes then waits.
const CONNECTIONS: usize = 32;
/// Longest time for a request to arrive.
const REQUEST: Duration = Duration::from_secs(5);
/// Longest time for a connection, which carries one request.
const CONNECTION: Duration = Duration::from_secs(30);
/// Pause after a connection could not be accepted, as when the process has too many files open.
const AGAIN: Duration = Duration::from_millis(100);

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Listen {
    /// Nowhere.
    #[default]
    Off,
    /// Here, or not at all when somebody else does: nobody asked for it.
    Perhaps(SocketAddr),
    /// Here.
    At(SocketAddr),
}

impl Listen {
    /// As a setting says it: an address, or `off`.
    pub fn parse(text: &str) -> Result<Option<SocketAddr>, String> {
        match text {
            "off" => Ok(None),
            address => address
                .parse()
                .map(Some)
                .map_err(|_| format!("{text:?} is no address; write one such as 127.0.0.1:7431 or [::]:7431, or off")),
        }
    }

    /// What a setting makes. `asked`: somebody said it, it is not the default.
    pub fn of(address: Option<SocketAddr>, asked: bool) -> Self {
        match address {
            None => Self::Off,
            Some(address) if asked => Self::At(address),
            Some(address) => Self::Perhaps(address),
        }
    }
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for metrics and health; it may be in use: name another in observe.listen, or off")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// The running listener. It ends when it is dropped.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens, and answers from now on. `None`: it is off, or was not asked for and somebody else listens there.
    pub fn start(listen: Listen, health: Health) -> Result<Option<Self>, ListenError> {
        let (address, asked) = match listen {
            Listen::Off => return Ok(None),
            Listen::Perhaps(address) => (address, false),
            Listen::At(address) => (address, true),
        };
        match Self::bind(address, health) {
            Ok(listener) => {
                tracing::info!(address = %listener.address, "metrics and health are served");
                Ok(Some(listener))
            }
            Err(error) if !asked && error.kind() == io::ErrorKind::AddrInUse => {
                tracing::warn!(%address, "metrics and health are not served: the address is in use; name another in observe.listen");
                Ok(None)
            }
            Err(source) => Err(ListenError { address, source }),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn bind(address: SocketAddr, health: Health) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("observe".into()).spawn(move || {
            runtime.block_on(async {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => serve(listener, health, stopped).await,
                    Err(error) => tracing::error!(%error, "metrics and health are not served"),
                }
            });
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It ends at once: what is under way is cut off.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: tokio::net::TcpListener, health: Health, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(timeout(CONNECTION, answer(stream, health.clone())))),
                Err(_) => sleep(AGAIN).await,
            },
        }
    }
}

async fn answer(stream: TcpStream, health: Health) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &health);
        async move { Ok::<_, Infallible>(response) }
    });
    // Whoever breaks off asks again.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn respond(method: &Method, path: &str, health: &Health) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n".into());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => {
            let mut response = text(StatusCode::OK, metric::render());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metric::MEDIA_TYPE));
            response
        }
        "/live" => told("live", health.unwell()),
        "/ready" => told("ready", health.unready()),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /live and /ready\n".into()),
    }
}

/// Yes, or no with the reasons, one a line.
fn told(what: &str, reasons: Vec<String>) -> Response<Full<Bytes>> {
    if reasons.is_empty() {
        return text(StatusCode::OK, format!("{what}\n"));
    }
    text(StatusCode::SERVICE_UNAVAILABLE, format!("not {what}\n{}\n", reasons.join("\n")))
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests;
