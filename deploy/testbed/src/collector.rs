//! A collector of traces: it takes them over OTLP/gRPC, as every real one does, and remembers them for a test to look at.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, status::StatusCode},
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::error::{Error, Result};

/// A span that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which process sent it: `service.name`.
    pub service: String,
    /// What it is called.
    pub name: String,
    /// Its trace, in hexadecimal.
    pub trace: String,
    /// Itself, in hexadecimal.
    pub id: String,
    /// The span above it, in hexadecimal; empty: none.
    pub parent: String,
    /// Traces that it is linked to.
    pub links: Vec<String>,
    /// What is said of it.
    pub attributes: BTreeMap<String, String>,
    /// When it began, in nanoseconds since 1970.
    pub begun: u64,
    /// When it ended.
    pub ended: u64,
    /// True when it came to nothing.
    pub failed: bool,
}

type Spans = Arc<Mutex<Vec<Told>>>;

/// A running collector, which ends with this value.
#[derive(Debug)]
pub struct Collector {
    addr: SocketAddr,
    spans: Spans,
    stopping: CancellationToken,
    _tasks: TaskTracker,
}

impl Collector {
    /// Starts one on loopback.
    pub async fn start() -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::system("listen on loopback"))?;
        let addr = listener.local_addr().map_err(Error::system("listen on loopback"))?;
        let (spans, stopping, tasks) = (Spans::default(), CancellationToken::new(), TaskTracker::new());
        let served = Server::builder().add_service(TraceServiceServer::new(Desk(spans.clone())));
        let told = stopping.clone();
        tasks.spawn(async move {
            // Nobody is left to hear why it ended; a test that misses its spans fails.
            let _ = served.serve_with_incoming_shutdown(TcpIncoming::from(listener), told.cancelled()).await;
        });
        Ok(Self { addr, spans, stopping, _tasks: tasks })
    }

    /// Where to send traces.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What was sent so far, in the order in which it began.
    pub fn spans(&self) -> Vec<Told> {
        let mut spans = lock(&self.spans).clone();
        spans.sort_by_key(|span| span.begun);
        spans
    }

    /// The same of one trace.
    pub fn trace(&self, id: &str) -> Vec<Told> {
        self.spans().into_iter().filter(|span| span.trace == id).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

fn lock(spans: &Spans) -> MutexGuard<'_, Vec<Told>> {
    spans.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Desk(Spans);

#[tonic::async_trait]
impl TraceService for Desk {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> std::result::Result<Response<ExportTraceServiceResponse>, Status> {
        for from in request.into_inner().resource_spans {
            let resource = from.resource.map(|resource| attributes(resource.attributes)).unwrap_or_default();
            let service = resource.get("service.name").cloned().unwrap_or_default();
            let spans = from.scope_spans.into_iter().flat_map(|scope| scope.spans);
            lock(&self.0).extend(spans.map(|span| told(&service, span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn told(service: &str, span: Span) -> Told {
    Told {
        service: service.to_owned(),
        name: span.name,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        links: span.links.iter().map(|link| hex(&link.trace_id)).collect(),
        attributes: attributes(span.attributes),
        begun: span.start_time_unix_nano,
        ended: span.end_time_unix_nano,
        failed: span.status.is_some_and(|status| status.code() == StatusCode::Error),
    }
}

fn attributes(given: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    given.into_iter().map(|it| (it.key, text(it.value.and_then(|value| value.value)))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
