use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const LIMITS: Limits = Limits { line: 200, literal: 50, endurable: 100, depth: 8 };

/// Feeds `input` in pieces and returns what came out, and the notes.
async fn through(input: &[u8], piece: usize) -> (io::Result<Vec<u8>>, Notes) {
    let (mut server, client) = tokio::io::duplex(1 << 16);
    let mut guard = Guard::new(client, LIMITS);
    for part in input.chunks(piece) {
        server.write_all(part).await.expect("room");
    }
    drop(server);
    let mut out = Vec::new();
    let result = guard.read_to_end(&mut out).await;
    (result.map(|_| out), std::mem::take(guard.notes()))
}

async fn passes(input: &str, want: &str) -> Notes {
    let (out, notes) = through(input.as_bytes(), 7).await;
    assert_eq!(String::from_utf8_lossy(&out.expect("no violation")), want);
    notes
}

#[tokio::test]
async fn what_nobody_asked_for_is_dropped_with_its_literals() {
    let input = "* 3 EXISTS\r\n* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n* XFOO {3}\r\nabc {2}\r\nde)\r\nServer Unavailable. 15\r\n\
        * 1 FETCH (UID 5 BODY[] {3}\r\na\r\n)\r\nA0001 OK done\r\n";
    let notes = passes(input, "* 3 EXISTS\r\n* 1 FETCH (UID 5 BODY[] {3}\r\na\r\n)\r\nA0001 OK done\r\n").await;
    assert_eq!(notes.remark.as_deref(), Some("Server Unavailable. 15"));
}

#[tokio::test]
async fn capabilities_are_noted() {
    let notes = passes("* CAPABILITY IMAP4rev2 move UIDPLUS\r\nA1 OK\n", "A1 OK -\r\n").await;
    assert_eq!(notes.capabilities, Some(vec!["IMAP4REV2".into(), "MOVE".into(), "UIDPLUS".into()]));
}

#[tokio::test]
async fn a_large_message_is_thrown_away_and_noted() {
    let large = "x".repeat(80);
    let input = format!("* 1 FETCH (UID 7 BODY[] {{80}}\r\n{large} UID 7)\r\n* 2 FETCH (UID 8 FLAGS ())\r\n");
    let notes = passes(&input, "* 2 FETCH (UID 8 FLAGS ())\r\n").await;
    assert_eq!(notes.oversized, [Oversized { uid: Some(7), size: 80 }]);
}

#[tokio::test]
async fn hostile_answers_end_the_connection() {
    let long = format!("* OK {}\r\n", "x".repeat(300));
    let deep = format!("* 1 FETCH ({}\r\n", "(".repeat(20));
    for (input, want) in [
        (long.as_str(), "a line is longer than 200 bytes"),
        ("* 1 FETCH (BODY[] {400000000}\r\n", "a literal of 400000000 bytes was announced, 100 is the most"),
        (deep.as_str(), "a response has more than 8 parentheses"),
    ] {
        let (out, _) = through(input.as_bytes(), 64).await;
        let error = out.expect_err(input);
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::InvalidData, want));
    }
}

#[tokio::test]
async fn what_came_before_a_hostile_answer_is_handed_on_first() {
    let input = "* 1 FETCH (UID 5 FLAGS ())\r\n* 1 FETCH (BODY[] {400000000}\r\n";
    let (mut server, client) = tokio::io::duplex(1 << 16);
    server.write_all(input.as_bytes()).await.expect("room");
    let mut guard = Guard::new(client, LIMITS);
    let mut out = [0; 100];
    let count = guard.read(&mut out).await.expect("what came before");
    assert_eq!(&out[..count], b"* 1 FETCH (UID 5 FLAGS ())\r\n");
    for _ in 0..2 {
        assert_eq!(guard.read(&mut out).await.expect_err("a violation").kind(), io::ErrorKind::InvalidData);
    }
}

#[tokio::test]
async fn bytes_of_literals_move_wherever_they_are_read_and_nothing_else_does() {
    let literal = [b'x'; 50];
    let (mut server, client) = tokio::io::duplex(1 << 16);
    let mut guard = Guard::new(client, LIMITS);
    let moves = guard.moves();
    let moved = || moves.load(Ordering::Relaxed);
    // Alone, so that what follows finds nothing read ahead.
    server.write_all(b"* OK still here\r\n* 1 FETCH (BODY[] {50}\r\n").await.expect("room");
    let mut out = [0; 1024];
    let count = guard.read(&mut out).await.expect("lines");
    assert!(out[..count].ends_with(b"{50}\r\n") && moved() == 0);
    server.write_all(&literal).await.expect("room");
    // As large as the reader's buffer: straight into it.
    guard.read_exact(&mut [0; 20]).await.expect("a part");
    assert_eq!(moved(), 20);
    // Smaller than it: by way of the inbox.
    assert_eq!(guard.read(&mut [0; 1024]).await.expect("the rest"), 30);
    assert_eq!(moved(), 50);
}

proptest! {
    #[test]
    fn pieces_do_not_matter_and_nothing_panics(
        words in proptest::collection::vec(prop_oneof![
            Just("* 1 FETCH (UID 5 BODY[] {4}\r\n"), Just("a\r\nb"), Just(")\r\n"), Just("* OK hi\r\n"), Just("\n"),
            Just("{60}\r\n"), Just("* XFOO {2}\r\n"), Just("A0001 NO x\r\n"), Just("+ \r\n"), Just("(\"("), Just("\\"),
        ], 0..20),
        piece in 1usize..40,
    ) {
        let input = words.concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (whole, _) = runtime.block_on(through(input.as_bytes(), 1 << 16));
        let (parts, _) = runtime.block_on(through(input.as_bytes(), piece));
        prop_assert_eq!(whole.map_err(|e| e.to_string()), parts.map_err(|e| e.to_string()));
    }
}
