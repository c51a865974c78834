//! Knows a message again under another key, by what does not change when a server numbers a folder anew. Pure.
//!
//! None of it is trusted alone: Message-IDs are missing or used again, bodies come out of Exchange with other bytes at each
//! fetch, and some restores change INTERNALDATE, which is therefore compared beside the fingerprint and not in it.

use sha2::{Digest as _, Sha256};

use crate::v1::{ContactContent, EmailAddress};

/// The way of making fingerprints that this version knows: their first byte. Those of earlier versions have 32 bytes and
/// none that tells.
const WAY: u8 = 2;
/// Length of a fingerprint, in bytes.
const LENGTH: usize = 33;
/// Most recipients that count: the others of a long list may have been cut off.
const MOST_RECIPIENTS: usize = 50;

/// Made of Message-ID, Date, From, To and Subject. Of texts only what is ASCII counts, so that it does not matter in which
/// charset a field that names none was read.
pub fn fingerprint(content: &ContactContent) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    part("postroom fingerprint 2");
    part(&plain(&content.message_id));
    part(&content.date_time.as_ref().map(|date| date.seconds.to_string()).unwrap_or_default());
    for list in [&content.from, &content.to] {
        let list: Vec<&EmailAddress> = list.iter().take(MOST_RECIPIENTS).collect();
        part(&list.len().to_string());
        list.iter().for_each(|one| part(&plain(&one.address).to_lowercase()));
    }
    part(&plain(&content.subject));
    let mut made = vec![WAY];
    made.extend_from_slice(&hash.finalize());
    made
}

/// True when both a Message-ID and a Date are among the headers: two messages of one fingerprint are then the same one,
/// whenever they were received.
pub fn is_identified(content: &ContactContent) -> bool {
    !plain(&content.message_id).is_empty() && content.date_time.is_some()
}

/// The key by which messages of this fingerprint are found in an index. `None`: it was made in another way, or not at all.
pub fn key(fingerprint: &[u8]) -> Option<i64> {
    if fingerprint.len() != LENGTH || fingerprint[0] != WAY {
        return None;
    }
    Some(i64::from_be_bytes(fingerprint[1..9].try_into().ok()?))
}

/// The key of a message that has no fingerprint: `received` in microseconds since 1970, `size` in bytes.
pub fn bare_key(received: i64, size: u64) -> i64 {
    let mut hash = Sha256::new();
    hash.update(b"postroom bare key");
    hash.update(received.to_be_bytes());
    hash.update(size.to_be_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    i64::from_be_bytes(std::array::from_fn(|at| hash[at]))
}

fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> EmailAddress {
        EmailAddress { name: String::new(), address: text.into() }
    }

    #[test]
    fn every_part_counts_and_nothing_else_does() {
        let base = ContactContent { from: vec![address("a@x.example")], subject: "s".into(), ..Default::default() };
        let same = ContactContent {
            from: vec![address("A@X.example")],
            text: "body".into(),
            subject: "s é".into(),
            ..base.clone()
        };
        assert_eq!(fingerprint(&base), fingerprint(&same));
        let others = [
            ContactContent { message_id: "m@x".into(), ..base.clone() },
            ContactContent { subject: "t".into(), ..base.clone() },
            ContactContent { to: base.from.clone(), from: vec![], ..base.clone() },
            ContactContent { to: base.from.clone(), ..base.clone() },
            ContactContent { date_time: Some(prost_types::Timestamp::default()), ..base.clone() },
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(fingerprint(&base), fingerprint(other), "{at}");
            assert!(others[..at].iter().all(|before| fingerprint(before) != fingerprint(other)), "{at}");
        }
    }

    #[test]
    fn a_long_list_counts_by_its_beginning() {
        let to = |count: usize| (0..count).map(|at| address(&format!("{at}@x.example"))).collect();
        let content = |count| ContactContent { to: to(count), ..Default::default() };
        assert_eq!(fingerprint(&content(MOST_RECIPIENTS)), fingerprint(&content(500)));
        assert_ne!(fingerprint(&content(MOST_RECIPIENTS - 1)), fingerprint(&content(500)));
    }

    #[test]
    fn only_fingerprints_of_this_way_have_a_key() {
        assert!(key(&fingerprint(&ContactContent::default())).is_some());
        assert_eq!(key(&[7; 32]), None);
        assert_eq!(key(&[]), None);
        assert_ne!(bare_key(1, 2), bare_key(2, 1));
    }

    #[test]
    fn a_message_is_identified_by_message_id_and_date_together() {
        let date_time = Some(prost_types::Timestamp::default());
        let content = |message_id: &str, date_time| ContactContent {
            message_id: message_id.into(),
            date_time,
            ..Default::default()
        };
        assert!(is_identified(&content("m@x", date_time)));
        assert!(!is_identified(&content("", date_time)) && !is_identified(&content("\u{1}é", date_time)));
        assert!(!is_identified(&content("m@x", None)));
    }
}
