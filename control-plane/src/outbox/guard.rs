//! Machines that answer each other (RFC 3834): what is not to be answered automatically. Pure. That one correspondent is
//! not written to without end is counted where mails are stored.

use postroom_proto::v1::{Contact, ContactKind, EmailAddress};

/// Why an automatic mail is not sent; a sentence for people.
pub fn refusal(reply: Option<&Contact>, recipients: &[&EmailAddress]) -> Option<String> {
    let kind = reply.map(Contact::kind).and_then(|kind| match kind {
        ContactKind::AutoReply => Some("an automatic answer"),
        ContactKind::Bounce => Some("a bounce"),
        ContactKind::Receipt => Some("a receipt"),
        ContactKind::Bulk => Some("bulk mail"),
        ContactKind::Normal | ContactKind::Calendar | ContactKind::Unspecified => None,
    });
    if let Some(kind) = kind {
        return Some(format!("the contact is {kind}, which is not answered automatically; let a person answer it"));
    }
    let from = reply.and_then(|contact| contact.content.as_ref()).map(|content| &content.from);
    if from.is_some_and(|from| from.iter().all(|it| it.address.is_empty())) {
        return Some("the contact names no sender, so a machine wrote it; let a person answer it".into());
    }
    let machine = recipients.iter().copied().chain(from.into_iter().flatten()).find(|it| is_machine(&it.address))?;
    Some(format!("{} is the address of a machine, to which nothing is sent automatically", machine.address))
}

/// True for addresses behind which nobody reads. See RFC 3834 section 2.
fn is_machine(address: &str) -> bool {
    let local = address.split('@').next().unwrap_or_default().to_lowercase();
    local == "mailer-daemon" || local.starts_with("owner-") || local.ends_with("-request")
}

#[cfg(test)]
mod tests {
    use postroom_proto::v1::ContactContent;

    use super::*;

    fn address(address: &str) -> EmailAddress {
        EmailAddress { name: String::new(), address: address.into() }
    }

    fn contact(kind: ContactKind, from: &[&str]) -> Contact {
        let content = ContactContent { from: from.iter().map(|from| address(from)).collect(), ..Default::default() };
        Contact { kind: kind.into(), content: Some(content), ..Default::default() }
    }

    #[test]
    fn machines_are_not_answered_by_machines() {
        use ContactKind::{AutoReply, Bounce, Bulk, Calendar, Normal, Receipt};
        let ada = address("ada@x.example");
        for kind in [AutoReply, Bounce, Bulk, Receipt] {
            let text = refusal(Some(&contact(kind, &["ada@x.example"])), &[&ada]).unwrap();
            assert!(text.contains("let a person"), "{text}");
        }
        for kind in [Normal, Calendar] {
            assert_eq!(refusal(Some(&contact(kind, &["ada@x.example"])), &[&ada]), None);
            assert!(refusal(Some(&contact(kind, &[])), &[&ada]).is_some());
            assert!(refusal(Some(&contact(kind, &["MAILER-DAEMON@x.example"])), &[&ada]).is_some());
        }
        assert_eq!(refusal(None, &[&ada]), None);
        assert!(refusal(None, &[&ada, &address("list-request@x.example")]).is_some());
    }
}
