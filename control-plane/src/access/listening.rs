//! Connections of the gRPC port as they come in, over TLS or in plaintext, and who is at their other end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream::{self, FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::certificate;
use super::credential::{Fingerprint, Kind, fingerprint};
use super::role::Role;
use super::standing::Standing;
use super::tls::Configuration;

/// Longest time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Most handshakes at one time; whoever comes then waits in the system's queue.
const MOST_HANDSHAKES: usize = 256;
/// Pause after a connection could not be accepted, as when all file descriptors are in use.
const AGAIN: Duration = Duration::from_millis(50);

/// Who is at the other end of a connection. An extension of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The address.
    pub from: Option<SocketAddr>,
    /// The certificate that it showed, and that a CA of ours has signed.
    pub certificate: Option<Arc<Certificate>>,
}

/// A client's certificate.
#[derive(Debug)]
pub struct Certificate {
    /// SHA-256 of it.
    pub fingerprint: Fingerprint,
    /// True: the installation's own CA has signed it.
    pub own: bool,
    /// What it is worth where another CA has signed it. `None`: it names no worker.
    pub standing: Option<Arc<Standing>>,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    stream: Inner,
}

#[derive(Debug)]
enum Inner {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// What came of a connection.
type Accepted = io::Result<Connection>;

/// Connections as they come in; with `tls` when they have shaken hands by the configuration of that moment. Never ends by
/// itself: a connection that cannot be made is only told in the log.
pub fn incoming(
    listener: TcpListener,
    tls: Option<watch::Receiver<Arc<Configuration>>>,
) -> impl Stream<Item = Result<Connection, io::Error>> {
    let shaking = FuturesUnordered::new();
    stream::unfold((listener, tls, shaking), async |(listener, tls, mut shaking)| {
        loop {
            tokio::select! {
                accepted = listener.accept(), if shaking.len() < MOST_HANDSHAKES => match accepted {
                    Ok((stream, from)) => {
                        // It would only be slower without.
                        let _ = stream.set_nodelay(true);
                        match &tls {
                            None => {
                                let peer = Peer { from: Some(from), certificate: None };
                                let connection = Connection { peer, stream: Inner::Plain(stream) };
                                return Some((Ok(connection), (listener, tls, shaking)));
                            }
                            Some(tls) => shaking.push(shake(tls.borrow().clone(), stream, from)),
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(AGAIN).await;
                    }
                },
                Some((from, shaken)) = shaking.next(), if !shaking.is_empty() => match shaken {
                    Ok(connection) => return Some((Ok(connection), (listener, tls, shaking))),
                    Err(error) => tracing::debug!(address = %from, %error, "no TLS handshake"),
                },
            }
        }
    })
}

async fn shake(configuration: Arc<Configuration>, stream: TcpStream, from: SocketAddr) -> (SocketAddr, Accepted) {
    let shaken = timeout(HANDSHAKE, TlsAcceptor::from(configuration.server.clone()).accept(stream)).await;
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return (from, Err(error)),
        Err(_) => return (from, Err(io::ErrorKind::TimedOut.into())),
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = shown.map(|shown| {
        let read = certificate::read(shown);
        let own = read.as_ref().is_some_and(|read| configuration.own.as_ref() == Some(&read.issuer));
        let standing = read.filter(|_| !own).and_then(|read| {
            let worker = read.worker.as_deref()?;
            let role = Role::Worker(Some(worker.into()));
            Some(Arc::new(Standing::new(Kind::Certificate, worker, role, Some(read.expires))))
        });
        Arc::new(Certificate { fingerprint: fingerprint(shown), own, standing })
    });
    let peer = Peer { from: Some(from), certificate };
    (from, Ok(Connection { peer, stream: Inner::Tls(Box::new(stream)) }))
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Inner::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Inner::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Inner::Plain(stream) => Pin::new(stream).poll_write(cx, buffer),
            Inner::Tls(stream) => Pin::new(stream).poll_write(cx, buffer),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Inner::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
            Inner::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Inner::Plain(stream) => stream.is_write_vectored(),
            Inner::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Inner::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Inner::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
