//! HTTP before the server: passes on, or answers in its place as a busy or broken one does.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio_util::sync::CancellationToken;

use crate::{error::Result, web};

/// What becomes of a request in place of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 503 `SlowDown`, as S3 says when it is asked too much.
    SlowDown,
    /// 500 `InternalError`.
    Internal,
    /// It is done, and the answer is lost: 500 comes in its place.
    Lost,
    /// 404 `NoSuchBucket`.
    NoBucket,
}

#[derive(Debug)]
pub(super) struct Front {
    shared: Arc<Shared>,
    addr: SocketAddr,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    client: Client<HttpConnector, Body>,
    state: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    faults: VecDeque<(String, Fault)>,
    requests: Vec<String>,
}

impl Front {
    pub(super) async fn start(upstream: SocketAddr) -> Result<Self> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let shared = Arc::new(Shared { upstream, client, state: Mutex::default() });
        let (listener, addr) = web::bind().await?;
        let stop = CancellationToken::new();
        let router = Router::new().fallback(serve).with_state(Arc::clone(&shared));
        let told = stop.clone();
        tokio::spawn(async move {
            let serving = axum::serve(listener, router);
            if let Some(Err(error)) = told.run_until_cancelled(async { serving.await }).await {
                tracing::debug!(%error, "the front before a bucket ended");
            }
        });
        Ok(Self { shared, addr, stop })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn fail(&self, count: usize, method: &str, fault: Fault) {
        self.shared.script().faults.extend(std::iter::repeat_n((method.to_owned(), fault), count));
    }

    pub(super) fn heal(&self) {
        self.shared.script().faults.clear();
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.shared.script().requests.clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the request down, and takes the fault that is meant for it.
    fn fault_of(&self, request: &Request) -> Option<Fault> {
        let mut script = self.script();
        let method = request.method().as_str();
        script.requests.push(format!("{method} {}", request.uri()));
        let meant = |wanted: &str| wanted.is_empty() || wanted == method;
        let place = script.faults.iter().position(|(wanted, _)| meant(wanted))?;
        script.faults.remove(place).map(|(_, fault)| fault)
    }

    async fn pass_on(&self, request: Request) -> Response {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let Ok(uri) = format!("http://{}{path}", self.upstream).parse() else {
            return StatusCode::BAD_GATEWAY.into_response();
        };
        parts.uri = uri;
        match self.client.request(Request::from_parts(parts, body)).await {
            Ok(answer) => answer.map(Body::new),
            Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
        }
    }
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let fault = shared.fault_of(&request);
    let Some(fault) = fault else { return shared.pass_on(request).await };
    if fault == Fault::Lost {
        shared.pass_on(request).await;
    } else {
        take_in(request).await;
    }
    match fault {
        Fault::Lost | Fault::Internal => refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        Fault::SlowDown => refused(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
        Fault::NoBucket => refused(StatusCode::NOT_FOUND, "NoSuchBucket"),
    }
}

/// Reads the body to its end. An answer before that ends the connection under a client that still writes, which then
/// hears either the answer or a broken pipe: no test could say which.
async fn take_in(request: Request) {
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
}

fn refused(status: StatusCode, code: &str) -> Response {
    let text =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>said by the testbed</Message></Error>");
    (status, text).into_response()
}
