//! A small proxy: HTTP CONNECT (RFC 9110 section 9.3.6) and SOCKS 5 (RFC 1928) on one loopback port, without sign-in.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::error::{Error, Result};

/// Longest head of a CONNECT request.
const HEAD_BYTES: usize = 8192;

/// A running proxy. Dropping it cuts its connections.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    addr: SocketAddr,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Shared {
    refusing: AtomicBool,
    asked: Mutex<Vec<String>>,
}

impl Proxy {
    /// Starts a proxy on a free loopback port.
    pub async fn start() -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::system("listen on loopback"))?;
        let addr = listener.local_addr().map_err(Error::system("learn a port"))?;
        let (shared, stop) = (Arc::new(Shared::default()), CancellationToken::new());
        let (tasks, state, told) = (TaskTracker::new(), Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            while let Some(accepted) = told.run_until_cancelled(listener.accept()).await {
                let Ok((client, _)) = accepted else { continue };
                let (state, told) = (Arc::clone(&state), told.clone());
                tasks.spawn(async move { told.run_until_cancelled(serve(client, &state)).await });
            }
        });
        Ok(Self { shared, addr, stop })
    }

    /// Where it listens, for CONNECT and SOCKS alike.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Refuses every connection from now on, or none.
    pub fn set_refusing(&self, refusing: bool) {
        self.shared.refusing.store(refusing, Ordering::SeqCst);
    }

    /// What it was asked to connect to, as `host:port`.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(mut client: TcpStream, shared: &Shared) {
    let served = async {
        let mut first = [0];
        client.read_exact(&mut first).await?;
        match first[0] {
            5 => socks(&mut client, shared).await,
            byte => connect(&mut client, byte, shared).await,
        }
    };
    // However it ends, there is nobody to tell.
    let ended: std::io::Result<()> = served.await;
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection by the proxy ended");
    }
}

async fn connect(client: &mut TcpStream, first: u8, shared: &Shared) -> std::io::Result<()> {
    let mut head = vec![first];
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let (Some("CONNECT"), Some(target)) = (words.next(), words.next()) else {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n").await;
    };
    if !allowed(target, shared) {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
    }
    match TcpStream::connect(target).await {
        Ok(mut server) => {
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            tokio::io::copy_bidirectional(client, &mut server).await.map(|_| ())
        }
        Err(_) => client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await,
    }
}

async fn socks(client: &mut TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut methods = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut methods).await?;
    client.write_all(&[5, 0]).await?;
    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    let host = match request[3] {
        1 => Ipv4Addr::from(client.read_u32().await?).to_string(),
        3 => {
            let mut name = vec![0; usize::from(client.read_u8().await?)];
            client.read_exact(&mut name).await?;
            String::from_utf8_lossy(&name).into_owned()
        }
        // Address type not supported.
        _ => return client.write_all(&[5, 8, 0, 1, 0, 0, 0, 0, 0, 0]).await,
    };
    let target = format!("{host}:{}", client.read_u16().await?);
    let answer = |code| [5, code, 0, 1, 0, 0, 0, 0, 0, 0];
    if !allowed(&target, shared) {
        // Not allowed by the ruleset.
        return client.write_all(&answer(2)).await;
    }
    match TcpStream::connect(&target).await {
        Ok(mut server) => {
            client.write_all(&answer(0)).await?;
            tokio::io::copy_bidirectional(client, &mut server).await.map(|_| ())
        }
        // Host unreachable.
        Err(_) => client.write_all(&answer(4)).await,
    }
}

fn allowed(target: &str, shared: &Shared) -> bool {
    shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(target.to_owned());
    !shared.refusing.load(Ordering::SeqCst)
}
