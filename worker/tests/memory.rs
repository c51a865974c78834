//! How much memory it takes to read a message of 25 MB. A process of its own: what it once had at most is measured.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use postroom_worker::contact::parse::parse;

const LENGTH: usize = 25 * 1024 * 1024;

/// Most memory that this process ever had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn filled(head: &str, unit: &str) -> Vec<u8> {
    let mut raw = head.as_bytes().to_vec();
    while raw.len() < LENGTH {
        raw.extend_from_slice(unit.as_bytes());
    }
    raw
}

#[test]
fn reading_25_mb_takes_less_than_twice_that() {
    let line = format!("{}\r\n", "QUJD".repeat(19));
    let mixed = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    let attached = format!("{mixed}--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n");
    for (name, head, unit) in [
        ("one attachment", attached.as_str(), line.as_str()),
        ("one text", "Subject: s\r\n\r\n", "Some words of text.\r\n"),
        ("one text in quoted-printable", "Content-Transfer-Encoding: quoted-printable\r\n\r\n", "=C3=BC words\r\n"),
        ("one HTML", "Content-Type: text/html\r\n\r\n", "<div><p>&amp;</p></div>"),
        ("headers", "", "X-A: b\r\n"),
        ("recipients", "To: a@x.example", ", a@x.example"),
        ("tiny parts", mixed, "--b\r\n\r\n"),
        ("messages within messages", "", "Content-Type: message/rfc822\r\n\r\n"),
        ("null bytes", "", "\0"),
    ] {
        let raw = filled(head, unit);
        let before = peak();
        let parsed = parse(&raw);
        let more = peak() - before;
        assert!(more < 2 * LENGTH, "{name}: {more} bytes more");
        drop(parsed);
    }
}
