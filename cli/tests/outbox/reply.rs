//! A customer writes, and is answered.

use mail_parser::{MessageParser, MimeHeaders as _};
use postroom_proto::v1::{self, OutboxState};
use postroom_testbed::mail::Mail;

use crate::harness::eventually;
use crate::office::{ANNA, By, File, Office, Outbox, address, draft, next_contact};

const SALES: &str = "sales@contoso.example";
/// The customer's own name, and that of a file: beyond ASCII, with what must be quoted.
const NAME: &str = "Änna \"Kunde\" Müller, Ltd.";
const FILE_NAME: &str = "Überblick \"März\" 🙂.bin";
/// Two mails of the thread so far.
const FIRST: &str = "first.of.thread@customer.example";
const SECOND: &str = "second@customer.example";

/// A customer's mail comes in, is answered with text, HTML and files, and the answer lies in the customer's mailbox and in
/// Sent Items, in its thread. What it returns.
async fn check(by: By, attachment_bytes: usize) {
    let office = Office::open(&[(SALES, by)]).await;
    let up = office.stage.up().await;
    let (client, outbox) = (up.client(), Outbox::of_up(&up));
    let question = Mail::to(SALES)
        .from("=?utf-8?B?w4RubmEgIkt1bmRlIiBNw7xsbGVyLCBMdGQu?= <anna@customer.example>")
        .subject("=?utf-8?Q?Gr=C3=BC=C3=9Fe?=")
        .message_id(SECOND)
        .header("References", &format!("<{FIRST}>"))
        .header("In-Reply-To", &format!("<{FIRST}>"));
    office.bed().deliver(&question).await.unwrap();
    let contact = next_contact(&client).await;

    let inline = File {
        name: "logo.png".into(),
        media_type: "image/png".into(),
        content_id: "logo@contoso".into(),
        content: (0..=255).cycle().take(3_000).collect(),
    };
    let content: Vec<u8> = (0..attachment_bytes).map(|number| (number * 31 % 253) as u8).collect();
    let large = File { name: FILE_NAME.into(), media_type: String::new(), content_id: String::new(), content };
    let text = "Guten Tag,\n\n.eine Zeile mit Punkt\n..\n€ ÄÖÜ\n";
    let html = "<p>Guten Tag <img src=\"cid:logo@contoso\"></p>";
    let written = v1::Draft {
        contact: contact.id.clone(),
        from: None,
        to: Vec::new(),
        cc: vec![address("copy@customer.example")],
        bcc: vec![address("hidden@customer.example")],
        subject: String::new(),
        text: text.into(),
        html: html.into(),
        ..draft(SALES, &[], "")
    };
    let files = [inline, large];
    let stored = outbox.reply(written.clone(), &files).await.unwrap();
    assert_eq!(outbox.reply(written.clone(), &files).await.unwrap().id, stored.id, "a repetition is the same mail");
    let other = v1::Draft { text: "another".into(), ..written };
    assert_eq!(outbox.reply(other, &files).await.unwrap_err().code(), tonic::Code::AlreadyExists);
    let sent = outbox.becomes(&stored.id, OutboxState::Sent).await;
    assert_eq!(sent.message_id, stored.message_id);

    for recipient in [ANNA, "copy@customer.example", "hidden@customer.example"] {
        office.arrives(recipient, &sent.message_id).await;
        assert_eq!(office.arrived(recipient, &sent.message_id).await, 1, "{recipient}");
    }
    eventually("a copy lies in Sent Items", || async { office.kept(SALES, &sent.message_id).await == 1 }).await;

    let raw = office.bed().dovecot.doveadm(&["fetch", "-u", ANNA, "text", "mailbox", "INBOX", "all"]).await.unwrap();
    let raw = raw.trim_start_matches("text:").trim_start();
    let mail = MessageParser::default().parse(raw.as_bytes()).unwrap();
    let ids = |value: &mail_parser::HeaderValue<'_>| -> Vec<String> {
        value.as_text_list().unwrap_or_default().iter().map(ToString::to_string).collect()
    };
    assert_eq!(mail.message_id().unwrap(), stored.message_id);
    assert_eq!(
        (ids(mail.in_reply_to()), ids(mail.references())),
        (vec![SECOND.into()], vec![FIRST.into(), SECOND.into()])
    );
    assert_eq!(mail.subject().unwrap(), "Re: Grüße");
    let from = mail.from().unwrap().first().unwrap();
    assert_eq!(from.address().unwrap(), SALES);
    let to = mail.to().unwrap().first().unwrap();
    assert_eq!((to.name().unwrap(), to.address().unwrap()), (NAME, ANNA));
    assert!(mail.bcc().is_none() && !raw.contains("hidden@"), "{raw}");
    let plain = mail.body_text(0).unwrap().replace("\r\n", "\n");
    assert_eq!((plain.trim_end(), mail.body_html(0).unwrap().trim_end()), (text.trim_end(), html));
    let contents: Vec<&[u8]> = mail.attachments().map(|part| part.contents()).collect();
    assert_eq!(contents.len(), 2);
    for file in &files {
        assert!(contents.contains(&&file.content[..]), "{} is not what was attached", file.name);
    }
    let names: Vec<&str> = mail.attachments().filter_map(|part| part.attachment_name()).collect();
    assert!(names.contains(&FILE_NAME), "{names:?}");

    // The customer answers the answer: it joins the thread by our own Message-ID.
    let answer = Mail::to(SALES).subject("Re: Re").header("In-Reply-To", &format!("<{}>", stored.message_id));
    office.bed().deliver(&answer).await.unwrap();
    assert_eq!(next_contact(&client).await.thread, contact.thread);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_smtp_with_a_token() {
    check(By::Smtp, 300_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_graph_with_tenant_id_and_guid() {
    check(By::Graph, 300_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_graph_when_it_is_too_large_for_one_request() {
    check(By::Graph, 9_000_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_every_other_way_to_an_smtp_server() {
    for by in [By::Smtps, By::Password, By::Relay] {
        let office = Office::open(&[(SALES, by)]).await;
        let up = office.stage.up().await;
        let outbox = Outbox::of_up(&up);
        // The second goes over the connection of the first, where there is one.
        for subject in ["one", "two"] {
            let stored = outbox.send(draft(SALES, &[ANNA], subject), &[]).await.unwrap();
            let sent = outbox.becomes(&stored.id, OutboxState::Sent).await;
            office.arrives(ANNA, &sent.message_id).await;
            assert_eq!(sent.problem, None, "{by:?}");
        }
    }
}
