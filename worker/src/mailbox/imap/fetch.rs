//! What is in the folder, and the messages themselves. By UID, without setting `\Seen`.

use std::fmt;

use bytes::Bytes;

use super::command::{Commands, Error, Stream, Untagged};

/// What is known of a message before it is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// UID of the message.
    pub uid: u32,
    /// True when it has `\Seen`.
    pub seen: bool,
    /// INTERNALDATE in microseconds since 1970, when it can be read.
    pub received: Option<i64>,
    /// RFC822.SIZE: an estimate, 0 when the server does not say.
    pub size: u64,
}

/// What a fetch of bodies brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Bodies {
    /// UID and raw message, in the server's order.
    pub got: Vec<(u32, Bytes)>,
    /// UID and size of messages that were larger than the session's limit, read past and thrown away.
    pub oversized: Vec<(u32, u64)>,
}

/// Summaries of the messages from `from` to `to` (`None`: the end), by UID. To the end, they answer all news told before.
pub async fn summaries<S: Stream + fmt::Debug>(
    commands: &mut Commands<S>,
    from: u32,
    to: Option<u32>,
) -> Result<Vec<Summary>, Error> {
    if to.is_none() {
        // Ordering: before it is sent, so that what is told in its own answer, and may not be in it, stays news.
        commands.take_news();
    }
    let end = to.map_or("*".to_owned(), |to| to.to_string());
    let mut found = summaries_of(commands, &format!("{from}:{end}"), from).await?;
    found.retain(|summary| to.is_none_or(|to| summary.uid <= to));
    Ok(found)
}

/// Summaries of the messages of a sequence set whose UIDs are at least `from`, by UID.
pub async fn summaries_of<S: Stream + fmt::Debug>(
    commands: &mut Commands<S>,
    set: &str,
    from: u32,
) -> Result<Vec<Summary>, Error> {
    let mut found = Vec::new();
    commands
        .run(&format!("UID FETCH {set} (UID FLAGS INTERNALDATE RFC822.SIZE)"), |untagged| {
            // RFC 3501 section 6.4.8: `n:*` names the last message even when its UID is lower. And data of other
            // messages may come at any time, with flags only.
            if let Untagged::Fetched(fetched) = untagged
                && fetched.uid >= from
                && (fetched.size.is_some() || fetched.received.is_some())
            {
                found.push(Summary {
                    uid: fetched.uid,
                    seen: fetched.seen.unwrap_or(false),
                    received: fetched.received.as_deref().and_then(internal_date),
                    size: fetched.size.unwrap_or(0),
                });
            }
        })
        .await?;
    found.sort_by_key(|summary| summary.uid);
    found.dedup_by_key(|summary| summary.uid);
    Ok(found)
}

/// The header fields by which a message is known again, of the messages with these UIDs, one by one as they come: what is in
/// memory is one of them. What the server does not give is missing. When it refuses, some may have come before. Returns the
/// UIDs of those whose header was too long and was thrown away; none of them is known by its headers.
pub async fn headers<S: Stream + fmt::Debug>(
    commands: &mut Commands<S>,
    uids: &[u32],
    mut each: impl FnMut(u32, &[u8]),
) -> Result<Vec<u32>, Error> {
    commands.notes().oversized.clear();
    let fields = "UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE FROM TO SUBJECT)]";
    commands
        .run(&format!("UID FETCH {} ({fields})", set(uids)), |untagged| {
            if let Untagged::Fetched(fetched) = untagged
                && let Some(header) = fetched.header
            {
                each(fetched.uid, &header);
            }
        })
        .await?;
    let oversized = std::mem::take(&mut commands.notes().oversized);
    // One without a UID may be any of them.
    let known = |uid: Option<u32>| uid.map_or(uids.to_vec(), |uid| vec![uid]);
    Ok(oversized.into_iter().flat_map(|one| known(one.uid)).collect())
}

/// The raw messages with these UIDs. One that the server has no longer, or cannot give, is missing from the answer.
pub async fn bodies<S: Stream + fmt::Debug>(commands: &mut Commands<S>, uids: &[u32]) -> Result<Bodies, Error> {
    let mut bodies = Bodies::default();
    commands.notes().oversized.clear();
    commands
        .run(&format!("UID FETCH {} (UID BODY.PEEK[])", set(uids)), |untagged| {
            if let Untagged::Fetched(fetched) = untagged
                && let Some(body) = fetched.body
                && uids.contains(&fetched.uid)
                && !bodies.got.iter().any(|(uid, _)| *uid == fetched.uid)
            {
                bodies.got.push((fetched.uid, body));
            }
        })
        .await?;
    for oversized in std::mem::take(&mut commands.notes().oversized) {
        // Without a UID it can only be known which one it was when there was only one.
        let uid = oversized.uid.or(match uids {
            [only] => Some(*only),
            _ => None,
        });
        bodies.oversized.extend(uid.filter(|uid| uids.contains(uid)).map(|uid| (uid, oversized.size)));
    }
    Ok(bodies)
}

/// A sequence set (RFC 3501 section 9) of ascending UIDs, runs written as ranges.
pub fn set(uids: &[u32]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < uids.len() {
        let first = uids[at];
        while at + 1 < uids.len() && uids[at].checked_add(1) == Some(uids[at + 1]) {
            at += 1;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&first.to_string());
        if uids[at] != first {
            text.push_str(&format!(":{}", uids[at]));
        }
        at += 1;
    }
    text
}

/// `17-Jul-1996 02:44:25 -0700` (RFC 3501 section 9, date-time).
fn internal_date(text: &str) -> Option<i64> {
    let time = jiff::Zoned::strptime("%d-%b-%Y %H:%M:%S %z", text.trim()).ok()?;
    Some(time.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_of_servers() {
        assert_eq!(internal_date("17-Jul-1996 02:44:25 -0700"), Some(837_596_665_000_000));
        assert_eq!(internal_date(" 1-Jan-2024 10:00:00 +0000"), Some(1_704_103_200_000_000));
        assert_eq!(internal_date("yesterday"), None);
    }

    #[test]
    fn runs_become_ranges() {
        assert_eq!(set(&[1, 2, 3, 5, 7, 8]), "1:3,5,7:8");
        assert_eq!(set(&[u32::MAX]), u32::MAX.to_string());
    }

    proptest! {
        #[test]
        fn a_set_names_exactly_its_uids(uids in proptest::collection::btree_set(1u32..200, 1..60)) {
            let uids: Vec<u32> = uids.into_iter().collect();
            let mut back = Vec::new();
            for part in set(&uids).split(',') {
                let (from, to) = part.split_once(':').unwrap_or((part, part));
                back.extend(from.parse::<u32>().expect("a UID")..=to.parse().expect("a UID"));
            }
            prop_assert_eq!(back, uids);
        }
    }
}
