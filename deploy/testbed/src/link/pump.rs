//! Carries the bytes of one connection. Each direction is a reader that notes when its bytes are due and a writer that
//! waits for that moment, so that a delay does not make the link narrower.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::Weather;

/// Largest piece that is carried at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that are on their way in one direction; then the sender has to wait, as it does for a full TCP window.
const PIECES: usize = 64;

/// Carries until both directions have ended. `carried` counts the bytes that arrive at the client.
pub(super) async fn run(
    client: TcpStream,
    upstream: SocketAddr,
    mut weather: watch::Receiver<Weather>,
    carried: Arc<AtomicU64>,
) {
    // Nobody is connected through a silent link.
    if !audible(&mut weather).await {
        return;
    }
    let server = match TcpStream::connect(upstream).await {
        Ok(server) => server,
        Err(error) => {
            tracing::debug!(%error, %upstream, "a link leads nowhere");
            return;
        }
    };
    // A socket that refuses the option is slower, not wrong.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let uncounted = AtomicU64::new(0);
    tokio::join!(
        carry(&mut from_client, &mut to_server, weather.clone(), &uncounted),
        carry(&mut from_server, &mut to_client, weather, &carried)
    );
}

/// One direction, to its end.
async fn carry(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut weather: watch::Receiver<Weather>,
    carried: &AtomicU64,
) {
    let (pieces, mut arriving) = mpsc::channel::<(Instant, Bytes)>(PIECES);
    let delay = weather.clone();
    let read = async move {
        let delay = || -> Duration { delay.borrow().delay };
        loop {
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            // An end by an error is an end: the other side is told by the end of the writing half.
            match from.read_buf(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if pieces.send((Instant::now() + delay(), piece.freeze())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = arriving.recv().await {
            sleep_until(due).await;
            if !audible(&mut weather).await || to.write_all(&piece).await.is_err() {
                return;
            }
            carried.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        // The end travels like everything else.
        if audible(&mut weather).await {
            let _ = to.shutdown().await;
        }
    };
    tokio::join!(read, write);
}

/// Waits while the link is silent. False: it never will be anything else.
async fn audible(weather: &mut watch::Receiver<Weather>) -> bool {
    weather.wait_for(|weather| !weather.silent).await.is_ok()
}
