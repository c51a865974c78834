//! Connections to whichever of several addresses of the control plane can be reached.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::Invalid;

/// The addresses, and which of them is tried next. Every connection that fails makes it the following one, so all
/// connections soon go to one that answers, and stay there.
#[derive(Debug, Clone)]
pub(super) struct Road {
    hosts: Arc<[(String, u16)]>,
    next: Arc<AtomicUsize>,
}

impl Road {
    pub(super) fn to(endpoints: &[String]) -> Result<Self, Invalid> {
        let host = |endpoint: &String| {
            let uri = endpoint.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some())?;
            let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
            Some((host, uri.port_u16().unwrap_or(80)))
        };
        let hosts = endpoints.iter().map(|endpoint| host(endpoint).ok_or_else(|| Invalid::Endpoint(endpoint.clone())));
        let hosts: Arc<[_]> = hosts.collect::<Result<_, _>>()?;
        if hosts.is_empty() { Err(Invalid::NoEndpoint) } else { Ok(Self { hosts, next: Arc::default() }) }
    }

    /// A connection that is made when it is needed, and made again when it breaks.
    pub(super) fn channel(&self, endpoint: &Endpoint) -> Channel {
        let road = self.clone();
        endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let road = road.clone();
            async move { road.connect().await.map(TokioIo::new) }
        }))
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let turn = self.next.load(Ordering::Relaxed);
        let (host, port) = &self.hosts[turn % self.hosts.len()];
        // Also when it is dropped, which is what becomes of it when it takes too long.
        let onward = Onward(self, turn);
        let socket = TcpStream::connect((host.as_str(), *port)).await?;
        socket.set_nodelay(true)?;
        std::mem::forget(onward);
        Ok(socket)
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

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_cannot_be_reached_and_kept_while_it_can() {
        let dead = TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("an address");
        let alive = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = alive.local_addr().expect("an address");
        let road = Road::to(&[format!("http://{dead}"), format!("http://{address}")]).expect("URLs");
        assert!(road.connect().await.is_err());
        for _ in 0..3 {
            assert_eq!(road.connect().await.expect("connected").peer_addr().expect("an address"), address);
        }
        drop(alive);
        assert!(road.connect().await.is_err());
        assert_eq!(road.next.load(Ordering::Relaxed) % 2, 0, "the first again");
    }

    #[test]
    fn addresses_must_be_urls() {
        assert!(matches!(Road::to(&[]), Err(Invalid::NoEndpoint)));
        for wrong in ["what", "http://", "cp:7430"] {
            assert!(matches!(Road::to(&["http://a:1".into(), wrong.into()]), Err(Invalid::Endpoint(_))), "{wrong}");
        }
    }
}
