//! What is taken, what is refused, and what an answer takes of its contact.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::definition::model::{Address, Parts};
use crate::definition::sample;

fn model() -> Model {
    let address = |email: &str, sender| Address { sender, ..sample::address(email) };
    let billing = vec![address("Billing@Contoso.example", true), address("mute@contoso.example", false)];
    let queues = vec![
        Arc::new(sample::queue("Billing", "core1", billing)),
        Arc::new(sample::queue("Münster", "core1", vec![address("post@münster.example", true)])),
        Arc::new(sample::queue("Other", "core2", vec![address("other@contoso.example", true)])),
    ];
    let instances = vec![Arc::new(sample::instance("core1")), Arc::new(sample::instance("core2"))];
    Model::new(1, Parts { instances, servers: vec![Arc::new(sample::incoming())], queues, ..Parts::default() })
}

fn address(name: &str, address: &str) -> EmailAddress {
    EmailAddress { name: name.into(), address: address.into() }
}

fn contact() -> Contact {
    Contact {
        id: "c1".into(),
        queue_uid: "uid-Billing".into(),
        address: "billing@contoso.example".into(),
        content: Some(v1::ContactContent {
            from: vec![address("Ada\r\nBcc: x@y.example", "ada@fabrikam.example")],
            subject: "RE: re:  Invoice\r\nBcc: x@y.example".into(),
            message_id: "three@x".into(),
            in_reply_to: vec!["two@x".into()],
            references: vec!["one@x".into(), "bad id".into(), "two@x".into()],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn draft() -> v1::Draft {
    v1::Draft { text: "Hello".into(), ..Default::default() }
}

fn checked(draft: v1::Draft, reply: Option<&Contact>) -> Result<Composition, Vec<String>> {
    let model = model();
    let instance = model.instance("core1").unwrap();
    check(draft, instance, reply, &model).map_err(|failure| failure.fields.into_iter().map(|it| it.field).collect())
}

#[test]
fn an_answer_takes_from_its_contact_what_is_left_out() {
    let mail = checked(draft(), Some(&contact())).unwrap();
    assert_eq!(mail.lane, Lane::new("uid-core1", "uid-Billing", "billing@contoso.example"));
    assert_eq!((mail.queue.as_str(), mail.contact.as_str()), ("Billing", "c1"));
    assert_eq!(mail.from, address("", "Billing@contoso.example"), "as it is defined");
    assert_eq!(mail.recipients, [(RecipientKind::To, address("Ada  Bcc: x@y.example", "ada@fabrikam.example"))]);
    assert_eq!(mail.subject, "Re: Invoice  Bcc: x@y.example");
    assert_eq!(mail.in_reply_to.as_deref(), Some("three@x"));
    assert_eq!(mail.references, ["one@x", "two@x", "three@x"]);

    let mut other = contact();
    other.content.as_mut().unwrap().reply_to = vec![address("", "list@fabrikam.example"), address("", "broken")];
    assert_eq!(checked(draft(), Some(&other)).unwrap().recipients[0].1, address("", "list@fabrikam.example"));
    let written = v1::Draft {
        to: vec![address("Bob", "bob@x.example")],
        cc: vec![address("", "BOB@x.example"), address("", "eve@x.example")],
        subject: "Other".into(),
        from: Some(address("Post", "post@münster.example")),
        ..draft()
    };
    let mail = checked(written, Some(&contact())).unwrap();
    assert_eq!(mail.from, address("Post", "post@xn--mnster-3ya.example"));
    assert_eq!(mail.lane, Lane::new("uid-core1", "uid-Münster", "post@münster.example"));
    let kinds: Vec<_> = mail.recipients.iter().map(|(kind, it)| (*kind, it.address.as_str())).collect();
    assert_eq!(kinds, [(RecipientKind::To, "bob@x.example"), (RecipientKind::Cc, "eve@x.example")], "each once");
    assert_eq!(mail.subject, "Other");
}

#[test]
fn all_faults_are_told_at_once() {
    let bad = v1::Draft {
        from: Some(address("A\nB", "mute@contoso.example")),
        to: vec![address("", "nobody"), address("x\u{2028}y", "ok@x.example")],
        cc: vec![address("", "zoë@x.example")],
        bcc: vec![address("", "a b@x.example")],
        subject: "one\r\nBcc: two@x.example".into(),
        ..Default::default()
    };
    let expected =
        ["text", "subject", "from.name", "from", "to[0].address", "to[1].name", "cc[0].address", "bcc[0].address"];
    assert_eq!(checked(bad, None).unwrap_err(), expected);
    assert_eq!(checked(draft(), None).unwrap_err(), ["from", "to"]);
    let to = vec![address("", "a@x.example")];
    let foreign = v1::Draft { from: Some(address("", "other@contoso.example")), to, ..draft() };
    assert_eq!(checked(foreign, None).unwrap_err(), ["from"], "another instance's address");
    let mut unanswerable = contact();
    unanswerable.content.as_mut().unwrap().from = vec![address("Nobody", "")];
    assert_eq!(checked(draft(), Some(&unanswerable)).unwrap_err(), ["to"]);
    let many = (0..501).map(|n| address("", &format!("r{n}@x.example"))).collect();
    let from = Some(address("", "billing@contoso.example"));
    assert_eq!(checked(v1::Draft { to: many, from, ..draft() }, None).unwrap_err(), ["to"]);
}

#[test]
fn addresses_become_ascii_or_are_refused() {
    for (written, ascii) in [
        ("ada@x.example", "ada@x.example"),
        (" ada@X.example ", "ada@x.example"),
        ("ada+tag@Grüße.example", "ada+tag@xn--gre-6ka8l.example"),
        ("ada@例え.example", "ada@xn--r8jz45g.example"),
        ("o'neil/x@x.example", "o'neil/x@x.example"),
    ] {
        assert_eq!(ascii_address(written).as_deref(), Ok(ascii), "{written}");
    }
    for (written, says) in [
        ("ada", "name@domain"),
        ("", "name@domain"),
        ("@x.example", "name@domain"),
        ("zoë@x.example", "outside ASCII"),
        ("a b@x.example", "name@domain"),
        ("\"a b\"@x.example", "name@domain"),
        ("a..b@x.example", "name@domain"),
        ("ada@x.example>\r\nRCPT TO:<eve@x.example", "@"),
        ("ada@[127.0.0.1]", "@"),
        ("ada@x..example", "@"),
        ("<ada@x.example>", "@"),
    ] {
        let fault = ascii_address(written).unwrap_err();
        assert!(fault.contains(says), "{written}: {fault}");
    }
}

#[test]
fn attachments_have_a_name_and_a_type() {
    let header = |name: &str, media_type: &str, content_id: &str| v1::DraftAttachment {
        name: name.into(),
        media_type: media_type.into(),
        content_id: content_id.into(),
        size_bytes: 1,
    };
    assert_eq!(check_attachment(0, &header("a.pdf", "Application/PDF", "")).unwrap(), "application/pdf");
    assert_eq!(check_attachment(0, &header("a", "", "logo@x")).unwrap(), "application/octet-stream");
    assert_eq!(check_attachment(0, &header("a.eml", "message/rfc822", "")).unwrap(), "application/octet-stream");
    for (name, media_type, content_id, field) in [
        ("", "", "", "name"),
        ("a\r\nX: y", "", "", "name"),
        ("a", "text", "", "mediaType"),
        ("a", "text/html; charset=x", "", "mediaType"),
        ("a", "text/\r\nx", "", "mediaType"),
        ("a", "", "a>\r\nX: y", "contentId"),
    ] {
        let failure = check_attachment(3, &header(name, media_type, content_id)).unwrap_err();
        assert_eq!(failure.fields[0].field, format!("attachments[3].{field}"));
    }
}

proptest! {
    #[test]
    fn references_stay_bounded_and_end_with_what_is_answered(ids in prop::collection::vec("[a-z]{1,80}@x", 0..300)) {
        let content = v1::ContactContent { message_id: "last@x".into(), references: ids.clone(), ..Default::default() };
        let (in_reply_to, references) = thread(&content);
        prop_assert_eq!(in_reply_to.as_deref(), Some("last@x"));
        prop_assert_eq!(references.last().map(String::as_str), Some("last@x"));
        prop_assert!(references.iter().map(|id| id.len() + 3).sum::<usize>() <= LONGEST_REFERENCES);
        prop_assert!(references.iter().all(|id| ids.contains(id) || id == "last@x"));
        let distinct: HashSet<&String> = ids.iter().collect();
        let fits = distinct.iter().map(|id| id.len() + 3).sum::<usize>() + 9 <= LONGEST_REFERENCES;
        prop_assert!(!fits || references.len() > distinct.len() - usize::from(distinct.contains(&content.message_id)));
    }

    #[test]
    fn whatever_is_written_nothing_breaks_a_line(
        name: String, local in "[ -~]{0,12}|\\PC{0,6}", domain in "[ -~]{0,12}|\\PC{0,6}", subject: String, id: String,
    ) {
        let written = v1::Draft {
            from: Some(address(&name, "billing@contoso.example")),
            to: vec![address(&name, &format!("{local}@{domain}"))],
            subject,
            ..draft()
        };
        let mut contact = contact();
        contact.content.as_mut().unwrap().message_id = id;
        if let Ok(mail) = checked(written, Some(&contact)) {
            let texts = [&mail.subject, &mail.from.name].into_iter()
                .chain(mail.recipients.iter().flat_map(|(_, it)| [&it.name, &it.address]))
                .chain(&mail.references).chain(&mail.in_reply_to);
            for text in texts {
                prop_assert!(!text.chars().any(is_control), "{text:?}");
            }
            for (_, it) in &mail.recipients {
                prop_assert!(it.address.is_ascii() && !it.address.contains([' ', '<', '>', ',']), "{}", it.address);
            }
        }
    }
}
