//! What a contact says of its message: its kind, and its attachments as they were sent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use postroom_proto::v1::{self, ContactKind};

use crate::harness::{SERVICE, Stage, eventually};

fn message(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../worker/tests/corpus").join(name)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_contact_says_the_kind_of_its_message() {
    use ContactKind::{AutoReply, Bounce, Bulk, Calendar, Normal, Receipt};
    const KINDS: [(&str, &str, ContactKind); 6] = [
        ("plain.eml", "A question", Normal),
        ("bounce-rfc3464.eml", "Undelivered Mail Returned to Sender", Bounce),
        ("receipt-rfc8098.eml", "Read: Your invoice", Receipt),
        ("out-of-office-exchange.eml", "Automatic reply: Your invoice", AutoReply),
        ("newsletter.eml", "Our offers", Bulk),
        ("invitation.eml", "Meeting", Calendar),
    ];
    let stage = Stage::set().await;
    let messages: Vec<Vec<u8>> = KINDS.iter().map(|(name, _, _)| message(name)).collect();
    stage.testbed.fill(SERVICE, &messages).await.unwrap();
    let up = stage.up().await;
    let client = up.client();
    let listed = async || client.list_contacts(v1::ListContactsRequest::default(), u32::MAX).await.unwrap();
    eventually("all are contacts", async || listed().await.contacts.len() == KINDS.len()).await;
    let found: BTreeMap<String, ContactKind> = listed()
        .await
        .contacts
        .into_iter()
        .map(|contact| (contact.content.as_ref().unwrap().subject.clone(), contact.kind()))
        .collect();
    let expected: BTreeMap<String, ContactKind> =
        KINDS.iter().map(|(_, subject, kind)| ((*subject).to_owned(), *kind)).collect();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_come_as_long_as_their_contact_says_and_as_they_were_sent() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../worker/tests/corpus");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let eml = files.filter(|path| path.extension().is_some_and(|end| end == "eml"));
    let mut messages: Vec<Vec<u8>> = eml.map(|path| std::fs::read(path).unwrap()).collect();
    // Servers take no message without a byte, and rewrite null bytes. A placeholder is no contact.
    messages.retain(|raw| !raw.is_empty() && !raw.contains(&0) && !raw.starts_with(b"From: \"Microsoft Exchange"));
    let stage = Stage::set().await;
    stage.testbed.fill(SERVICE, &messages).await.unwrap();
    let up = stage.up().await;
    let client = up.client();
    let listed = async || client.list_contacts(v1::ListContactsRequest::default(), u32::MAX).await.unwrap();
    eventually("all are contacts", async || listed().await.contacts.len() == messages.len()).await;
    let mut found = BTreeMap::new();
    for contact in listed().await.contacts {
        let content = contact.content.unwrap();
        for attachment in &content.attachments {
            let mut stream = client.get_attachment(contact.id.clone(), attachment.index).await.unwrap();
            let mut bytes = Vec::new();
            while let Some(chunk) = stream.next().await.unwrap() {
                bytes.extend_from_slice(&chunk.data);
            }
            assert_eq!(bytes.len() as u64, attachment.size_bytes, "{} of {:?}", attachment.name, content.subject);
            found.insert((content.subject.clone(), attachment.name.clone()), bytes);
        }
    }
    assert!(found.len() > 20, "{:?}", found.keys());
    for (subject, name, bytes) in [
        ("Picture inside", "logo.png", &b"\x89PNG\r\n\x1a\n"[..]),
        ("Picture inside", "invoice.pdf", b"%PDF-1.7\n"),
        ("Letters are missing", "a.bin", b"\0\x01\x02"),
        ("Text and a text file", "list.csv", "a;b;c\r\nä;1".as_bytes()),
        ("Names in pieces", "Jährliche Abrechnung 2024.pdf", b"a"),
    ] {
        assert_eq!(found.get(&(subject.to_owned(), name.to_owned())).map(Vec::as_slice), Some(bytes), "{name}");
    }
}
