//! Messages made to cost much: the work grows with their length and not with its square, and the stack of a worker's
//! thread is enough.

use std::time::Duration;

use crate::checked;

/// A quarter of what the threads of a worker have.
const STACK: usize = 512 * 1024;
const SMALL: usize = 128 * 1024;
/// How much larger the large one is.
const TIMES: usize = 8;
/// Work that grows with the length grows 8 times, with its square 64 times.
const MOST: u32 = 32;
/// Below this, the work is not the point: measuring it is mostly noise.
const LITTLE: Duration = Duration::from_millis(400);

/// A hostile message may take so many times the work of an honest one that is eight times as long.
const MOST_TO_HONEST: u32 = 4;

type Shape = (&'static str, fn(usize) -> String);

fn filled(unit: &str, length: usize) -> String {
    unit.repeat(length / unit.len() + 1)
}

fn text(kind: &str, unit: &str, length: usize) -> String {
    format!("Subject: s\r\nContent-Type: {kind}\r\n\r\n{}", filled(unit, length))
}

fn mixed(unit: &str, length: usize) -> String {
    format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}\r\n--b--\r\n", filled(unit, length))
}

fn nested(subtype: &str, length: usize) -> String {
    let level = |n: usize| format!("Content-Type: multipart/{subtype}; boundary=b{n}\r\n\r\n--b{n}\r\n");
    (0..length / 60).map(level).collect()
}

const SHAPES: &[Shape] = &[
    ("multiparts within multiparts", |n| nested("mixed", n)),
    ("alternatives within alternatives", |n| nested("alternative", n)),
    ("the same boundary at each depth", |n| filled("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", n)),
    ("messages within messages", |n| filled("Content-Type: message/rfc822\r\n\r\n", n)),
    ("messages within messages within a multipart", |n| {
        format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n{}",
            filled("Content-Type: message/rfc822\r\n\r\n", n)
        )
    }),
    ("tiny parts", |n| mixed("--b\r\n\r\n", n)),
    ("tiny parts in base64", |n| mixed("--b\r\nContent-Transfer-Encoding: base64\r\n\r\nAA\r\n", n)),
    ("tiny alternatives", |n| {
        mixed("--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n", n)
    }),
    ("boundaries that never come", |n| mixed("--b\r\nContent-Type: multipart/mixed; boundary=z\r\n\r\n", n)),
    ("lines that look like boundaries", |n| nested("mixed", 60 * 60) + &filled("--\r\n--b\r\n--b5x\r\n", n)),
    ("encoded words that never end in the subject", |n| format!("Subject: {}\r\n\r\n", filled("=?aa?q? ", n))),
    ("encoded words that never end in From", |n| format!("From: {}\r\n\r\n", filled("=?aa?q?x ", n))),
    ("encoded words that never end in a From that is not cut off", |n| {
        format!("From: {}\r\n\r\n", filled("=?aa?q?x ", n.min(60_000)))
    }),
    ("encoded words that never end in many To", |n| filled(&format!("To: {}\r\n", filled("=?aa?q?x ", 2000)), n)),
    ("encoded words that never end in a name", |n| {
        format!("Content-Type: text/plain; name=\"{}\"\r\n\r\n", filled("=?aa?q?x ", n))
    }),
    ("one long header line", |n| format!("Subject: {}\r\n\r\nx", filled("a", n))),
    ("one long folded header", |n| format!("References: {}\r\n\r\nx", filled("<a@b>\r\n ", n))),
    ("many headers", |n| filled("X-A: b\r\n", n)),
    ("many headers that count", |n| filled("Subject: b\r\n", n)),
    ("lines that are no headers", |n| filled("no colon\r\n", n)),
    ("many recipients", |n| format!("To: {}\r\n\r\n", filled("a@x.example,", n))),
    ("many fields of recipients", |n| filled("Cc: a@x.example\r\n", n)),
    ("comments within comments", |n| format!("From: {}\r\n\r\n", filled("(", n))),
    ("quotes", |n| format!("From: {}\r\n\r\n", filled("\"a\\", n))),
    ("groups", |n| format!("To: {}\r\n\r\n", filled("a:b;", n))),
    ("continuations of a parameter", |n| {
        format!("Content-Type: text/plain{}\r\n\r\n", (0..n / 12).map(|i| format!("; a*{i}=xyz")).collect::<String>())
    }),
    ("parameters with a language", |n| format!("Content-Type: text/plain{}\r\n\r\n", filled("; a*0*='x'y'z", n))),
    ("parts with many parameters", |n| {
        mixed(&format!("--b\r\nContent-Disposition: inline{}\r\n\r\n", filled("; a*0*='x'y", 4000)), n)
    }),
    ("tags that do not end", |n| text("text/html", "<", n)),
    ("tags", |n| text("text/html", "<div><p>", n)),
    ("comments of HTML", |n| text("text/html", "<!-- -", n)),
    ("references to characters", |n| text("text/html", "&amp", n)),
    ("escapes", |n| text("text/plain\r\nContent-Transfer-Encoding: quoted-printable", "=", n)),
    ("soft line ends", |n| text("text/plain\r\nContent-Transfer-Encoding: quoted-printable", "=\r\n", n)),
    ("spaces", |n| text("text/plain\r\nContent-Transfer-Encoding: quoted-printable", " ", n)),
    ("what is not base64", |n| text("text/plain\r\nContent-Transfer-Encoding: base64", "-=*", n)),
    ("flowed quotes", |n| text("text/plain; format=flowed", ">> a \r\n> b \r\n", n)),
    ("one flowed quote", |n| text("text/plain; format=flowed", ">", n)),
    ("UTF-7", |n| text("text/plain; charset=utf-7", "+AG", n)),
    ("escape sequences", |n| text("text/plain; charset=iso-2022-jp", "\x1b$B", n)),
    ("half letters", |n| text("text/plain; charset=gb18030", "\u{81}", n)),
    ("null bytes", |n| filled("\0", n)),
    ("carriage returns", |n| filled("a:b\r", n)),
    ("line feeds", |n| filled("\n", n)),
    ("dashes", |n| mixed("-", n)),
];

/// CPU time of this thread: what else the machine does is not in it.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn work(raw: &str) -> Duration {
    let run = || {
        let before = cpu();
        checked(raw.as_bytes());
        cpu() - before
    };
    run().min(run())
}

#[test]
fn the_work_grows_with_the_length_and_the_stack_is_enough() {
    let all = std::thread::Builder::new().stack_size(STACK).spawn(|| {
        // What is bounded by a constant does not grow, so the constant is compared with an honest message of the larger size.
        let honest = work(&text("text/html", "<p>Some words of text.</p>\r\n", SMALL * TIMES));
        for (name, make) in SHAPES {
            let small = work(&make(SMALL));
            assert!(small < honest * MOST_TO_HONEST, "{name}: {small:?}, while an honest message takes {honest:?}");
            let small = small.max(LITTLE / MOST);
            let large = work(&make(SMALL * TIMES));
            assert!(large < small * MOST, "{name}: {large:?} for {TIMES} times what takes {small:?}");
        }
    });
    all.unwrap().join().unwrap();
}

#[test]
fn what_is_nested_too_deep_or_in_too_many_parts_is_said_to_be_cut() {
    let deep = checked(nested("mixed", 600_000).as_bytes());
    assert_eq!(deep.truncated, ["attachments"]);
    let parts = checked(mixed("--b\r\nContent-Type: image/png\r\n\r\nx\r\n", 100_000).as_bytes());
    assert_eq!((parts.attachments.len(), parts.truncated.as_slice()), (500, &["attachments".to_owned()][..]));
}

#[test]
fn a_hundred_thousand_recipients_leave_the_other_headers_whole() {
    let many: Vec<String> = (0..100_000).map(|n| format!("\"Person, {n}\" <p{n}@x.example>")).collect();
    let raw = format!(
        "To: {}\r\nX-Long: {}\r\n{}From: a@x.example\r\nSubject: s\r\nMessage-ID: <m@x>\r\n\r\ntext",
        many.join(",\r\n "),
        "x".repeat(1 << 20),
        "X-Many: y\r\n".repeat(100_000)
    );
    let content = checked(raw.as_bytes());
    assert_eq!(content.from.len() + content.to.len(), 500);
    assert_eq!(content.to[498].address, "p498@x.example");
    assert_eq!((content.subject.as_str(), content.message_id.as_str()), ("s", "m@x"));
    assert_eq!((content.from[0].address.as_str(), content.text.as_str()), ("a@x.example", "text"));
    assert_eq!(content.truncated, ["headers"]);
}

#[test]
fn an_address_that_was_cut_in_the_middle_is_left_out() {
    let raw = format!("To: a@x.example, b{}@x.example\r\n\r\n", "b".repeat(70_000));
    let content = checked(raw.as_bytes());
    assert_eq!(content.to.iter().map(|to| to.address.as_str()).collect::<Vec<_>>(), ["a@x.example"]);
    assert_eq!(content.truncated, ["headers"]);
}

#[test]
fn of_too_many_references_the_newest_are_kept() {
    let ids: Vec<String> = (0..10_000).map(|n| format!("<id{n}@x.example>")).collect();
    let content = checked(format!("References: {}\r\n\r\nx", ids.join("\r\n ")).as_bytes());
    assert_eq!(content.references.len(), 200);
    assert_eq!(content.references.last().map(String::as_str), Some("id9999@x.example"));
    assert_eq!(content.truncated, ["headers"]);
}
