//! A front before the IMAP server that speaks for it where Exchange differs from Dovecot: it announces other ways to
//! sign in, and refuses to open a mailbox although the sign-in worked, or asks to stay away. Everything else goes through.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    authority::Authority,
    error::{Error, Result},
};

/// What Exchange answers to every command after a sign-in that has no right to the mailbox.
const NOT_CONNECTED: &str = "BAD User is authenticated but not connected.";

/// A running front. Dropping it cuts its connections.
#[derive(Debug)]
pub struct Front {
    shared: Arc<Shared>,
    addr: SocketAddr,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    connector: Arc<rustls::ClientConfig>,
    not_connected: AtomicBool,
    throttled: Mutex<Option<Duration>>,
    offers: Mutex<Option<String>>,
    mechanisms: Mutex<Vec<String>>,
}

impl Front {
    /// Starts a front of the server at `upstream`, with a certificate of the same authority.
    pub async fn start(upstream: SocketAddr, authority: &Authority) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::system("listen on loopback"))?;
        let addr = listener.local_addr().map_err(Error::system("learn a port"))?;
        let acceptor = TlsAcceptor::from(authority.server_config(&[])?);
        let shared = Arc::new(Shared {
            upstream,
            connector: authority.client_config()?,
            not_connected: AtomicBool::new(false),
            throttled: Mutex::default(),
            offers: Mutex::default(),
            mechanisms: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let (tasks, state, told) = (TaskTracker::new(), Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            while let Some(accepted) = told.run_until_cancelled(listener.accept()).await {
                let Ok((tcp, _)) = accepted else { continue };
                let (state, acceptor, told) = (Arc::clone(&state), acceptor.clone(), told.clone());
                tasks.spawn(async move { told.run_until_cancelled(serve(tcp, acceptor, &state)).await });
            }
        });
        Ok(Self { shared, addr, stop })
    }

    /// Where it listens, for IMAP over TLS.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lets every sign-in through and opens no mailbox, as Exchange does without `FullAccess`, or opens them again.
    pub fn set_not_connected(&self, not_connected: bool) {
        self.shared.not_connected.store(not_connected, Ordering::SeqCst);
    }

    /// Opens no mailbox and asks to stay away for this time, as Exchange does when there were too many requests; or
    /// opens them again.
    pub fn set_throttled(&self, backoff: Option<Duration>) {
        *self.shared.throttled.lock().unwrap_or_else(PoisonError::into_inner) = backoff;
    }

    /// Announces these capabilities before the sign-in, for example `IMAP4rev1 AUTH=OAUTHBEARER`, in place of the
    /// server's own.
    pub fn set_offers(&self, capabilities: &str) {
        *self.shared.offers.lock().unwrap_or_else(PoisonError::into_inner) = Some(capabilities.to_owned());
    }

    /// How clients have signed in: `AUTHENTICATE PLAIN`, `LOGIN`, …
    pub fn sign_ins(&self) -> Vec<String> {
        self.shared.mechanisms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    /// What a command is answered in place of the server.
    fn refusal(&self, verb: &str) -> Option<String> {
        if verb != "SELECT" {
            return None;
        }
        let throttled = *self.throttled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(backoff) = throttled {
            let millis = backoff.as_millis();
            return Some(format!("BAD Request is throttled. Suggested Backoff Time: {millis} milliseconds"));
        }
        self.not_connected.load(Ordering::SeqCst).then(|| NOT_CONNECTED.to_owned())
    }
}

async fn serve(tcp: TcpStream, acceptor: TlsAcceptor, shared: &Shared) {
    let served = async {
        let client = acceptor.accept(tcp).await?;
        let tcp = TcpStream::connect(shared.upstream).await?;
        let name = ServerName::IpAddress(shared.upstream.ip().into());
        let server = TlsConnector::from(Arc::clone(&shared.connector)).connect(name, tcp).await?;
        let (from_client, mut to_client) = tokio::io::split(client);
        let (from_server, mut to_server) = tokio::io::split(server);
        let (mut from_client, mut from_server) = (BufReader::new(from_client), BufReader::new(from_server));

        let mut greeting = String::new();
        from_server.read_line(&mut greeting).await?;
        let offers = shared.offers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(offers) = offers {
            greeting = format!("* OK [CAPABILITY {offers}] the front is ready\r\n");
        }
        to_client.write_all(greeting.as_bytes()).await?;

        let to_client = tokio::sync::Mutex::new(to_client);
        let answers = async {
            loop {
                let some = from_server.fill_buf().await?;
                if some.is_empty() {
                    return Ok(());
                }
                let (count, mut to_client) = (some.len(), to_client.lock().await);
                to_client.write_all(some).await?;
                to_client.flush().await?;
                drop(to_client);
                from_server.consume(count);
            }
        };
        let commands = async {
            loop {
                let mut line = Vec::new();
                if from_client.read_until(b'\n', &mut line).await? == 0 {
                    return Ok(());
                }
                let text = String::from_utf8_lossy(&line).into_owned();
                let mut words = text.split_whitespace();
                let (tag, verb) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                note(shared, verb, words.next());
                if let Some(answer) = shared.refusal(verb) {
                    let mut to_client = to_client.lock().await;
                    to_client.write_all(format!("{tag} {answer}\r\n").as_bytes()).await?;
                    to_client.flush().await?;
                    continue;
                }
                to_server.write_all(&line).await?;
                to_server.flush().await?;
            }
        };
        tokio::select! {
            ended = answers => ended,
            ended = commands => ended,
        }
    };
    let ended: std::io::Result<()> = served.await;
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection by the front ended");
    }
}

fn note(shared: &Shared, verb: &str, mechanism: Option<&str>) {
    let way = match (verb, mechanism) {
        ("AUTHENTICATE", Some(mechanism)) => format!("AUTHENTICATE {mechanism}"),
        ("LOGIN", _) => "LOGIN".to_owned(),
        _ => return,
    };
    shared.mechanisms.lock().unwrap_or_else(PoisonError::into_inner).push(way);
}
