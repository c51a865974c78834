//! The catalogue: every code by which Postroom, Entra or a mail server says that something is wrong, with its meaning,
//! its usual cause here and the remedy.
//!
//! Data only, apart from what uses it: a worker's diagnosis makes problems of it, and `postroom explain` looks it up
//! without a control plane. [`entra`] holds the AADSTS numbers of the token endpoint, [`oauth`] the error names of RFC
//! 6749 and of HTTP, [`mail`] what mail servers say to a reader and [`send`] what keeps mail from being sent, [`own`] what
//! Postroom finds out by itself and [`outbox`] what it finds out about mail on its way out.

use crate::v1::ProblemKind;

pub mod entra;
pub mod mail;
pub mod oauth;
pub mod outbox;
pub mod own;
pub mod send;

/// What a code, or several that are mended alike, means.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The codes, in capitals.
    pub codes: &'static [&'static str],
    /// Who can mend it, and with that whether it passes by itself.
    pub kind: ProblemKind,
    /// What it means, as one sentence without a capital and without a full stop.
    pub title: &'static str,
    /// What usually lies behind it. Empty when the title says it all.
    pub cause: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
    /// How servers say it: parts of their texts, in small letters.
    pub texts: &'static [&'static str],
}

impl Entry {
    /// The code that problems carry; of an entry with several, the first.
    pub fn code(&self) -> &'static str {
        self.codes.first().copied().unwrap_or_default()
    }

    /// True when it passes without anybody's doing.
    pub fn passes(&self) -> bool {
        passes(self.kind)
    }

    /// True when a server says this in `text`.
    pub fn is_said_by(&self, text: &str) -> bool {
        let lower = text.to_lowercase();
        self.texts.iter().any(|part| says(&lower, part))
    }
}

/// True when `part` stands in `text`. A number stands there alone only: `5.2.3` is none in the address `35.2.31.9`.
fn says(text: &str, part: &str) -> bool {
    if !part.starts_with(|first: char| first.is_ascii_digit()) {
        return text.contains(part);
    }
    let goes_on = |neighbour: Option<char>| neighbour.is_some_and(|c| c.is_ascii_digit() || c == '.');
    text.match_indices(part)
        .any(|(at, _)| !goes_on(text[..at].chars().next_back()) && !goes_on(text[at + part.len()..].chars().next()))
}

/// True for kinds of problems that pass without anybody's doing.
pub fn passes(kind: ProblemKind) -> bool {
    matches!(kind, ProblemKind::Transient | ProblemKind::Throttled)
}

/// Every entry, in the order of the way to a mailbox: what Postroom finds, the token endpoint, the mail server, and what
/// sends.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    own::ALL.iter().chain(entra::ALL).chain(oauth::ALL).chain(mail::ALL).chain(send::ALL).chain(outbox::ALL)
}

/// The entry of a code, however it is written: `AADSTS7000215`, `aadsts7000215:`, `7000215`, `tls-untrusted`.
pub fn find(code: &str) -> Option<&'static Entry> {
    let wanted = spelt(code);
    let exact = |wanted: &str| all().find(|entry| entry.codes.contains(&wanted));
    if let Some(entry) = exact(&wanted) {
        return Some(entry);
    }
    if wanted.bytes().all(|b| b.is_ascii_digit()) && !wanted.is_empty() {
        return exact(&format!("AADSTS{wanted}"));
    }
    // Of the HTTP errors those of the server are all alike.
    wanted.strip_prefix("HTTP_5").filter(|rest| rest.len() == 2).map(|_| &oauth::HTTP_500)
}

/// The entries whose servers' texts stand in `text`.
pub fn find_text(text: &str) -> Vec<&'static Entry> {
    all().filter(|entry| entry.is_said_by(text)).collect()
}

/// Codes that look like `code`, the likeliest first; at most five.
pub fn near(code: &str) -> Vec<&'static str> {
    let wanted = spelt(code);
    let bare = |code: &str| code.trim_start_matches("AADSTS").to_owned();
    let mut found: Vec<(usize, &'static str)> = all()
        .flat_map(|entry| entry.codes)
        .filter_map(|known| {
            let steps = distance(&bare(&wanted), &bare(known));
            let contains = wanted.len() >= 4 && known.contains(&wanted);
            let most = (wanted.len() / 4).clamp(1, 3);
            (contains || steps <= most).then_some((if contains { 0 } else { steps }, *known))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, known)| known).take(5).collect()
}

/// A code in capitals with underscores, without what Entra writes behind it.
fn spelt(code: &str) -> String {
    let code = code.trim().split([':', ' ']).next().unwrap_or_default();
    code.to_uppercase().replace('-', "_")
}

/// Insertions, deletions and replacements from one text to another (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

/// An entry a line of data: a public constant named by its code, and all of them in `ALL`.
macro_rules! entries {
    ($($name:ident: $kind:ident, $title:literal, $cause:literal, $remedy:literal $(, says $texts:expr)?;)*) => {
        $(
            #[doc = $title]
            pub const $name: $crate::catalogue::Entry = $crate::catalogue::Entry {
                codes: &[stringify!($name)],
                kind: $crate::v1::ProblemKind::$kind,
                title: $title,
                cause: $cause,
                remedy: $remedy,
                texts: $crate::catalogue::entries!(@texts $($texts)?),
            };
        )*
        /// All of them.
        pub const ALL: &[$crate::catalogue::Entry] = &[$($name),*];
    };
    (@texts) => { &[] };
    (@texts $texts:expr) => { $texts };
}
pub(crate) use entries;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_entry_says_what_it_means_and_what_to_do_and_no_code_stands_twice() {
        let mut seen = HashSet::new();
        for entry in all() {
            assert!(!entry.codes.is_empty() && !entry.title.is_empty() && !entry.remedy.is_empty(), "{entry:?}");
            assert!(!entry.title.ends_with('.') && !entry.remedy.ends_with('.'), "{entry:?}");
            assert_ne!(entry.kind, ProblemKind::Unspecified, "{entry:?}");
            for code in entry.codes {
                assert!(seen.insert(*code), "{code} stands twice");
                assert_eq!(find(code), Some(entry));
            }
            for text in entry.texts {
                assert_eq!(*text, text.to_lowercase(), "texts are compared in small letters");
            }
        }
    }

    #[test]
    fn a_code_is_found_however_it_is_written() {
        for written in ["AADSTS7000215", "7000215", "aadsts7000215", " AADSTS7000215: Invalid client secret"] {
            assert_eq!(find(written).map(Entry::code), Some("AADSTS7000215"), "{written}");
        }
        assert_eq!(find("tls-untrusted"), Some(&own::TLS_UNTRUSTED));
        assert_eq!(find("HTTP_503").map(Entry::code), Some("HTTP_500"));
        assert_eq!(find("invalid_grant").map(Entry::code), Some("INVALID_GRANT"));
        for unknown in ["", "AADSTS", "5", "HTTP_404", "no such thing"] {
            assert_eq!(find(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_guessed() {
        assert_eq!(near("AADSTS700215").first(), Some(&"AADSTS7000215"));
        assert!(near("7000216").contains(&"AADSTS7000216"));
        assert_eq!(near("NOT_CONECTED").first(), Some(&"NOT_CONNECTED"));
        assert!(near("UNTRUSTED").contains(&"TLS_UNTRUSTED"));
        assert_eq!(near("something quite different"), Vec::<&str>::new());
    }

    #[test]
    fn what_a_server_said_is_found_too() {
        let found = find_text("A3 BAD User is authenticated but not connected.");
        assert_eq!(found, [&mail::NOT_CONNECTED]);
        assert_eq!(find_text("all is well"), Vec::<&Entry>::new());
        assert_eq!(find_text("552 5.2.3 no"), [&send::MESSAGE_TOO_LARGE]);
        for address in ["35.2.31.9", "5.2.31.9", "1.5.2.3", "15.2.3"] {
            assert_eq!(find_text(&format!("450 4.7.1 Client host [{address}]")), Vec::<&Entry>::new(), "{address}");
        }
    }
}
