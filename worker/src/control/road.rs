//! Connections to whichever of several addresses of the control plane can be reached.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::Invalid;
use super::wire::Wire;
use crate::identity::Presence;

/// An address of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    name: String,
    port: u16,
    tls: bool,
}

/// The addresses, and which of them is tried next. Every connection that fails makes it the following one, so all
/// connections soon go to one that answers, and stay there.
#[derive(Debug, Clone)]
pub(super) struct Road {
    hosts: Arc<[Host]>,
    next: Arc<AtomicUsize>,
    presence: Arc<Presence>,
}

impl Road {
    /// Over TLS as `presence` has it, where the URL says so.
    pub(super) fn to(endpoints: &[String], presence: Arc<Presence>) -> Result<Self, Invalid> {
        let host = |endpoint: &String| {
            let uri = endpoint.parse::<Uri>().ok()?;
            let tls = match uri.scheme_str()? {
                "https" => true,
                "http" => false,
                _ => return None,
            };
            let name = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
            Some(Host { name, port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls })
        };
        let hosts = endpoints.iter().map(|endpoint| host(endpoint).ok_or_else(|| Invalid::Endpoint(endpoint.clone())));
        let hosts: Arc<[_]> = hosts.collect::<Result<_, _>>()?;
        if hosts.is_empty() { Err(Invalid::NoEndpoint) } else { Ok(Self { hosts, next: Arc::default(), presence }) }
    }

    /// A connection that is made when it is needed, and made again when it breaks.
    pub(super) fn channel(&self, endpoint: &Endpoint) -> Channel {
        let road = self.clone();
        endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let road = road.clone();
            async move { road.connect().await.map(TokioIo::new) }
        }))
    }

    async fn connect(&self) -> io::Result<Wire> {
        let turn = self.next.load(Ordering::Relaxed);
        let host = &self.hosts[turn % self.hosts.len()];
        // Also when it is dropped, which is what becomes of it when it takes too long.
        let onward = Onward(self, turn);
        let socket = TcpStream::connect((host.name.as_str(), host.port)).await?;
        socket.set_nodelay(true)?;
        let wire = if host.tls {
            let (configuration, cut) = self.presence.configuration().await.map_err(io::Error::other)?;
            let name = ServerName::try_from(host.name.clone()).map_err(io::Error::other)?;
            Wire::new(TlsConnector::from(configuration).connect(name, socket).await?, cut)
        } else {
            Wire::new(socket, CancellationToken::new())
        };
        std::mem::forget(onward);
        Ok(wire)
    }
}

/// Turns to the following address unless it is told otherwise.
struct Onward<'a>(&'a Road, usize);

impl Drop for Onward<'_> {
    fn drop(&mut self) {
        // Another connection may have turned already.
        let _ = self.0.next.compare_exchange(self.1, self.1.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Identity;

    fn road(endpoints: &[String]) -> Result<Road, Invalid> {
        Road::to(endpoints, Arc::new(Presence::new(Identity::Token("t".into()), None)))
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_cannot_be_reached_and_kept_while_it_can() {
        let dead = TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address");
        let alive = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = alive.local_addr().expect("an address");
        let road = road(&[format!("http://{dead}"), format!("http://{address}")]).expect("URLs");
        assert!(road.connect().await.is_err());
        for _ in 0..3 {
            let (connected, accepted) = tokio::join!(road.connect(), alive.accept());
            assert!(connected.is_ok() && accepted.is_ok());
        }
        drop(alive);
        assert!(road.connect().await.is_err());
        assert_eq!(road.next.load(Ordering::Relaxed) % 2, 0, "the first again");
    }

    #[test]
    fn addresses_must_be_urls() {
        assert!(matches!(road(&[]), Err(Invalid::NoEndpoint)));
        for wrong in ["what", "http://", "cp:7430", "ftp://a:1"] {
            assert!(matches!(road(&["http://a:1".into(), wrong.into()]), Err(Invalid::Endpoint(_))), "{wrong}");
        }
        let road = road(&["https://a".into(), "https://[::1]:2".into(), "http://b".into()]).unwrap();
        let hosts: Vec<_> = road.hosts.iter().map(|host| (host.name.as_str(), host.port, host.tls)).collect();
        assert_eq!(hosts, [("a", 443, true), ("::1", 2, true), ("b", 80, false)]);
    }
}
