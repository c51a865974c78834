//! Knows a message again under another key, by what does not change when a server renumbers a folder.

use postroom_proto::v1::ContactContent;
use sha2::{Digest as _, Sha256};

/// SHA-256 over Message-ID, Date, From, To, Subject and INTERNALDATE.
///
/// None of them is trusted alone: Message-IDs are missing or used again, and bodies come out of Exchange with other
/// bytes at each fetch. `received_micros` is INTERNALDATE since 1970, `None` when the server does not say.
pub fn fingerprint(content: &ContactContent, received_micros: Option<i64>) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(b"postroom fingerprint 1");
    part(content.message_id.as_bytes());
    let date = content.date_time.as_ref().map(|date| date.seconds.to_be_bytes());
    part(date.as_ref().map_or(&[], <[u8; 8]>::as_slice));
    for list in [&content.from, &content.to] {
        part(&(list.len() as u64).to_be_bytes());
        for mailbox in list {
            part(mailbox.address.to_lowercase().as_bytes());
        }
    }
    part(content.subject.as_bytes());
    let received = received_micros.map(i64::to_be_bytes);
    part(received.as_ref().map_or(&[], <[u8; 8]>::as_slice));
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use postroom_proto::v1::EmailAddress;

    use super::*;

    #[test]
    fn every_part_counts() {
        let address = |text: &str| EmailAddress { name: String::new(), address: text.into() };
        let base = ContactContent { from: vec![address("a@x.example")], subject: "s".into(), ..Default::default() };
        let same = ContactContent { from: vec![address("A@X.example")], text: "body".into(), ..base.clone() };
        assert_eq!(fingerprint(&base, Some(1)), fingerprint(&same, Some(1)));
        let others = [
            ContactContent { message_id: "m@x".into(), ..base.clone() },
            ContactContent { subject: "t".into(), ..base.clone() },
            ContactContent { to: base.from.clone(), from: vec![], ..base.clone() },
            ContactContent { date_time: Some(prost_types::Timestamp::default()), ..base.clone() },
        ];
        for other in others {
            assert_ne!(fingerprint(&base, Some(1)), fingerprint(&other, Some(1)));
        }
        assert_ne!(fingerprint(&base, Some(1)), fingerprint(&base, Some(2)));
        assert_ne!(fingerprint(&base, Some(0)), fingerprint(&base, None));
    }
}
