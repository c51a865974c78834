//! Conversations: by which Message-IDs a contact may belong to an earlier one, as pure functions.
//!
//! Message-IDs are hints. Senders use them twice, leave them out and invent them, so they join contacts to a thread and
//! never decide whether there is a contact. Two contacts with the same Message-ID are not joined by it.

use postroom_proto::v1::ContactContent;
use sha2::{Digest as _, Sha256};

/// Most ids that are looked up for one contact.
pub const MOST_HINTS: usize = 50;
/// Longer ids are not looked up: RFC 5322 ends a line there.
const LONGEST: usize = 998;

/// The form in which a Message-ID is kept and looked up. `None`: it is no use as a hint.
pub fn key(message_id: &str) -> Option<i64> {
    let id = message_id.trim();
    if id.is_empty() || id.len() > LONGEST {
        return None;
    }
    let digest = Sha256::digest(id.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    Some(i64::from_be_bytes(first))
}

/// Keys of the messages that this one answers, the likeliest first: In-Reply-To, then References from the newest.
pub fn hints(content: &ContactContent) -> Vec<i64> {
    let own = key(&content.message_id);
    let mut hints = Vec::new();
    for id in content.in_reply_to.iter().chain(content.references.iter().rev()) {
        if hints.len() == MOST_HINTS {
            break;
        }
        if let Some(key) = key(id).filter(|key| Some(*key) != own)
            && !hints.contains(&key)
        {
            hints.push(key);
        }
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answered_message_comes_first_and_then_the_newest_references() {
        let content = ContactContent {
            message_id: "own@x".into(),
            in_reply_to: vec!["c@x".into(), " ".into()],
            references: ["a@x", "b@x", "c@x", "own@x", ""].map(Into::into).to_vec(),
            ..Default::default()
        };
        assert_eq!(hints(&content), ["c@x", "b@x", "a@x"].map(|id| key(id).unwrap()));
    }

    #[test]
    fn however_many_references_a_message_has_few_are_looked_up() {
        let references: Vec<String> = (0..100_000).map(|number| format!("{number}@x")).collect();
        let newest = key("99999@x").unwrap();
        let hints = hints(&ContactContent { references, ..Default::default() });
        assert_eq!((hints.len(), hints[0]), (MOST_HINTS, newest));
    }

    #[test]
    fn absurd_ids_are_no_hints() {
        assert_eq!(key(""), None);
        assert_eq!(key(&"x".repeat(999)), None);
        assert_eq!(key(" a@x "), key("a@x"));
    }
}
