//! Mails to a scripted Graph: what is asked, and what becomes of each when it answers something else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use postroom_proto::v1::{Claim, OutgoingAuthentication, SendVerdict, Transport};
use tokio::time::timeout;

use super::*;
use crate::send::claim::Deadline;
use crate::send::peer::{Asked, Http, Ledger, PATIENCE, mail, sending, token};

const RAW: &str = "From: s@x.example\r\nTo: b@x.example\r\nSubject: s\r\n\r\nHello\r\n";
const SEND: &str = "POST /v1.0/users/a%20b%2F1/sendMail";

/// A thousandth of the real ones.
const LIMITS: Limits = Limits { request: 3_000, uploaded_from: 3_140, range: 3_932 };

/// Tokens and Graph on one port.
async fn graph(answers: impl Fn(&Asked) -> Option<(u16, String, String)> + Send + Sync + 'static) -> Http {
    let tokens = AtomicUsize::new(0);
    Http::start(Arc::new(move |asked| match asked.line.as_str() {
        "POST /t/oauth2/v2.0/token" => token(&format!("token-{}", tokens.fetch_add(1, Ordering::SeqCst))),
        _ => answers(asked),
    }))
    .await
}

fn definition(port: u16) -> OutgoingDefinition {
    OutgoingDefinition {
        uid: "u".into(),
        transport: Transport::Graph.into(),
        host: "127.0.0.1".into(),
        port: port.into(),
        authentication: OutgoingAuthentication::OauthService.into(),
        authority: format!("http://127.0.0.1:{port}/t"),
        client_id: "app".into(),
        client_secret: "planted-secret".into(),
        user: "a b/1".into(),
        ..OutgoingDefinition::default()
    }
}

async fn submitted(server: &Http, recipients: &[&str], raw: &Bytes) -> (Verdict, usize) {
    submitted_as(&definition(server.port), recipients, raw).await
}

async fn submitted_as(definition: &OutgoingDefinition, recipients: &[&str], raw: &Bytes) -> (Verdict, usize) {
    let mail = mail("m1", definition, recipients, "");
    let ledger = Arc::new(Ledger::default());
    let under_way = UnderWay::new(ledger.clone(), Claim::default(), Deadline::after(PATIENCE));
    let sending = Sending { graph: LIMITS, ..sending(Duration::ZERO) };
    let end = submit(&sending, &mail, definition, raw, &under_way);
    let end = timeout(PATIENCE, Box::pin(end)).await.expect("an end");
    let verdict = under_way.verdict(end, 1, 0.5).expect("a verdict");
    let marks = ledger.marked.lock().unwrap().len();
    (verdict, marks)
}

fn json(status: u16, code: &str) -> Option<(u16, String, String)> {
    Some((status, String::new(), format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#)))
}

fn ok(status: u16, body: &str) -> Option<(u16, String, String)> {
    Some((status, "request-id: r-1\r\n".into(), body.to_owned()))
}

/// Requests other than for tokens, and other than looks for what was left behind.
fn asked(server: &Http) -> Vec<Asked> {
    let all = server.asked.lock().unwrap().clone();
    all.into_iter().filter(|asked| !asked.line.contains("oauth2") && !asked.line.starts_with("GET")).collect()
}

fn raw() -> Bytes {
    Bytes::from_static(RAW.as_bytes())
}

#[tokio::test]
async fn a_mail_goes_as_base64_of_its_bytes_with_who_is_hidden_in_front() {
    let server = graph(|_| ok(202, "")).await;
    let (verdict, marks) = submitted(&server, &["b@x.example", "h@x.example"], &raw()).await;
    assert_eq!((verdict, marks), (Verdict::sent("HTTP 202 (request r-1)", Vec::new()), 1));
    let [request]: [Asked; 1] = asked(&server).try_into().expect("one request");
    assert_eq!(request.line, SEND);
    let head = request.head.to_lowercase();
    assert!(head.contains("content-type: text/plain") && head.contains("authorization: bearer token-0"), "{head}");
    let sent = BASE64.decode(&request.body).expect("base64");
    assert_eq!(String::from_utf8(sent).expect("text"), format!("Bcc: h@x.example\r\n{RAW}"));
}

#[tokio::test]
async fn every_answer_has_its_end() {
    for (answer, want, whole) in [
        (json(400, "ErrorInvalidRecipients"), SendVerdict::Failed, false),
        (json(403, "ErrorAccessDenied"), SendVerdict::Deferred, true),
        (json(403, "ErrorSendAsDenied"), SendVerdict::Deferred, false),
        (json(404, "ErrorItemNotFound"), SendVerdict::Deferred, true),
        (json(413, "x"), SendVerdict::Failed, false),
        (json(408, ""), SendVerdict::Unknown, false),
        (json(500, "ErrorInternalServerError"), SendVerdict::Unknown, false),
        (json(503, "ServiceUnavailable"), SendVerdict::Deferred, true),
        (json(503, ""), SendVerdict::Unknown, false),
        (json(504, "x"), SendVerdict::Unknown, false),
        (None, SendVerdict::Unknown, false),
    ] {
        let told = answer.clone();
        let server = graph(move |_| answer.clone()).await;
        let (verdict, _) = submitted(&server, &["b@x.example"], &raw()).await;
        assert_eq!((verdict.verdict, verdict.whole_mailbox), (want, whole), "{told:?} {verdict:?}");
        assert_eq!(asked(&server).len(), 1, "sent once, whatever came of it: {told:?}");
    }
    let server = graph(|_| Some((429, "retry-after: 77\r\n".into(), String::new()))).await;
    let (verdict, _) = submitted(&server, &["b@x.example"], &raw()).await;
    assert!(verdict.whole_mailbox && verdict.after >= Some(Duration::from_secs(77)), "{verdict:?}");
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once() {
    let renewing = |asked: &Asked| match asked.head.contains("token-1") {
        true => ok(202, ""),
        false => json(401, "InvalidAuthenticationToken"),
    };
    let server = graph(renewing).await;
    assert_eq!(submitted(&server, &["b@x.example"], &raw()).await.0.verdict, SendVerdict::Sent);
    let server = graph(|_| json(401, "InvalidAuthenticationToken")).await;
    let (verdict, _) = submitted(&server, &["b@x.example"], &raw()).await;
    assert_eq!(verdict.found.expect("a problem").code, "GRAPH_TOKEN_REFUSED");
    assert!(verdict.whole_mailbox);
    assert_eq!(asked(&server).len(), 2);
}

#[tokio::test]
async fn a_host_that_nobody_listens_on_has_taken_nothing() {
    let server = graph(|_| ok(202, "")).await;
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let definition = OutgoingDefinition { port: port.into(), ..definition(server.port) };
    let mail = mail("m1", &definition, &["b@x.example"], "");
    let under_way = UnderWay::new(Arc::new(Ledger::default()), Claim::default(), Deadline::after(PATIENCE));
    let end = submit(&sending(Duration::ZERO), &mail, &definition, &raw(), &under_way).await;
    let verdict = under_way.verdict(end, 1, 0.5).expect("a verdict");
    assert_eq!((verdict.verdict, verdict.whole_mailbox), (SendVerdict::Deferred, true), "{verdict:?}");
}

/// A mail with attachments of these sizes.
fn with(sizes: &[usize]) -> (Bytes, Vec<Vec<u8>>) {
    let mut text = String::from(
        "From: s@x.example\r\nTo: b@x.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nHello\r\n",
    );
    let mut all = Vec::new();
    for (at, size) in sizes.iter().enumerate() {
        let bytes: Vec<u8> = (0..*size).map(|n| (n % 251) as u8).collect();
        let encoded = BASE64.encode(&bytes);
        let lines: Vec<&str> = encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
        text += &format!(
            "--b\r\nContent-Type: application/pdf; name=\"{at}.pdf\"\r\nContent-Disposition: attachment; \
             filename=\"{at}.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n",
            lines.join("\r\n")
        );
        all.push(bytes);
    }
    (Bytes::from(text + "--b--\r\n"), all)
}

/// Answers for a draft; `last` for its sending.
fn drafting(asked: &Asked, port: u16, last: Option<(u16, String, String)>) -> Option<(u16, String, String)> {
    match asked.line.as_str() {
        line if line.starts_with("GET") => ok(200, r#"{"value":[{"id":"OLD","isDraft":true},{"id":"SENT"}]}"#),
        line if line.starts_with("DELETE") && line.ends_with("/OLD") => ok(204, ""),
        "POST /v1.0/users/a%20b%2F1/messages" => ok(201, r#"{"id":"D1"}"#),
        line if line.ends_with("/createUploadSession") => {
            ok(201, &format!(r#"{{"uploadUrl":"http://127.0.0.1:{port}/upload"}}"#))
        }
        line if line.ends_with("/messages/D1/send") => last,
        line if line.starts_with("DELETE") => ok(204, ""),
        _ => ok(201, "{}"),
    }
}

#[tokio::test]
async fn what_is_too_large_for_a_request_goes_by_a_draft_and_uploads() {
    let uploads = Http::start(Arc::new(|_| ok(200, "{}"))).await;
    let port = uploads.port;
    let server = graph(move |asked| drafting(asked, port, ok(202, ""))).await;
    let (raw, attachments) = with(&[4_000, 1_500, 10]);
    let (verdict, marks) = submitted(&server, &["b@x.example"], &raw).await;
    assert_eq!((verdict.verdict, marks), (SendVerdict::Sent, 1), "{verdict:?}");
    let base = "POST /v1.0/users/a%20b%2F1/messages";
    let lines: Vec<_> = asked(&server).iter().map(|asked| asked.line.clone()).collect();
    // The second one fits beside the text.
    let session = format!("{base}/D1/attachments/createUploadSession");
    // What an earlier attempt left behind goes first, and what was sent stays.
    let left = "DELETE /v1.0/users/a%20b%2F1/messages/OLD".to_owned();
    assert_eq!(lines, [left, base.to_owned(), session, format!("{base}/D1/send")]);
    let draft = BASE64.decode(&asked(&server)[1].body).expect("base64");
    assert!(draft.len() <= LIMITS.request && draft.windows(5).any(|part| part == b"1.pdf"));
    assert!(!draft.windows(5).any(|part| part == b"0.pdf"));
    let ranges = uploads.asked.lock().unwrap().clone();
    let heads: Vec<_> = ranges.iter().map(|range| range.head.to_lowercase()).collect();
    assert!(heads.iter().all(|head| !head.contains("authorization")), "the token stays at home");
    assert!(heads[0].contains("content-range: bytes 0-3929/4000"), "{}", heads[0]);
    assert!(heads[1].contains("content-range: bytes 3930-3999/4000"), "{}", heads[1]);
    assert!(ranges.iter().all(|range| range.body.len() <= LIMITS.range));
    assert_eq!(ranges.iter().flat_map(|range| range.body.clone()).collect::<Vec<_>>(), attachments[0]);
}

#[tokio::test]
async fn several_middling_attachments_go_one_by_one() {
    let server = graph(|asked| drafting(asked, 1, ok(202, ""))).await;
    let (raw, attachments) = with(&[1_500, 1_600, 900]);
    assert_eq!(submitted(&server, &["b@x.example"], &raw).await.0.verdict, SendVerdict::Sent);
    let single: Vec<_> = asked(&server).into_iter().filter(|one| one.line.ends_with("/D1/attachments")).collect();
    let body: Value = serde_json::from_slice(&single[0].body).expect("JSON");
    assert!(single.iter().all(|one| one.body.len() <= 4_194));
    assert_eq!(body["name"], "1.pdf");
    assert_eq!(BASE64.decode(body["contentBytes"].as_str().expect("text").as_bytes()).expect("base64"), attachments[1]);
}

#[tokio::test]
async fn a_draft_that_is_not_sent_is_taken_back_unless_it_may_have_been() {
    let (raw, _) = with(&[3_500]);
    for (last, want, deleted) in [
        (json(403, "ErrorAccessDenied"), SendVerdict::Deferred, true),
        (json(400, "ErrorInvalidRecipients"), SendVerdict::Failed, true),
        (json(504, ""), SendVerdict::Unknown, false),
        (None, SendVerdict::Unknown, false),
    ] {
        let uploads = Http::start(Arc::new(|_| ok(200, "{}"))).await;
        let (port, told) = (uploads.port, last.clone());
        let server = graph(move |asked| drafting(asked, port, last.clone())).await;
        let (verdict, _) = submitted(&server, &["b@x.example"], &raw).await;
        assert_eq!(verdict.verdict, want, "{told:?}");
        assert_eq!(server.lines().iter().any(|line| line.ends_with("/messages/D1")), deleted, "{told:?}");
    }
    // Before there is a draft nothing is marked, and what cannot be known of a draft is no matter.
    let server = graph(|_| json(504, "")).await;
    let (verdict, marks) = submitted(&server, &["b@x.example"], &raw).await;
    assert_eq!((verdict.verdict, marks), (SendVerdict::Deferred, 0));
}

#[tokio::test]
async fn a_range_is_sent_again_after_the_time_that_graph_asks_for() {
    let tries = AtomicUsize::new(0);
    let uploads = Http::start(Arc::new(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Some((429, "retry-after: 0\r\n".into(), String::new())),
        1 => Some((503, "retry-after: 0\r\n".into(), String::new())),
        _ => ok(201, ""),
    }))
    .await;
    let port = uploads.port;
    let server = graph(move |asked| drafting(asked, port, ok(202, ""))).await;
    let (raw, _) = with(&[3_500]);
    assert_eq!(submitted(&server, &["b@x.example"], &raw).await.0.verdict, SendVerdict::Sent);
    assert_eq!(uploads.lines().len(), 3);
}

/// What a draft of this mail is changed to.
async fn changed(definition: impl FnOnce(OutgoingDefinition) -> OutgoingDefinition, to: &[&str], raw: &str) -> Value {
    let made = r#"{"id":"D1","from":{"emailAddress":{"address":"box@contoso.example"}}}"#;
    let server = graph(move |asked| match asked.line.ends_with("/messages") && asked.line.starts_with("POST") {
        true => ok(201, made),
        false => drafting(asked, 1, ok(202, "")),
    })
    .await;
    let definition = definition(self::definition(server.port));
    let end = submitted_as(&definition, to, &Bytes::from(raw.to_owned())).await.0;
    assert_eq!(end.verdict, SendVerdict::Sent, "{end:?}");
    let change = asked(&server).into_iter().find(|one| one.line.starts_with("PATCH"));
    assert!(change.is_none() || asked(&server).iter().all(|one| !one.line.ends_with("/sendMail")));
    change.map_or(Value::Null, |change| serde_json::from_slice(&change.body).expect("JSON"))
}

#[tokio::test]
async fn those_who_have_it_already_are_not_sent_it_again_and_those_who_are_hidden_stay_so() {
    let raw = "To: a@x.example, Berta <b@x.example>\r\nCc: c@x.example\r\nSubject: s\r\n\r\nHello\r\n";
    let one = |address: &str| json!({"emailAddress": {"address": address}});
    let change = changed(|it| it, &["b@x.example", "h@x.example", "c@x.example"], raw).await;
    assert_eq!(
        change,
        json!({
            "toRecipients": [{"emailAddress": {"name": "Berta", "address": "b@x.example"}}],
            "ccRecipients": [one("c@x.example")],
            "bccRecipients": [one("h@x.example")],
            // The mailbox of the GUID has another address than the sender, which a draft shows.
            "from": one("support@contoso.example"),
        })
    );
}

#[tokio::test]
async fn another_address_than_the_mailboxs_own_sends_by_a_right_that_graph_looks_at() {
    let by = |user: &str| {
        let user = user.to_owned();
        move |it| OutgoingDefinition { user, ..it }
    };
    let change = changed(by("box@contoso.example"), &["b@x.example"], RAW).await;
    assert_eq!(change, json!({"from": {"emailAddress": {"address": "support@contoso.example"}}}));
    for own in ["Support@contoso.example", "11111111-2222-3333-4444-555555555555"] {
        assert_eq!(changed(by(own), &["b@x.example"], RAW).await, Value::Null, "{own}");
    }
}

#[tokio::test]
async fn an_attachment_that_is_too_small_to_upload_goes_in_one_request() {
    let refusing = |asked: &Asked| match asked.line.ends_with("/createUploadSession") {
        true => json(400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize"),
        false => drafting(asked, 1, ok(202, "")),
    };
    let (raw, attachments) = with(&[3_500]);
    let server = graph(refusing).await;
    assert_eq!(submitted(&server, &["b@x.example"], &raw).await.0.verdict, SendVerdict::Sent);
    let whole = asked(&server).into_iter().find(|one| one.line.ends_with("/D1/attachments")).expect("a request");
    let body: Value = serde_json::from_slice(&whole.body).expect("JSON");
    let sent = BASE64.decode(body["contentBytes"].as_str().expect("text").as_bytes()).expect("base64");
    assert_eq!(sent, attachments[0]);
    let server = graph(move |asked| match asked.line.ends_with("/D1/attachments") {
        true => json(413, "x"),
        false => refusing(asked),
    })
    .await;
    let (verdict, marks) = submitted(&server, &["b@x.example"], &raw).await;
    assert_eq!((verdict.found.expect("a problem").code.as_str(), marks), ("MESSAGE_TOO_LARGE", 0));
}

#[tokio::test]
async fn an_attachment_that_cannot_be_decoded_is_not_sent_empty() {
    let server = graph(|asked| drafting(asked, 1, ok(202, ""))).await;
    let (raw, _) = with(&[1_500, 2_000]);
    // One letter less: no base64 any more.
    let text = String::from_utf8(raw.to_vec()).expect("text").replacen("\r\n\r\nAAEC", "\r\n\r\nAEC", 2);
    let (verdict, marks) = submitted(&server, &["b@x.example"], &text.into()).await;
    assert_eq!((verdict.verdict, marks), (SendVerdict::Deferred, 0), "{verdict:?}");
}

#[tokio::test]
async fn the_head_of_an_answer_counts_when_its_body_breaks_off() {
    // More is announced than comes.
    let cut = |status: u16| Some((status, "content-length: 100\r\n".to_owned(), "{".to_owned()));
    for (status, want) in [
        (202, SendVerdict::Sent),
        (413, SendVerdict::Failed),
        (429, SendVerdict::Deferred),
        (500, SendVerdict::Unknown),
    ] {
        let server = graph(move |_| cut(status)).await;
        let (verdict, _) = submitted(&server, &["b@x.example"], &raw()).await;
        assert_eq!(verdict.verdict, want, "{status}: {verdict:?}");
    }
}

#[tokio::test]
async fn a_mail_whose_time_is_over_is_not_handed_over() {
    let server = graph(|_| ok(202, "")).await;
    let definition = definition(server.port);
    let mail = mail("m1", &definition, &["b@x.example"], "");
    let ledger = Arc::new(Ledger::default());
    ledger.marks([Ok(Duration::ZERO)]);
    let under_way = UnderWay::new(ledger, Claim::default(), Deadline::after(PATIENCE));
    let end = submit(&sending(Duration::ZERO), &mail, &definition, &raw(), &under_way).await;
    assert_eq!(end, Err(Broken::ClaimLost));
    assert!(asked(&server).is_empty());
    // Nor the rest of one that was begun.
    let mut api = Api::open(&sending(Duration::ZERO), &definition).await.expect("a token");
    let deadline = Deadline::after(Duration::ZERO);
    let end = api.hand_over(Step::Send, &["sendMail"], Body::Mime(raw()), deadline).await;
    assert!(matches!(end, Err(Broken::ClaimLost)) && asked(&server).is_empty());
}

#[test]
fn the_limits_are_those_that_are_documented() {
    let Limits { request, uploaded_from, range } = Limits::default();
    let encoded = |bytes: u64| bytes.div_ceil(3) * 4;
    assert!(encoded(request as u64) <= 4_000_000 && range <= 4_000_000);
    // Beside the bytes there is a little JSON.
    assert!(encoded(uploaded_from - 1) + 900 < 4 * 1024 * 1024 && uploaded_from >= 3_000_000);
}

#[tokio::test]
async fn text_that_no_request_carries_is_refused() {
    let server = graph(|asked| drafting(asked, 1, ok(202, ""))).await;
    let raw = Bytes::from(format!("To: b@x.example\r\n\r\n{}", "x".repeat(LIMITS.request + 1)));
    let (verdict, marks) = submitted(&server, &["b@x.example"], &raw).await;
    assert_eq!((verdict.verdict, marks), (SendVerdict::Failed, 0));
    assert_eq!(verdict.found.expect("a problem").code, "MESSAGE_TOO_LARGE");
}
