//! Mails to a scripted server: what is said on the way, and what becomes of each when the server does something else.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use postroom_proto::v1::{Claim, OutgoingAuthentication, RecipientState, SendVerdict};
use tokio::time::timeout;

use super::*;
use crate::send::claim::Deadline;
use crate::send::peer::{self, Certificate, Http, Ledger, PATIENCE, Script, Smtp, mail, obliging, relay, sending};

const RAW: &str = "Subject: s\r\n\r\n.a line with a dot\r\n..two\r\nlast\r\n";

fn exchange(port: u16, certificate: &Certificate, authority: &str) -> OutgoingDefinition {
    OutgoingDefinition {
        security: SmtpSecurity::Starttls.into(),
        authentication: OutgoingAuthentication::OauthService.into(),
        authority: authority.into(),
        client_id: "app".into(),
        client_secret: "planted-secret".into(),
        user: "support@contoso.example".into(),
        ca_file: certificate.file(),
        ..relay(port)
    }
}

/// The usual, unless `exception` says otherwise of a line.
fn but(exception: impl Fn(&str) -> Option<&'static str> + Send + Sync + 'static) -> Script {
    Arc::new(move |line| match exception(line) {
        Some("CLOSE") => None,
        Some(answer) => Some(answer.to_owned()),
        None => obliging(line),
    })
}

async fn submitted(sending: &Sending, definition: &OutgoingDefinition, recipients: &[&str], raw: &str) -> Verdict {
    let ledger = Arc::new(Ledger::default());
    let verdict = submitted_by(&ledger, sending, definition, recipients, raw).await.expect("a verdict");
    // Whatever was handed over was marked before.
    if matches!(verdict.verdict, SendVerdict::Sent | SendVerdict::Unknown) {
        assert_eq!(ledger.marked.lock().unwrap().len(), 1);
    }
    verdict
}

async fn submitted_by(
    ledger: &Arc<Ledger>,
    sending: &Sending,
    definition: &OutgoingDefinition,
    recipients: &[&str],
    raw: &str,
) -> Option<Verdict> {
    let mail = mail("m1", definition, recipients, raw);
    let claim = Claim { mail: "m1".into(), ..Claim::default() };
    let under_way = UnderWay::new(ledger.clone(), claim, Deadline::after(PATIENCE));
    let expectation = sending.pool.expect(definition, &mail.sender);
    let raw = Bytes::from(raw.to_owned());
    let end = submit(sending, &mail, definition, &raw, &under_way, expectation);
    let end = timeout(PATIENCE, Box::pin(end)).await.expect("an end");
    under_way.verdict(end, 1, 0.5)
}

fn code(verdict: &Verdict) -> &str {
    verdict.found.as_ref().map_or("", |found| found.code.as_str())
}

async fn tokens(all: &'static [&'static str]) -> (Http, String) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let endpoint = Http::start(Arc::new(move |_| {
        let at = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        peer::token(all[at.min(all.len() - 1)])
    }))
    .await;
    let authority = format!("http://127.0.0.1:{}/t", endpoint.port);
    (endpoint, authority)
}

#[tokio::test]
async fn a_mail_goes_over_starttls_with_a_token_byte_for_byte() {
    let certificate = Certificate::new();
    let server = Smtp::start(Some(&certificate), false, Arc::new(obliging)).await;
    let (_endpoint, authority) = tokens(&["secret-token"]).await;
    let definition = exchange(server.port, &certificate, &authority);
    let verdict = submitted(&sending(Duration::ZERO), &definition, &["b@x.example", "c@x.example"], RAW).await;
    assert_eq!(verdict, Verdict::sent("250 2.0.0 queued as 1", Vec::new()));
    let bearer = "user=support@contoso.example\x01auth=Bearer secret-token\x01\x01";
    let size = format!("MAIL FROM:<support@contoso.example> SIZE={}", RAW.len());
    assert_eq!(
        server.heard(),
        [
            "EHLO [127.0.0.1]",
            "STARTTLS",
            "EHLO [127.0.0.1]",
            "EHLO [127.0.0.1]",
            "AUTH XOAUTH2",
            &BASE64.encode(bearer),
            &size,
            "RCPT TO:<b@x.example>",
            "RCPT TO:<c@x.example>",
            "DATA",
            "QUIT",
        ]
    );
    let stuffed = "Subject: s\r\n\r\n..a line with a dot\r\n...two\r\nlast\r\n";
    assert_eq!(server.mails.lock().unwrap().as_slice(), [stuffed.as_bytes()]);
}

#[tokio::test]
async fn tls_from_the_first_byte_and_whom_it_trusts() {
    let certificate = Certificate::new();
    let server = Smtp::start(Some(&certificate), true, Arc::new(obliging)).await;
    let definition = OutgoingDefinition {
        security: SmtpSecurity::Tls.into(),
        authentication: OutgoingAuthentication::Password.into(),
        user: "anna".into(),
        password: "pw".into(),
        ca_file: certificate.file(),
        ..relay(server.port)
    };
    let sending = sending(Duration::ZERO);
    assert_eq!(submitted(&sending, &definition, &["b@x.example"], RAW).await.verdict, SendVerdict::Sent);
    assert!(server.heard().contains(&BASE64.encode("\0anna\0pw")), "{:?}", server.heard());
    // Bound: its file is there as long as it is.
    let stranger = Certificate::new();
    let other = OutgoingDefinition { ca_file: stranger.file(), ..definition };
    let verdict = submitted(&sending, &other, &["b@x.example"], RAW).await;
    assert_eq!(code(&verdict), "TLS_UNTRUSTED", "{verdict:?}");
    assert!(verdict.whole_mailbox && verdict.verdict == SendVerdict::Deferred);
}

#[tokio::test]
async fn without_starttls_no_secret_is_sent() {
    let certificate = Certificate::new();
    let (_endpoint, authority) = tokens(&["secret-token"]).await;
    let bare = |line: &str| (line.starts_with("EHLO")).then_some("250-x\r\n250 AUTH XOAUTH2\r\n");
    let server = Smtp::start(Some(&certificate), false, but(bare)).await;
    let sending = sending(Duration::ZERO);
    let verdict = submitted(&sending, &exchange(server.port, &certificate, &authority), &["b@x"], RAW).await;
    assert_eq!((code(&verdict), verdict.whole_mailbox), ("STARTTLS_NOT_OFFERED", true));
    assert_eq!(server.heard(), ["EHLO [127.0.0.1]"]);
    let clear =
        OutgoingDefinition { security: SmtpSecurity::None.into(), ..exchange(server.port, &certificate, &authority) };
    let verdict = submitted(&sending, &clear, &["b@x"], RAW).await;
    assert_eq!(code(&verdict), "SMTP_SIGN_IN_UNSUPPORTED");
    assert_eq!(*server.connections.lock().unwrap(), 1, "not even connected to");
}

#[tokio::test]
async fn what_is_sent_ahead_of_tls_is_not_believed() {
    let certificate = Certificate::new();
    let (_endpoint, authority) = tokens(&["secret-token"]).await;
    let injecting = |line: &str| (line == "STARTTLS").then_some("220 go\r\n250 AUTH PLAIN\r\n");
    let server = Smtp::start(Some(&certificate), false, but(injecting)).await;
    let verdict =
        submitted(&sending(Duration::ZERO), &exchange(server.port, &certificate, &authority), &["b@x"], RAW).await;
    // What came in one packet was thrown away; what is still on the way breaks TLS.
    assert!(verdict.verdict == SendVerdict::Sent || code(&verdict) == "TLS_FAILED", "{verdict:?}");
}

#[tokio::test]
async fn a_stale_token_is_renewed_on_the_same_connection() {
    let certificate = Certificate::new();
    let (endpoint, authority) = tokens(&["stale", "fresh"]).await;
    let stale = BASE64.encode("user=support@contoso.example\x01auth=Bearer stale\x01\x01");
    let explaining = move |line: &str| match line {
        line if line == stale => Some("334 eyJzdGF0dXMiOiI0MDEifQ==\r\n"),
        "" => Some("535 5.7.8 no\r\n"),
        _ => None,
    };
    let server = Smtp::start(Some(&certificate), false, but(explaining)).await;
    let verdict =
        submitted(&sending(Duration::ZERO), &exchange(server.port, &certificate, &authority), &["b@x"], RAW).await;
    assert_eq!(verdict.verdict, SendVerdict::Sent);
    assert_eq!((endpoint.lines().len(), *server.connections.lock().unwrap()), (2, 1));
}

#[tokio::test]
async fn what_a_server_says_of_a_refused_token_is_passed_on() {
    let certificate = Certificate::new();
    let (_endpoint, authority) = tokens(&["opaque"]).await;
    let explaining = |line: &str| match line {
        line if line.starts_with("dXNlc") => Some("334 eyJzdGF0dXMiOiI0MDEifQ==\r\n"),
        "" => Some("535 5.7.8 no\r\n"),
        _ => None,
    };
    let server = Smtp::start(Some(&certificate), false, but(explaining)).await;
    let verdict =
        submitted(&sending(Duration::ZERO), &exchange(server.port, &certificate, &authority), &["b@x"], RAW).await;
    assert_eq!(code(&verdict), "SMTP_TOKEN_REFUSED");
    let cause = verdict.found.expect("a problem").cause;
    assert!(cause.contains("535 5.7.8") && cause.contains(r#"{"status":"401"}"#), "{cause}");
    assert!(!cause.contains("opaque"));
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_then_explained() {
    let certificate = Certificate::new();
    // {"aud":"https://outlook.office365.com"}
    let (endpoint, authority) = tokens(&["e30.eyJhdWQiOiJodHRwczovL291dGxvb2sub2ZmaWNlMzY1LmNvbSJ9.x"]).await;
    let refusing = |line: &str| line.starts_with("dXNlc").then_some("535 5.7.3 Authentication unsuccessful\r\n");
    let server = Smtp::start(Some(&certificate), false, but(refusing)).await;
    let verdict =
        submitted(&sending(Duration::ZERO), &exchange(server.port, &certificate, &authority), &["b@x"], RAW).await;
    assert_eq!((code(&verdict), verdict.whole_mailbox), ("SEND_TOKEN_WITHOUT_RIGHT", true));
    let found = verdict.found.expect("a problem");
    assert!(found.cause.contains("535 5.7.3") && found.remedy.contains("SMTP.SendAsApp"), "{found:?}");
    assert_eq!(endpoint.lines().len(), 2, "renewed once");
    assert_eq!(server.heard().iter().filter(|line| *line == "AUTH XOAUTH2").count(), 2);
    assert_eq!(*server.connections.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_refused_password_is_counted_and_not_tried_for_ever() {
    let certificate = Certificate::new();
    let login = |line: &str| match line {
        line if line.starts_with("EHLO") => Some("250-x\r\n250-STARTTLS\r\n250 AUTH LOGIN\r\n"),
        "cHc=" => Some("535 5.7.8 no\r\n"),
        "YW5uYQ==" => Some("334 UGFzc3dvcmQ6\r\n"),
        _ => None,
    };
    let server = Smtp::start(Some(&certificate), false, but(login)).await;
    let definition = OutgoingDefinition {
        authentication: OutgoingAuthentication::Password.into(),
        user: "anna".into(),
        password: "pw".into(),
        ..exchange(server.port, &certificate, "")
    };
    let sending = sending(Duration::ZERO);
    for _ in 0..3 {
        let verdict = submitted(&sending, &definition, &["b@x"], RAW).await;
        assert_eq!((code(&verdict), verdict.whole_mailbox), ("SMTP_PASSWORD_REFUSED", true));
        assert_eq!(verdict.after, Some(Duration::from_secs(3600)));
    }
    let verdict = submitted(&sending, &definition, &["b@x"], RAW).await;
    assert_eq!(code(&verdict), "PASSWORD_REFUSED");
    assert_eq!(server.heard().iter().filter(|line| *line == "cHc=").count(), 3);
}

#[tokio::test]
async fn each_recipient_has_its_own_answer() {
    let some = |line: &str| match line {
        "RCPT TO:<no@x.example>" => Some("550 5.1.1 User unknown\r\n"),
        "RCPT TO:<later@x.example>" => Some("450 4.7.1 Greylisted\r\n"),
        _ => None,
    };
    let server = Smtp::start(None, false, but(some)).await;
    let (sending, definition) = (sending(Duration::ZERO), relay(server.port));
    let all = ["no@x.example", "yes@x.example", "later@x.example", "bär@x.example"];
    let verdict = submitted(&sending, &definition, &all, RAW).await;
    let told: Vec<_> =
        verdict.recipients.iter().map(|one| (one.address.as_str(), one.state(), one.status.as_str())).collect();
    assert_eq!(verdict.verdict, SendVerdict::Sent);
    assert_eq!(
        told,
        [
            ("no@x.example", RecipientState::Refused, "5.1.1"),
            ("later@x.example", RecipientState::Pending, "4.7.1"),
            ("bär@x.example", RecipientState::Refused, "5.6.7"),
        ]
    );
    assert!(verdict.recipients[0].diagnostic.contains("User unknown"));
    let ledger = Arc::new(Ledger::default());
    let nobody = submitted_by(&ledger, &sending, &definition, &["no@x.example"], RAW).await.expect("a verdict");
    assert_eq!((nobody.verdict, code(&nobody)), (SendVerdict::Failed, "RECIPIENT_REFUSED"));
    let later = submitted_by(&ledger, &sending, &definition, &["no@x.example", "later@x.example"], RAW).await;
    assert_eq!(later.expect("a verdict").verdict, SendVerdict::Deferred);
    assert!(ledger.marked.lock().unwrap().is_empty(), "nothing was to be handed over");
    assert_eq!(server.mails.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_connection_that_is_lost_is_unknown_only_once_the_last_byte_was_sent() {
    let large = format!("S: x\r\n\r\n{}", "x".repeat(70).repeat(200_000));
    for (at, answer, want) in [
        (peer::GREETING, "CLOSE", SendVerdict::Deferred),
        ("EHLO [127.0.0.1]", "CLOSE", SendVerdict::Deferred),
        ("MAIL FROM:<support@contoso.example>", "CLOSE", SendVerdict::Deferred),
        ("RCPT TO:<b@x.example>", "CLOSE", SendVerdict::Deferred),
        ("RCPT TO:<b@x.example>", "421 4.3.0 going down\r\n", SendVerdict::Deferred),
        ("DATA", "CLOSE", SendVerdict::Deferred),
        ("DATA", "354 half\r\n", SendVerdict::Deferred),
        ("DATA", "250 what\r\n", SendVerdict::Deferred),
        ("DATA", "554 5.7.1 no\r\n", SendVerdict::Failed),
        (".", "CLOSE", SendVerdict::Unknown),
        (".", "what?\r\n", SendVerdict::Unknown),
        (".", "354 go on\r\n", SendVerdict::Unknown),
        (".", "451 4.3.0 not now\r\n", SendVerdict::Deferred),
        (".", "554 5.7.1 spam\r\n", SendVerdict::Failed),
        (".", "250\r\n", SendVerdict::Sent),
    ] {
        let script = but(move |line| match line {
            line if line == at => Some(answer),
            line if line.starts_with("EHLO") => Some("250 x\r\n"),
            _ => None,
        });
        let server = Smtp::start(None, false, script).await;
        let raw = if answer.starts_with("354 half") { large.as_str() } else { RAW };
        let verdict = submitted(&sending(Duration::ZERO), &relay(server.port), &["b@x.example"], raw).await;
        assert_eq!(verdict.verdict, want, "{at} {answer}: {verdict:?}");
        if want == SendVerdict::Deferred {
            assert!(verdict.after.is_some() && verdict.found.is_some(), "{at} {answer}");
        }
    }
}

#[tokio::test]
async fn no_data_is_said_without_a_mark() {
    let server = Smtp::start(None, false, Arc::new(obliging)).await;
    let ledger = Arc::new(Ledger::default());
    ledger.marks([Err(crate::send::outbox::Error::ClaimLost)]);
    let end = submitted_by(&ledger, &sending(Duration::ZERO), &relay(server.port), &["b@x.example"], RAW).await;
    assert_eq!(end, None, "there is nobody to tell");
    let heard = server.heard();
    assert!(heard.contains(&"RCPT TO:<b@x.example>".to_owned()) && !heard.contains(&"DATA".to_owned()), "{heard:?}");
}

#[tokio::test]
async fn the_only_worker_sends_mail_after_mail_over_one_connection() {
    let server = Smtp::start(None, false, Arc::new(obliging)).await;
    let definition = relay(server.port);
    let keeping = sending(Duration::from_secs(50));
    for _ in 0..5 {
        assert_eq!(submitted(&keeping, &definition, &["b@x.example"], RAW).await.verdict, SendVerdict::Sent);
    }
    assert_eq!((*server.connections.lock().unwrap(), server.mails.lock().unwrap().len()), (1, 5));
    let strict = sending(Duration::ZERO);
    for _ in 0..3 {
        assert_eq!(submitted(&strict, &definition, &["b@x.example"], RAW).await.verdict, SendVerdict::Sent);
    }
    assert_eq!(*server.connections.lock().unwrap(), 4);
}

#[tokio::test]
async fn a_kept_connection_that_the_server_has_closed_is_opened_anew() {
    let closing = |line: &str| (line == "NOOP").then_some("CLOSE");
    let server = Smtp::start(None, false, but(closing)).await;
    let (sending, definition) = (sending(Duration::from_secs(50)), relay(server.port));
    for _ in 0..2 {
        assert_eq!(submitted(&sending, &definition, &["b@x.example"], RAW).await.verdict, SendVerdict::Sent);
    }
    assert_eq!(*server.connections.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_host_that_nobody_listens_on_holds_the_mailbox_up() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let verdict = submitted(&sending(Duration::ZERO), &relay(port), &["b@x.example"], RAW).await;
    assert_eq!((code(&verdict), verdict.whole_mailbox), ("UNREACHABLE", true));
    assert!(verdict.after >= Some(Duration::from_secs(30)));
}

/// A server that speaks only when it is asked to, and stops to read in the midst of a mail.
async fn stopping_to_read(last_words: &'static str) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"220 ready\r\n").await.unwrap();
        let mut heard = Vec::new();
        loop {
            let mut some = [0; 4096];
            let count = socket.read(&mut some).await.unwrap();
            heard.extend_from_slice(&some[..count]);
            if let Some(at) = heard.windows(2).position(|end| end == b"\r\n") {
                let line = String::from_utf8_lossy(&heard[..at]).into_owned();
                heard.drain(..at + 2);
                let answer = if line.starts_with("DATA") { "354 go\r\n" } else { "250 ok\r\n" };
                socket.write_all(answer.as_bytes()).await.unwrap();
                if line.starts_with("DATA") {
                    break;
                }
            }
        }
        // Some of it, then a word, and no more is read: what is still on its way is answered with a reset.
        let mut some = vec![0; 100_000];
        socket.read_exact(&mut some).await.unwrap();
        socket.write_all(last_words.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(socket);
    });
    port
}

#[tokio::test]
async fn why_a_server_stops_to_read_is_heard() {
    let large = format!("S: x\r\n\r\n{}", "x".repeat(70).repeat(200_000));
    for (last_words, want, found) in [
        ("552 5.3.4 Message size exceeds fixed limit\r\n", SendVerdict::Failed, "MESSAGE_TOO_LARGE"),
        ("452 4.3.1 No room\r\n", SendVerdict::Deferred, "SUBMISSION_UNAVAILABLE"),
        // No mail is complete before its last byte.
        ("250 2.0.0 taken\r\n", SendVerdict::Deferred, "SUBMISSION_LOST"),
        ("", SendVerdict::Deferred, "SUBMISSION_LOST"),
    ] {
        let port = stopping_to_read(last_words).await;
        let verdict = submitted(&sending(Duration::ZERO), &relay(port), &["b@x.example"], &large).await;
        assert_eq!((verdict.verdict, code(&verdict)), (want, found), "{last_words}: {verdict:?}");
    }
}

#[tokio::test]
async fn the_last_line_is_not_written_once_the_time_is_over() {
    let server = Smtp::start(None, false, Arc::new(obliging)).await;
    let definition = relay(server.port);
    let sending = sending(Duration::ZERO);
    // A server that is slow to say 354, as one seems to be to a process that stood still.
    let slow = but(|line| {
        if line == "DATA" {
            std::thread::sleep(Duration::from_millis(400));
        }
        None
    });
    let late = Smtp::start(None, false, slow).await;
    let ledger = Arc::new(Ledger::default());
    ledger.marks([Ok(Duration::from_millis(200))]);
    let end = submitted_by(&ledger, &sending, &relay(late.port), &["b@x.example"], RAW).await;
    assert_eq!(end, None, "it is nothing to this worker any more");
    assert!(late.heard().contains(&"DATA".to_owned()) && late.mails.lock().unwrap().is_empty());
    assert_eq!(submitted(&sending, &definition, &["b@x.example"], RAW).await.verdict, SendVerdict::Sent);
}

#[tokio::test]
async fn a_server_that_hangs_up_after_its_refusal_has_said_why() {
    let certificate = Certificate::new();
    let (_endpoint, authority) = tokens(&["stale", "fresh"]).await;
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let server = Smtp::start(
        Some(&certificate),
        false,
        Arc::new(move |line| match line {
            "AUTH XOAUTH2" if tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0 => None,
            line if line.starts_with("dXNlc") => Some("535 5.7.3 Authentication unsuccessful\r\n".into()),
            line => obliging(line),
        }),
    )
    .await;
    let verdict =
        submitted(&sending(Duration::ZERO), &exchange(server.port, &certificate, &authority), &["b@x"], RAW).await;
    assert_eq!((code(&verdict), verdict.whole_mailbox), ("SMTP_TOKEN_REFUSED", true), "{verdict:?}");
}
