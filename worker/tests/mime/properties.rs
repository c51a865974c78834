//! Damage done to the corpus, and bytes that are no message.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::checked;
use crate::corpus::corpus;

/// One damage.
#[derive(Debug, Clone)]
enum Damage {
    /// A byte becomes another.
    Flip(Index, u8),
    /// A piece is taken out.
    Cut(Index, usize),
    /// A piece of another message is put in.
    Splice(Index, Vec<u8>),
    /// A line stands there twice, or many times.
    Repeat(Index, usize),
    /// Two lines change places: boundaries among them.
    Swap(Index, Index),
    /// The rest is missing.
    End(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let messages: Vec<Vec<u8>> = corpus().into_iter().map(|(_, raw)| raw).filter(|raw| !raw.is_empty()).collect();
    let piece = (select(messages), any::<Index>(), 0usize..200).prop_map(|(raw, at, length)| {
        let begin = at.index(raw.len());
        raw[begin..raw.len().min(begin + length)].to_vec()
    });
    prop_oneof![
        (any::<Index>(), select(b"\0\r\n-=:;\"<>?(),\\ \xff\x1bAz+&/".to_vec()))
            .prop_map(|(at, to)| Damage::Flip(at, to)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, to)| Damage::Flip(at, to)),
        (any::<Index>(), 1usize..200).prop_map(|(at, length)| Damage::Cut(at, length)),
        (any::<Index>(), piece).prop_map(|(at, piece)| Damage::Splice(at, piece)),
        (any::<Index>(), 1usize..60).prop_map(|(at, times)| Damage::Repeat(at, times)),
        (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Damage::Swap(one, other)),
        any::<Index>().prop_map(Damage::End),
    ]
}

fn apply(raw: &mut Vec<u8>, damage: &Damage) {
    if raw.is_empty() {
        return;
    }
    let length = raw.len();
    match damage {
        Damage::Flip(at, to) => raw[at.index(length)] = *to,
        Damage::Cut(at, count) => {
            let begin = at.index(length);
            raw.drain(begin..length.min(begin + count));
        }
        Damage::Splice(at, piece) => {
            let at = at.index(length);
            raw.splice(at..at, piece.iter().copied());
        }
        Damage::Repeat(at, times) => {
            let mut lines: Vec<Vec<u8>> = raw.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let at = at.index(lines.len());
            let again = vec![lines[at].clone(); *times];
            lines.splice(at..at, again);
            *raw = lines.concat();
        }
        Damage::Swap(one, other) => {
            let mut lines: Vec<&[u8]> = raw.split_inclusive(|byte| *byte == b'\n').collect();
            let count = lines.len();
            lines.swap(one.index(count), other.index(count));
            *raw = lines.concat();
        }
        Damage::End(at) => raw.truncate(at.index(length)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_message_becomes_a_small_contact(
        mut raw in select(corpus().into_iter().map(|(_, raw)| raw).collect::<Vec<_>>()),
        damages in vec(damage(), 1..12),
    ) {
        for damage in &damages {
            apply(&mut raw, damage);
        }
        checked(&raw);
    }

    #[test]
    fn arbitrary_bytes_become_a_small_contact(raw in vec(any::<u8>(), 0..3000)) {
        checked(&raw);
    }

    #[test]
    fn bytes_that_mean_something_become_a_small_contact(
        words in vec(select(vec![
            "From: ", "To: ", "Subject: ", "Content-Type: ", "multipart/mixed", "multipart/alternative", "text/html",
            "message/rfc822", "; boundary=", "b", "\"", "--", "\r\n", "\n", "\r", " ", ":", "=?utf-8?q?", "=?utf-8?b?", "?=",
            "=", "=C3", "Content-Transfer-Encoding: base64", "quoted-printable", "AAEC", "<", ">", "&", ";", "(", ")", "\\",
            ",", "\u{fc}", "<div>", "<!--", "-->", "name*0*=", "charset=utf-7", "+AGA-", "\0", "Content-Disposition: ",
        ]), 0..300),
    ) {
        checked(words.concat().as_bytes());
    }
}
