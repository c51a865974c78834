use std::sync::Mutex;

use futures::stream::{BoxStream, StreamExt as _};
use postroom_proto::v1;
use postroom_proto::v1::lease_service_server::{LeaseService, LeaseServiceServer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::*;
use crate::config::Config;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Knows only nudges: each stream begins with one and goes on with what the test sends.
#[derive(Clone)]
struct Leader {
    opened: mpsc::UnboundedSender<(String, mpsc::Sender<Result<v1::Nudge, Status>>)>,
    /// Calls that are refused before one is taken.
    refusals: Arc<Mutex<u32>>,
}

#[tonic::async_trait]
impl LeaseService for Leader {
    type WatchNudgeStream = BoxStream<'static, Result<v1::Nudge, Status>>;

    async fn watch_nudge(
        &self,
        request: Request<v1::WatchNudgeRequest>,
    ) -> Result<Response<Self::WatchNudgeStream>, Status> {
        {
            let mut refusals = self.refusals.lock().expect("refusals");
            if *refusals > 0 {
                *refusals -= 1;
                return Err(Status::unavailable("not yet"));
            }
        }
        let (nudges, told) = mpsc::channel(8);
        self.opened.send((request.into_inner().session, nudges)).expect("the test listens");
        let told = tokio_stream::wrappers::ReceiverStream::new(told);
        Ok(Response::new(tokio_stream::iter([Ok(v1::Nudge {})]).chain(told).boxed()))
    }

    async fn register(&self, _: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn heartbeat(&self, _: Request<v1::HeartbeatRequest>) -> Result<Response<v1::HeartbeatResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn leave(&self, _: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

#[tokio::test]
async fn nudges_are_heard_again_after_the_stream_broke_and_for_the_next_session() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let (opened, mut streams) = mpsc::unbounded_channel();
    let leader = Leader { opened, refusals: Arc::new(Mutex::new(2)) };
    let served = tonic::transport::Server::builder().add_service(LeaseServiceServer::new(leader));
    tokio::spawn(served.serve_with_incoming(TcpIncoming::from(listener)));
    let control = Control::new(&Config::new(&format!("http://{address}"), "t".into(), "w")).expect("a URL");
    let (registered, session) = watch::channel(String::new());
    let (nudged, told) = (Arc::new(Notify::new()), CancellationToken::new());
    let listening = tokio::spawn(listen(control, session, nudged.clone(), told.clone()));

    let heard = async || timeout(PATIENCE, nudged.notified()).await.expect("a nudge");
    registered.send("session-1".into()).expect("it listens");
    let (session, nudges) = timeout(PATIENCE, streams.recv()).await.expect("in time").expect("a stream");
    assert_eq!(session, "session-1");
    heard().await;
    nudges.send(Ok(v1::Nudge {})).await.expect("it listens");
    heard().await;
    drop(nudges);
    let (session, _nudges) = timeout(PATIENCE, streams.recv()).await.expect("in time").expect("a stream");
    assert_eq!(session, "session-1");
    heard().await;

    registered.send("session-2".into()).expect("it listens");
    let (session, _nudges) = timeout(PATIENCE, streams.recv()).await.expect("in time").expect("a stream");
    assert_eq!(session, "session-2", "a stream of a session that is over is left");
    heard().await;
    told.cancel();
    timeout(PATIENCE, listening).await.expect("it stops").expect("no panic");
}
