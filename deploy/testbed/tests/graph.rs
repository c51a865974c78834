//! The stand-in for Microsoft Graph.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

mod submission;

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use postroom_testbed::{
    APP_SCOPE, GRAPH_SCOPE, Testbed,
    dovecot::SENT_ITEMS,
    graph::{Answer, Graph, LARGEST_REQUEST, Step, UPLOAD_FROM},
    tenant::Permission,
};
use serde_json::{Value, json};

use crate::submission::{app_token, eventually, user_token, web};

const SALES: &str = "sales@contoso.example";
const ANNA: &str = "anna@customer.example";

/// Asks as the bearer of one token.
struct Caller<'a> {
    graph: &'a Graph,
    http: reqwest::Client,
    token: String,
}

/// Status, `error.code` and the body of an answer.
#[derive(Debug)]
struct Said {
    status: u16,
    code: String,
    body: Value,
    retry_after: Option<String>,
}

impl Said {
    fn is(&self, status: u16, code: &str) -> bool {
        (self.status, self.code.as_str()) == (status, code)
    }
}

impl<'a> Caller<'a> {
    async fn new(testbed: &'a Testbed) -> Self {
        Self::with(testbed, app_token(testbed, GRAPH_SCOPE).await).await
    }

    async fn with(testbed: &'a Testbed, token: String) -> Self {
        Self { graph: testbed.graph().await.unwrap(), http: web(testbed), token }
    }

    async fn post(&self, path: &str, media_type: &str, body: impl Into<reqwest::Body>) -> Result<Said, reqwest::Error> {
        let url = format!("https://{}/v1.0/users/{path}", self.graph.addr());
        let request = self.http.post(url).bearer_auth(&self.token).header("content-type", media_type).body(body);
        said(request).await
    }

    async fn json(&self, path: &str, body: Value) -> Said {
        self.post(path, "application/json", body.to_string()).await.unwrap()
    }

    async fn send(&self, user: &str, mail: &str) -> Result<Said, reqwest::Error> {
        self.post(&format!("{user}/sendMail"), "text/plain", STANDARD.encode(mail)).await
    }

    async fn find(&self, id: &str) -> Vec<Value> {
        let filter = format!("internetMessageId eq '<{id}>'");
        let query: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("$filter", &filter).finish();
        let url = format!("https://{}/v1.0/users/{SALES}/messages?{query}", self.graph.addr());
        let said = said(self.http.get(url).bearer_auth(&self.token)).await.unwrap();
        said.body["value"].as_array().unwrap_or_else(|| panic!("{said:?}")).clone()
    }
}

async fn said(request: reqwest::RequestBuilder) -> Result<Said, reqwest::Error> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    let body: Value = serde_json::from_slice(&response.bytes().await?).unwrap_or_default();
    Ok(Said { status, code: body["error"]["code"].as_str().unwrap_or_default().to_owned(), body, retry_after })
}

fn mail(id: &str, to: &str) -> String {
    submission::mail(id, to)
}

async fn found(testbed: &Testbed, mailbox: &str, folder: &str, id: &str) -> usize {
    testbed.dovecot.count_by_id(mailbox, folder, id).await.unwrap()
}

#[tokio::test]
async fn a_mail_is_from_the_mailbox_of_the_path_and_reaches_everybody_its_headers_name() {
    let testbed = Testbed::start().await.unwrap();
    let caller = Caller::new(&testbed).await;
    let guid = testbed.tenant.object_id(SALES);
    let mail =
        mail("one@x", ANNA).replace("From: sales", "From: other").replace("Subject", "Bcc: b@c.example\r\nSubject");
    assert!(caller.send(&guid, &mail).await.unwrap().is(202, ""));
    for (mailbox, folder) in [(ANNA, "INBOX"), ("b@c.example", "INBOX"), (SALES, SENT_ITEMS)] {
        assert_eq!(found(&testbed, mailbox, folder, "one@x").await, 1, "{mailbox}");
    }
    let text = testbed.dovecot.doveadm(&["fetch", "-u", ANNA, "text", "mailbox", "INBOX", "all"]).await.unwrap();
    assert!(
        text.contains(&format!("From: <{SALES}>")) && !text.contains("Bcc") && text.contains("It is here."),
        "{text}"
    );
    let accepted = caller.graph.accepted();
    assert_eq!((accepted.len(), accepted[0].mailbox.as_str(), accepted[0].recipients.len()), (1, SALES, 2));

    caller.graph.set_keeps_copy(false);
    assert!(caller.send(SALES, &self::mail("two@x", ANNA)).await.unwrap().is(202, ""));
    assert_eq!(found(&testbed, SALES, SENT_ITEMS, "two@x").await, 0);
    assert_eq!(caller.find("one@x").await[0]["isDraft"], json!(false));
    assert_eq!(caller.find("two@x").await, Vec::<Value>::new());

    let back = "bounce-5.7.1@customer.example";
    assert!(caller.send(SALES, &self::mail("three@x", back)).await.unwrap().is(202, ""));
    let text = testbed.dovecot.doveadm(&["fetch", "-u", SALES, "text", "mailbox", "INBOX", "all"]).await.unwrap();
    assert!(text.contains("Status: 5.7.1") && text.contains("Message-ID: <three@x>"), "{text}");

    let letter = json!({"message": {"subject": "S", "body": {"contentType": "HTML", "content": "<p>Hi</p>"},
        "toRecipients": [{"emailAddress": {"address": ANNA}}]}, "saveToSentItems": true});
    assert_eq!(caller.json(&format!("{SALES}/sendMail"), letter).await.status, 202);
    assert_eq!(testbed.dovecot.count(ANNA, "INBOX").await.unwrap(), 3);
}

#[tokio::test]
async fn what_is_wrong_is_said_as_graph_says_it() {
    let testbed = Testbed::start().await.unwrap();
    let caller = Caller::new(&testbed).await;
    let send_mail = format!("{SALES}/sendMail");
    let mail = mail("one@x", ANNA);
    let good = STANDARD.encode(&mail);
    for (user, media_type, body, status, code) in [
        (SALES, "text/plain", format!("\"{good}\""), 400, "ErrorMimeContentInvalidBase64String"),
        (SALES, "application/json", format!("\"{good}\""), 400, "BadRequest"),
        (SALES, "message/rfc822", mail.clone(), 415, "UnsupportedMediaType"),
        (SALES, "text/plain", STANDARD.encode("From: a@b.example\r\n\r\n"), 400, "ErrorInvalidRecipients"),
        (SALES, "text/plain", STANDARD.encode("To: anna\r\n\r\n"), 400, "ErrorInvalidRecipients"),
        (SALES, "text/plain", "A".repeat(LARGEST_REQUEST + 4), 413, "BadRequest"),
        ("nobody@elsewhere.example", "text/plain", good.clone(), 404, "ErrorInvalidUser"),
        ("7e57bed0-0000-4a11-9b0d-0c0ffee0ca11", "text/plain", good.clone(), 404, "ErrorInvalidUser"),
    ] {
        let said = caller.post(&format!("{user}/sendMail"), media_type, body).await.unwrap();
        assert!(said.is(status, code), "{user} {media_type}: {said:?}");
    }

    let with = async |token: String| Caller::with(&testbed, token).await.send(SALES, &mail).await.unwrap();
    assert!(with("nonsense".to_owned()).await.is(401, "InvalidAuthenticationToken"));
    let exchange = with(app_token(&testbed, APP_SCOPE).await).await;
    assert!(exchange.is(401, "InvalidAuthenticationToken"), "{exchange:?}");
    assert!(exchange.body["error"]["message"].as_str().unwrap().contains("audience"), "{exchange:?}");
    let client_id = testbed.service().client_id.clone();
    testbed.tenant.set_permission(&client_id, Permission::GraphSend, false);
    let reader = app_token(&testbed, GRAPH_SCOPE).await;
    assert!(with(reader.clone()).await.is(403, "ErrorAccessDenied"));
    let reader = Caller::with(&testbed, reader).await;
    assert_eq!(reader.post(&format!("{SALES}/messages"), "text/plain", good).await.unwrap().status, 201);

    for user in [SALES, "eve@contoso.example"] {
        testbed.tenant.set_password(user, "p");
    }
    let scope = "https://graph.microsoft.com/Mail.Send";
    assert!(with(user_token(&testbed, scope, "eve@contoso.example", "p").await).await.is(403, "ErrorAccessDenied"));
    assert!(with(user_token(&testbed, scope, SALES, "p").await).await.is(202, ""));
    assert!(with(user_token(&testbed, "Mail.ReadWrite", SALES, "p").await).await.is(403, "ErrorAccessDenied"));

    testbed.tenant.set_token_lifetime(Duration::from_secs(1));
    let short = user_token(&testbed, scope, SALES, "p").await;
    // Bounded: the token ends by itself.
    let refused = loop {
        let said = with(short.clone()).await;
        if said.status != 202 {
            break said;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(refused.body["error"]["message"].as_str().unwrap().contains("expired"), "{refused:?}");

    caller.graph.set_largest_mail(100);
    let said = caller.post(&send_mail, "text/plain", STANDARD.encode(&mail)).await.unwrap();
    assert!(said.is(413, "ErrorMessageSizeExceeded"), "{said:?}");
}

#[tokio::test]
async fn limits_and_orders_hold_and_what_was_delivered_is_known() {
    let testbed = Testbed::start().await.unwrap();
    let caller = Caller::new(&testbed).await;
    let graph = caller.graph;
    for answer in [
        Answer::throttled(7),
        Answer::unavailable(),
        Answer::send_as_denied(),
        Answer::access_denied(),
        Answer::no_mailbox(),
    ] {
        graph.answer(Step::Send, SALES, 1, answer.clone());
        let said = caller.send(SALES, &mail("one@x", ANNA)).await.unwrap();
        assert!(said.is(answer.status, &answer.code), "{said:?}");
        assert_eq!(said.retry_after, answer.retry_after.map(|seconds| seconds.to_string()));
    }
    graph.cut(Step::Send, SALES, 1);
    assert!(caller.send(SALES, &mail("one@x", ANNA)).await.is_err());
    assert_eq!(graph.accepted(), []);
    graph.cut(Step::Accepted, SALES, 1);
    assert!(caller.send(SALES, &mail("two@x", ANNA)).await.is_err());
    assert_eq!((graph.accepted().len(), found(&testbed, ANNA, "INBOX", "two@x").await), (1, 1));

    let stall = graph.stall(Step::Send, "", 0);
    let mails: Vec<String> = (0..4).map(|number| mail(&format!("at-once-{number}@x"), ANNA)).collect();
    let sending = futures::future::join_all(mails.iter().map(|mail| caller.send(SALES, mail)));
    let one_more = async {
        stall.arrived(4).await.unwrap();
        let said = caller.send(SALES, &mail("too-many@x", ANNA)).await.unwrap();
        assert!(said.is(429, "ApplicationThrottled") && said.retry_after.is_some(), "{said:?}");
        stall.release();
    };
    let (sent, ()) = tokio::join!(sending, one_more);
    assert!(sent.into_iter().all(|said| said.unwrap().status == 202));
    assert_eq!(graph.most_at_once(SALES), 5);

    // A client that goes away does not end the work on its request.
    let stall = graph.stall(Step::Send, "", 1);
    let left = mail("left@x", ANNA);
    tokio::select! {
        said = caller.send(SALES, &left) => panic!("{said:?}"),
        arrived = stall.arrived(1) => arrived.unwrap(),
    }
    stall.release();
    eventually("it arrives", async || found(&testbed, ANNA, "INBOX", "left@x").await == 1).await;

    graph.set_rate(1, Duration::from_secs(3600));
    assert_eq!(caller.send(SALES, &mail("in-time@x", ANNA)).await.unwrap().status, 202);
    let said = caller.send(SALES, &mail("too-soon@x", ANNA)).await.unwrap();
    assert_eq!(said.status, 429);
    let seconds: u64 = said.retry_after.unwrap().parse().unwrap();
    assert!((3000..=3600).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_large_mail_goes_by_a_draft_and_its_attachments_arrive_byte_for_byte() {
    let testbed = Testbed::start().await.unwrap();
    let caller = Caller::new(&testbed).await;
    let messages = format!("{SALES}/messages");
    let made = caller.post(&messages, "text/plain", STANDARD.encode(mail("one@x", ANNA))).await.unwrap();
    assert_eq!((made.status, &made.body["internetMessageId"]), (201, &json!("<one@x>")));
    let draft = format!("{messages}/{}", made.body["id"].as_str().unwrap());
    assert_eq!(caller.find("one@x").await[0]["isDraft"], json!(true));

    let small = json!({"@odata.type": "#microsoft.graph.fileAttachment", "name": "ä.txt", "contentType": "text/plain",
        "contentBytes": STANDARD.encode("small")});
    assert_eq!(caller.json(&format!("{draft}/attachments"), small).await.status, 201);
    let content: Vec<u8> = (0..UPLOAD_FROM + (2 << 20)).map(|number| (number * 7 % 251) as u8).collect();
    let session = |size: usize| json!({"AttachmentItem": {"attachmentType": "file", "name": "b.bin", "size": size}});
    let begin = format!("{draft}/attachments/createUploadSession");
    let refused = caller.json(&begin, session(UPLOAD_FROM - 1)).await;
    assert!(refused.is(400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize"), "{refused:?}");
    let begun = caller.json(&begin, session(content.len())).await;
    let url = begun.body["uploadUrl"].as_str().unwrap();
    let put = |first: usize, last: usize| {
        let range = format!("bytes {first}-{last}/{}", content.len());
        caller.http.put(url).header("content-range", range).body(content[first..=last].to_vec())
    };
    let (middle, end) = (LARGEST_REQUEST, content.len() - 1);
    assert_eq!(said(put(middle, end)).await.unwrap().status, 416);
    assert_eq!(said(put(0, middle - 1).bearer_auth(&caller.token)).await.unwrap().status, 401);
    let next = said(put(0, middle - 1)).await.unwrap();
    assert_eq!(next.body["nextExpectedRanges"], json!([middle.to_string()]));
    assert_eq!(said(caller.http.get(url)).await.unwrap().body, next.body);
    assert_eq!(said(put(middle, end)).await.unwrap().status, 201);

    assert_eq!(caller.post(&format!("{draft}/send"), "text/plain", "").await.unwrap().status, 202);
    let again = caller.post(&format!("{draft}/send"), "text/plain", "").await.unwrap();
    assert!(again.is(404, "ErrorItemNotFound"), "{again:?}");
    assert_eq!((caller.graph.draft_count(), found(&testbed, SALES, SENT_ITEMS, "one@x").await), (0, 1));
    let text = testbed.dovecot.doveadm(&["fetch", "-u", ANNA, "text", "mailbox", "INBOX", "all"]).await.unwrap();
    let message = mail_parser::MessageParser::default().parse(text.trim_start_matches("text:").trim_start()).unwrap();
    let contents: Vec<&[u8]> = message.attachments().map(|part| part.contents()).collect();
    assert_eq!(contents, [b"small".as_slice(), &content]);
}
