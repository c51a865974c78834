//! The link: what its two ends see of each disturbance.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use postroom_testbed::Link;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Longest wait for what must come. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing may come where nothing must.
const QUIET: Duration = Duration::from_millis(300);

/// A server that says back what it hears.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = client.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    addr
}

async fn connected(link: &Link) -> TcpStream {
    TcpStream::connect(link.addr()).await.unwrap()
}

async fn says(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

async fn hears(stream: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    timeout(PATIENCE, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, text.as_bytes());
}

async fn hears_nothing(stream: &mut TcpStream) {
    assert!(timeout(QUIET, stream.read_u8()).await.is_err());
}

/// The other side is gone, however it is told.
async fn ends(stream: &mut TcpStream) {
    let read = timeout(PATIENCE, stream.read(&mut [0])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn a_healthy_link_carries_everything_and_counts_connections() {
    let link = Link::start(echo().await).await.unwrap();
    let mut stream = connected(&link).await;
    let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let (mut from, mut to) = stream.split();
    let expected = sent.clone();
    let (read, written) = tokio::join!(
        async {
            let mut heard = vec![0; expected.len()];
            timeout(PATIENCE, from.read_exact(&mut heard)).await.unwrap().map(|_| heard)
        },
        to.write_all(&sent)
    );
    written.unwrap();
    assert!(read.unwrap() == expected, "what came back differs");
    assert_eq!((link.made(), link.open()), (1, 1));
    drop(stream);
    timeout(PATIENCE, async {
        while link.open() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await
        }
    })
    .await
    .unwrap();
    assert_eq!(link.carried(), sent.len() as u64);
}

#[tokio::test]
async fn a_cut_ends_what_there_is_and_lets_new_connections_through() {
    let link = Link::start(echo().await).await.unwrap();
    let mut stream = connected(&link).await;
    says(&mut stream, "one").await;
    hears(&mut stream, "one").await;
    link.cut();
    ends(&mut stream).await;
    let mut stream = connected(&link).await;
    says(&mut stream, "two").await;
    hears(&mut stream, "two").await;
    assert_eq!(link.made(), 2);
}

#[tokio::test]
async fn a_refusing_link_lets_nobody_through_until_it_is_healed() {
    let link = Link::start(echo().await).await.unwrap();
    let mut stream = connected(&link).await;
    says(&mut stream, "one").await;
    hears(&mut stream, "one").await;
    link.set_refusing(true);
    ends(&mut stream).await;
    ends(&mut connected(&link).await).await;
    assert_eq!(link.made(), 1);
    link.heal();
    let mut stream = connected(&link).await;
    says(&mut stream, "two").await;
    hears(&mut stream, "two").await;
}

#[tokio::test]
async fn what_is_said_into_a_silent_link_arrives_when_it_is_healed() {
    let link = Link::start(echo().await).await.unwrap();
    let mut old = connected(&link).await;
    says(&mut old, "one").await;
    hears(&mut old, "one").await;
    link.set_silent(true);
    says(&mut old, "two").await;
    hears_nothing(&mut old).await;
    let mut new = connected(&link).await;
    says(&mut new, "three").await;
    hears_nothing(&mut new).await;
    link.heal();
    hears(&mut old, "two").await;
    hears(&mut new, "three").await;
}

#[tokio::test]
async fn a_delay_holds_for_each_direction_and_does_not_make_the_link_narrower() {
    let link = Link::start(echo().await).await.unwrap();
    link.set_delay(Duration::from_millis(200));
    let mut stream = connected(&link).await;
    let begun = Instant::now();
    for _ in 0..20 {
        says(&mut stream, "x").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    hears(&mut stream, &"x".repeat(20)).await;
    let took = begun.elapsed();
    // One after the other they would take eight seconds.
    assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn a_link_to_nowhere_ends_connections() {
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let link = Link::start(gone).await.unwrap();
    ends(&mut connected(&link).await).await;
    link.set_upstream(echo().await);
    let mut stream = connected(&link).await;
    says(&mut stream, "one").await;
    hears(&mut stream, "one").await;
}
