//! The relay between a bare HTTP/2 client and a bare HTTP/2 server that answers as gRPC does.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{Router, body::Body, extract::State};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use postroom_testbed::{
    Relay,
    relay::{Answer, Calls, Loss},
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A server that counts the calls it executes. It echoes each with status 0, and refuses the body `late` with status 10.
struct Upstream {
    addr: SocketAddr,
    executed: Arc<AtomicU32>,
    _stop: DropGuard,
}

impl Upstream {
    async fn start() -> Self {
        let executed = Arc::new(AtomicU32::new(0));
        let router = Router::new().fallback(execute).with_state(Arc::clone(&executed));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(axum::serve(listener, router).with_graceful_shutdown(stopped).into_future());
        Self { addr, executed, _stop: stop.drop_guard() }
    }

    fn executed(&self) -> u32 {
        self.executed.load(Ordering::SeqCst)
    }
}

async fn execute(State(executed): State<Arc<AtomicU32>>, request: Request<Body>) -> Response<Body> {
    if request.uri().path().ends_with("/Watch") {
        // Every part that arrives goes back at once: neither side ever has a whole message.
        return Response::new(Body::from_stream(request.into_body().into_data_stream()));
    }
    let body = request.into_body().collect().await.unwrap().to_bytes();
    executed.fetch_add(1, Ordering::SeqCst);
    let status = if body == "late" { "10" } else { "0" };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("grpc-message", "said%20so".parse().unwrap());
    Response::new(Body::new(Full::new(body).with_trailers(async { Some(Ok(trailers)) })))
}

/// Calls `method` and returns body and status, or nothing when the stream was cut.
async fn call(relay: &Relay, method: &str, body: &str) -> Option<(Bytes, String)> {
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Body>();
    let uri = format!("http://{}/postroom.v1.{method}", relay.addr());
    let request = Request::post(uri).header("te", "trailers").body(Body::from(body.to_owned())).unwrap();
    let (parts, body) = client.request(request).await.ok()?.into_parts();
    let body = body.collect().await.ok()?;
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
    let status = status.or_else(|| parts.headers.get("grpc-status")).unwrap().to_str().unwrap().to_owned();
    Some((body.to_bytes(), status))
}

fn answered(body: &str, status: &str) -> Option<(Bytes, String)> {
    Some((Bytes::from(body.to_owned()), status.to_owned()))
}

#[tokio::test]
async fn a_lost_answer_belongs_to_a_call_that_was_executed() {
    let upstream = Upstream::start().await;
    let relay = Relay::start(upstream.addr).await.unwrap();
    relay.lose("/Report", 3, Loss::Unavailable);
    relay.lose("/Accept", 2, Loss::Cut);
    for _ in 0..2 {
        assert_eq!(call(&relay, "ReportService/Report", "a").await, answered("a", "0"));
        assert_eq!(call(&relay, "ReportService/Report", "b").await, answered("b", "0"));
        assert_eq!(call(&relay, "ReportService/Report", "c").await, answered("", "14"));
    }
    assert_eq!(call(&relay, "ContactService/Accept", "d").await, answered("d", "0"));
    assert_eq!(call(&relay, "ContactService/Accept", "e").await, None);
    assert_eq!(call(&relay, "ReportService/ReportStatus", "f").await, answered("f", "0"));
    assert_eq!(upstream.executed(), 9);
    assert_eq!(relay.calls("/Report"), Calls { seen: 6, lost: 2 });
    assert_eq!(relay.calls(""), Calls { seen: 9, lost: 3 });
}

#[tokio::test]
async fn a_held_call_goes_on_when_released_even_without_its_client() {
    let upstream = Upstream::start().await;
    let relay = Relay::start(upstream.addr).await.unwrap();
    let hold = relay.hold("/Report");
    {
        let report = call(&relay, "ReportService/Report", "late");
        tokio::select! {
            answer = report => panic!("not held: {answer:?}"),
            arrived = hold.arrived(1) => arrived.unwrap(),
        }
        // Here the client gives up.
    }
    assert_eq!(call(&relay, "LeaseService/Heartbeat", "beat").await, answered("beat", "0"));
    assert_eq!(upstream.executed(), 1);
    hold.release();
    let refused = Answer { status: 10, message: "said%20so".to_owned() };
    assert_eq!(hold.answers(1).await.unwrap(), [refused]);
    assert_eq!(call(&relay, "ReportService/Report", "next").await, answered("next", "0"));
}

#[tokio::test]
async fn streams_flow_part_by_part_in_both_directions() {
    let upstream = Upstream::start().await;
    let relay = Relay::start(upstream.addr).await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<&str, std::io::Error>>(1);
    let parts = futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Body>();
    let uri = format!("http://{}/postroom.v1.LeaseService/Watch", relay.addr());
    let answer = client.request(Request::post(uri).body(Body::from_stream(parts)).unwrap()).await.unwrap();
    let mut answer = answer.into_body().into_data_stream();
    for part in ["one", "two"] {
        sender.send(Ok(part)).await.unwrap();
        assert_eq!(answer.next().await.unwrap().unwrap(), part);
    }
    drop(sender);
    // The end may come with an empty part.
    let rest: Vec<Bytes> = answer.map(Result::unwrap).collect().await;
    assert!(rest.iter().all(Bytes::is_empty), "{rest:?}");
}

#[tokio::test]
async fn an_upstream_that_is_gone_is_unavailable_until_another_is_named() {
    let gone = Upstream::start().await;
    let relay = Relay::start(gone.addr).await.unwrap();
    assert_eq!(call(&relay, "S/M", "a").await, answered("a", "0"));
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    relay.set_upstream(nobody);
    assert_eq!(call(&relay, "S/M", "b").await, answered("", "14"));
    let next = Upstream::start().await;
    relay.set_upstream(next.addr);
    assert_eq!(call(&relay, "S/M", "c").await, answered("c", "0"));
    assert_eq!((gone.executed(), next.executed()), (1, 1));
}
