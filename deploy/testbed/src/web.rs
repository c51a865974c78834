//! HTTP over TLS on loopback, for the stand-ins that speak it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::{
    authority::Authority,
    error::{Error, Result},
};

/// Put into the extensions of a response: the client gets none, the connection breaks off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutOff;

/// A free port on loopback.
pub(crate) async fn bind() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::system("listen on loopback"))?;
    let addr = listener.local_addr().map_err(Error::system("learn a port"))?;
    Ok((listener, addr))
}

/// Serves until `stop` says so; `tasks` are what that then waits for.
pub(crate) fn run(
    listener: TcpListener,
    authority: &Authority,
    router: Router,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<()> {
    let acceptor = TlsAcceptor::from(authority.server_config(&["h2", "http/1.1"])?);
    let (stop, connections) = (stop.clone(), tasks.clone());
    tasks.spawn(async move {
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let Ok((tcp, _)) = accepted else {
                // Out of file descriptors, most likely: the connections that end give some back.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let connection = serve(tcp, acceptor.clone(), router.clone());
            let stop = stop.clone();
            connections.spawn(async move { stop.run_until_cancelled(connection).await });
        }
    });
    tasks.close();
    Ok(())
}

async fn serve(tcp: TcpStream, acceptor: TlsAcceptor, router: Router) {
    let served = async {
        tcp.set_nodelay(true)?;
        let tls = acceptor.accept(tcp).await?;
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let router = router.clone();
            async move {
                let response = router.oneshot(request.map(Body::new)).await.map_err(io::Error::other)?;
                match response.extensions().get::<CutOff>() {
                    Some(CutOff) => Err(io::Error::other("cut off by the testbed")),
                    None => Ok(response),
                }
            }
        });
        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(tls), service).await
    };
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection to a stand-in ended");
    }
}
