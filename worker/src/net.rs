//! From the name of a mail server to a connection with TLS, straight or through a proxy, one step at a time so that each
//! can be told apart when it fails.

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tower::{Service as _, service_fn};

use crate::diagnosis::{self, Diagnosis};
use crate::tls;

/// A connection without the server's own TLS: a socket, or the inside of TLS with a proxy.
pub type Wire = Either<TcpStream, Box<TlsStream<TcpStream>>>;
/// A connection with the server's TLS.
pub type Secure = TlsStream<Wire>;

/// Where a server is, and the proxy on the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// URL of the proxy; empty: none.
    pub proxy: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // RFC 3986 section 3.2.2: an address of version 6 stands in brackets.
        let six = self.host.contains(':');
        if six { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// Connects and agrees on TLS. `deadline`: for each step.
pub async fn connect(place: &Place, config: &Arc<ClientConfig>, deadline: Duration) -> Result<Secure, Diagnosis> {
    agree(reach(place, config, deadline).await?, place, config, deadline).await
}

/// Connects, straight or through the proxy. `deadline`: for each step.
pub async fn reach(place: &Place, config: &Arc<ClientConfig>, deadline: Duration) -> Result<Wire, Diagnosis> {
    if place.proxy.is_empty() {
        dial(place, &look_up(place, deadline).await?, deadline).await
    } else {
        dial_through(place, config, deadline).await
    }
}

/// Our own address on a connection.
pub fn local_address(wire: &Wire) -> Option<SocketAddr> {
    match wire {
        Either::Left(socket) => socket.local_addr().ok(),
        Either::Right(secure) => secure.get_ref().0.local_addr().ok(),
    }
}

/// The addresses of a server.
pub async fn look_up(place: &Place, deadline: Duration) -> Result<Vec<SocketAddr>, Diagnosis> {
    server_name(&place.host)?;
    let host = place.host.as_str();
    let found = timeout(deadline, tokio::net::lookup_host((host, place.port))).await;
    let found = found.map_err(|_| diagnosis::timed_out("the name server", &format!("look up {host}")))?;
    let found: Vec<SocketAddr> = found.map_err(|error| diagnosis::host_not_found(host, &error.to_string()))?.collect();
    if found.is_empty() { Err(diagnosis::host_not_found(host, "it has no address")) } else { Ok(found) }
}

/// A socket to the first of the addresses that answers.
pub async fn dial(place: &Place, addresses: &[SocketAddr], deadline: Duration) -> Result<Wire, Diagnosis> {
    let name = place.to_string();
    let socket = timeout(deadline, TcpStream::connect(addresses)).await;
    let socket = socket.map_err(|_| diagnosis::timed_out(&name, "a connection"))?;
    let socket = socket.map_err(|error| diagnosis::unreachable(&name, &error.to_string()))?;
    quick(&socket).map_err(|error| diagnosis::unreachable(&name, &error.to_string()))?;
    Ok(Either::Left(socket))
}

/// A connection that the proxy makes: by CONNECT (RFC 9110 section 9.3.6) or SOCKS 5 (RFC 1928). The proxy looks the
/// name up.
pub async fn dial_through(place: &Place, config: &Arc<ClientConfig>, deadline: Duration) -> Result<Wire, Diagnosis> {
    let proxy = place.proxy.as_str();
    server_name(&place.host)?;
    let uri: Uri = proxy.parse().map_err(|_| diagnosis::proxy_invalid(&format!("{proxy:?} is not a URL")))?;
    let target: Uri = format!("https://{place}").parse().map_err(|_| diagnosis::host_invalid(&place.host))?;
    let bare = |host: &str| host.trim_matches(['[', ']']).to_owned();
    let host = uri.host().map(bare).ok_or_else(|| diagnosis::proxy_invalid(&format!("{proxy:?} has no host")))?;
    let port = |usual| uri.port_u16().unwrap_or(usual);
    let unreachable = |detail: &dyn std::fmt::Display| diagnosis::proxy_unreachable(proxy, &detail.to_string());
    let reach = |port| {
        let host = host.clone();
        async move {
            let socket = timeout(deadline, TcpStream::connect((host.as_str(), port))).await;
            let socket = socket.map_err(|_| unreachable(&"no answer in time"))?;
            let socket = socket.map_err(|error| unreachable(&error))?;
            quick(&socket).map_err(|error| unreachable(&error))?;
            Ok::<_, Diagnosis>(socket)
        }
    };
    let refused = |detail: String| diagnosis::proxy_refused(proxy, &place.to_string(), &detail);
    let late = |_| refused("no answer in time".into());
    match uri.scheme_str() {
        Some("http") => {
            let mut tunnel = Tunnel::new(uri.clone(), once(reach(port(80)).await?));
            let through = timeout(deadline, tunnel.call(target)).await.map_err(late)?;
            Ok(Either::Left(through.map_err(|error| refused(chain(&error)))?.into_inner()))
        }
        Some("https") => {
            let socket = reach(port(443)).await?;
            let agreed =
                timeout(deadline, TlsConnector::from(config.clone()).connect(server_name(&host)?, socket)).await;
            let agreed = agreed
                .map_err(|_| unreachable(&"no answer in time"))?
                .map_err(|error| tls::diagnose(proxy, &error).unwrap_or_else(|| unreachable(&error)))?;
            let mut tunnel = Tunnel::new(uri.clone(), once(Box::new(agreed)));
            let through = timeout(deadline, tunnel.call(target)).await.map_err(late)?;
            Ok(Either::Right(through.map_err(|error| refused(chain(&error)))?.into_inner()))
        }
        Some("socks5") => {
            let mut socks = SocksV5::new(uri.clone(), once(reach(port(1080)).await?));
            let through = timeout(deadline, socks.call(target)).await.map_err(late)?;
            Ok(Either::Left(through.map_err(|error| refused(chain(&error)))?.into_inner()))
        }
        _ => Err(diagnosis::proxy_invalid(&format!("{proxy:?} has a scheme that is not known"))),
    }
}

/// Agrees on TLS with the server.
pub async fn agree(
    wire: Wire,
    place: &Place,
    config: &Arc<ClientConfig>,
    deadline: Duration,
) -> Result<Secure, Diagnosis> {
    let (name, shown) = (server_name(&place.host)?, place.to_string());
    let agreed = timeout(deadline, TlsConnector::from(config.clone()).connect(name, wire)).await;
    agreed.map_err(|_| diagnosis::timed_out(&shown, "agree on TLS"))?.map_err(|error: io::Error| {
        tls::diagnose(&shown, &error).unwrap_or_else(|| diagnosis::tls_failed(&shown, &error.to_string()))
    })
}

fn server_name(host: &str) -> Result<ServerName<'static>, Diagnosis> {
    ServerName::try_from(host.to_owned()).map_err(|_| diagnosis::host_invalid(host))
}

/// Commands are small and each waits for its answer.
fn quick(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)
}

type Given<S> = Ready<Result<TokioIo<S>, io::Error>>;

/// A connector that hands out one connection that is there already.
fn once<S>(stream: S) -> impl tower::Service<Uri, Response = TokioIo<S>, Error = io::Error, Future = Given<S>> {
    let stream = Mutex::new(Some(stream));
    service_fn(move |_: Uri| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        ready(stream.map(TokioIo::new).ok_or_else(|| io::Error::other("the connection was used before")))
    })
}

/// An error with what caused it, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    diagnosis::excerpt(&text, 200)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::tls::Roots;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A proxy that reads a little, answers `answer`, and tells what it was asked.
    async fn proxy(scheme: &str, answers: Vec<Vec<u8>>) -> (String, tokio::task::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            for answer in answers {
                let mut some = [0; 1024];
                let count = socket.read(&mut some).await.unwrap();
                asked.extend_from_slice(&some[..count]);
                socket.write_all(&answer).await.unwrap();
            }
            asked
        });
        (url, asked)
    }

    async fn through(proxy: &str) -> Result<Wire, Diagnosis> {
        let config = Roots::new().client_config("").await.unwrap();
        let place = Place { host: "imap.contoso.example".into(), port: 993, proxy: proxy.into() };
        dial_through(&place, &config, PATIENCE).await
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_the_name_and_looks_it_up_itself() {
        let (url, asked) = proxy("http", vec![b"HTTP/1.1 200 Connection established\r\n\r\n".to_vec()]).await;
        through(&url).await.unwrap();
        let asked = String::from_utf8(asked.await.unwrap()).unwrap();
        assert!(asked.starts_with("CONNECT imap.contoso.example:993 HTTP/1.1\r\n"), "{asked}");
        // RFC 1928: version and method; then the reply with an address of version 4.
        let (url, asked) = proxy("socks5", vec![vec![5, 0], vec![5, 0, 0, 1, 0, 0, 0, 0, 0, 0]]).await;
        through(&url).await.unwrap();
        let asked = asked.await.unwrap();
        assert!(asked.windows(20).any(|part| part == b"imap.contoso.example"), "{asked:?}");
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_a_problem_of_its_own() {
        for answer in ["HTTP/1.1 403 Forbidden\r\n\r\n", "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", ""] {
            let (url, _) = proxy("http", vec![answer.as_bytes().to_vec()]).await;
            let found = through(&url).await.unwrap_err();
            assert_eq!(found.code, "PROXY_REFUSED", "{answer}");
            assert!(found.cause.contains("imap.contoso.example:993") && found.cause.contains(&url), "{}", found.cause);
        }
        let (url, _) = proxy("socks5", vec![vec![5, 0], vec![5, 2, 0, 1, 0, 0, 0, 0, 0, 0]]).await;
        assert_eq!(through(&url).await.unwrap_err().code, "PROXY_REFUSED");
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(through(&format!("http://{gone}")).await.unwrap_err().code, "PROXY_UNREACHABLE");
        assert_eq!(through("ftp://proxy.contoso.example:21").await.unwrap_err().code, "PROXY_INVALID");
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_and_a_port_that_nobody_listens_on_are_told_apart() {
        let unknown = Place { host: "no-such-host.invalid".into(), port: 993, proxy: String::new() };
        let code = look_up(&unknown, PATIENCE).await.unwrap_err().code;
        assert!(["HOST_NOT_FOUND", "TIMED_OUT"].contains(&code.as_str()), "{code}");
        let bad = Place { host: "two words".into(), ..unknown };
        assert_eq!(look_up(&bad, PATIENCE).await.unwrap_err().code, "HOST_INVALID");
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let deaf = Place { host: "127.0.0.1".into(), port, proxy: String::new() };
        let addresses = look_up(&deaf, PATIENCE).await.unwrap();
        assert_eq!(dial(&deaf, &addresses, PATIENCE).await.unwrap_err().code, "UNREACHABLE");
    }
}
