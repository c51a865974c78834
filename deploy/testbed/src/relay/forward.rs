//! The wire: HTTP/2 in, HTTP/2 out, frame by frame; whole messages only for calls that are lost or held.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header, uri};
use http_body_util::{BodyExt, Collected};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Answer, Loss, Shared,
    rules::{Fate, Gate},
};

const UNAVAILABLE: u32 = 14;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
struct Forwarder {
    shared: Arc<Shared>,
    client: Client<HttpConnector, Body>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

pub(super) fn run(listener: TcpListener, shared: Arc<Shared>, stop: &CancellationToken, tasks: &TaskTracker) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
    let forwarder = Forwarder { shared, client, tasks: tasks.clone(), stop: stop.clone() };
    let (stop, connections) = (stop.clone(), tasks.clone());
    tasks.spawn(async move {
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let Ok((tcp, _)) = accepted else {
                // Out of file descriptors, most likely: the connections that end give some back.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let _ = tcp.set_nodelay(true);
            let (forwarder, stop) = (forwarder.clone(), stop.clone());
            connections.spawn(async move {
                let service = service_fn(move |request| forwarder.clone().answer(request));
                let connection = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(tcp), service);
                stop.run_until_cancelled(connection).await
            });
        }
    });
    tasks.close();
}

impl Forwarder {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let path = request.uri().path().to_owned();
        let fate = {
            let mut state = self.shared.state();
            let fate = state.rules.decide(&path);
            let calls = state.calls.entry(path).or_default();
            calls.seen += 1;
            calls.lost += u64::from(fate.loss.is_some());
            fate
        };
        if fate.gate.is_none() && fate.loss.is_none() {
            return Ok(self.forward(request.map(Body::new)).await.unwrap_or_else(|_| unavailable()));
        }
        // Invariant: a call that is held or lost is executed even when its client gives up, so a task owns it.
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let stop = self.stop.clone();
        self.tasks.clone().spawn(async move {
            let executed = self.execute(Request::from_parts(parts, body), fate);
            if let Some(response) = stop.run_until_cancelled(executed).await {
                // A client that has gone does not want it.
                let _ = sender.send(response);
            }
        });
        receiver.await?
    }

    /// Waits at the gate, forwards, reads the whole answer, and loses it when it is to be lost.
    async fn execute(self, request: Request<Bytes>, fate: Fate) -> Result<Response<Body>, Failure> {
        if let Some(gate) = &fate.gate {
            gate.arrived.send_modify(|arrived| *arrived += 1);
            gate.open.cancelled().await;
        }
        let response = match self.forward(request.map(Body::from)).await {
            Ok(response) => response,
            Err(_) => unavailable(),
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await?;
        if let Some(gate) = &fate.gate {
            note(gate, &parts.headers, &body);
        }
        match fate.loss {
            None => Ok(Response::from_parts(parts, Body::new(body))),
            Some(Loss::Unavailable) => Ok(unavailable()),
            Some(Loss::Cut) => Err("the answer was lost".into()),
        }
    }

    async fn forward(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let (mut parts, body) = request.into_parts();
        let upstream = self.shared.state().upstream;
        let mut target = uri::Parts::default();
        target.scheme = Some(uri::Scheme::HTTP);
        target.authority = Some(upstream.to_string().parse()?);
        target.path_and_query = parts.uri.path_and_query().cloned();
        parts.uri = Uri::from_parts(target)?;
        parts.headers.remove(header::HOST);
        Ok(self.client.request(Request::from_parts(parts, body)).await?.map(Body::new))
    }
}

/// An answer without a body whose trailers are its headers.
fn unavailable() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", UNAVAILABLE.into());
    response
}

fn note(gate: &Gate, headers: &HeaderMap, body: &Collected<Bytes>) {
    let field = |name: &str| {
        let value = body.trailers().and_then(|trailers| trailers.get(name)).or_else(|| headers.get(name));
        value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    // 2 is UNKNOWN: what gRPC makes of an answer without a status.
    let answer = Answer { status: field("grpc-status").parse().unwrap_or(2), message: field("grpc-message") };
    gate.answers.send_modify(|answers| answers.push(answer));
}
