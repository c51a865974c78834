//! Pages of lists: sizes, and tokens that carry the last key of the page before.
//!
//! A token belongs to the list and filter that it was made for. It names no revision, so it never expires; what is
//! added meanwhile before its place is not seen.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use postroom_proto::reason::Failure;
use sha2::{Digest as _, Sha256};

/// Rows of a page when the caller names no number.
pub const DEFAULT_SIZE: usize = 100;
/// Most rows of a page.
pub const MAX_SIZE: usize = 1000;

const FILTER_BYTES: usize = 8;

/// What a caller asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Most rows to return, 1 to [`MAX_SIZE`].
    pub size: usize,
    /// Key behind which to go on. `None`: from the beginning.
    pub after: Option<String>,
    filter: [u8; FILTER_BYTES],
}

impl Page {
    /// Reads `page_size` and `page_token`. `filter` names the list and all that narrows it.
    pub fn read(page_size: i32, page_token: &str, filter: &[&str]) -> Result<Self, Failure> {
        let size = match usize::try_from(page_size) {
            Ok(0) => DEFAULT_SIZE,
            Ok(size) => size.min(MAX_SIZE),
            Err(_) => {
                return Err(Failure::invalid_field("page_size", "is negative; write 0 for the default, or 1 to 1000"));
            }
        };
        let filter = digest(filter);
        if page_token.is_empty() {
            return Ok(Self { size, after: None, filter });
        }
        let bad = |what: &str| Failure::invalid_field("page_token", format!("{what}; start again without a token"));
        let bytes = BASE64.decode(page_token).map_err(|_| bad("was not made here"))?;
        let (made_for, key) = bytes.split_at_checked(FILTER_BYTES).ok_or_else(|| bad("was not made here"))?;
        if made_for != filter {
            return Err(bad("was made for another list or filter"));
        }
        let after = String::from_utf8(key.to_vec()).map_err(|_| bad("was not made here"))?;
        Ok(Self { size, after: Some(after), filter })
    }

    /// The token of the page that follows a last row with this key.
    pub fn next(&self, last_key: &str) -> String {
        BASE64.encode([&self.filter[..], last_key.as_bytes()].concat())
    }

    /// Cuts a page out of rows that are sorted by a unique key. Answers the rows and the token of the next page, which
    /// is empty on the last one.
    pub fn cut<T>(&self, sorted: impl IntoIterator<Item = T>, key: impl Fn(&T) -> String) -> (Vec<T>, String) {
        let behind = |row: &T| self.after.as_ref().is_none_or(|after| key(row) > *after);
        let mut rows: Vec<T> = sorted.into_iter().filter(behind).take(self.size + 1).collect();
        let more = rows.len() > self.size;
        rows.truncate(self.size);
        let token = rows.last().filter(|_| more).map_or_else(String::new, |last| self.next(&key(last)));
        (rows, token)
    }
}

fn digest(filter: &[&str]) -> [u8; FILTER_BYTES] {
    let mut hash = Sha256::new();
    for part in filter {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut short = [0; FILTER_BYTES];
    short.copy_from_slice(&hash.finalize()[..FILTER_BYTES]);
    short
}

#[cfg(test)]
mod tests {
    use postroom_proto::reason::Reason;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_held_to_their_limits() {
        for (asked, size) in [(0, 100), (1, 1), (1000, 1000), (i32::MAX, 1000)] {
            assert_eq!(Page::read(asked, "", &[]).unwrap().size, size);
        }
        let failure = Page::read(-1, "", &[]).unwrap_err();
        assert_eq!((failure.reason, failure.fields[0].field.as_str()), (Reason::InvalidField, "page_size"));
    }

    #[test]
    fn a_token_belongs_to_its_list_and_filter() {
        let token = Page::read(0, "", &["contacts", "core1"]).unwrap().next("Münster 🙂");
        assert_eq!(Page::read(0, &token, &["contacts", "core1"]).unwrap().after.as_deref(), Some("Münster 🙂"));
        for filter in [&["contacts", "core2"][..], &["contactscore1"], &["contacts"], &[]] {
            let failure = Page::read(0, &token, filter).unwrap_err();
            assert_eq!((failure.reason, failure.fields[0].field.as_str()), (Reason::InvalidField, "page_token"));
        }
        for bad in ["x", "!", "AAAA", &token[1..], &format!("{token}=")] {
            assert!(Page::read(0, bad, &["contacts", "core1"]).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn pages_are_the_list_in_pieces(rows in prop::collection::btree_set("[a-c]{0,4}", 0..40), size in 1i32..9) {
            let (mut seen, mut token) = (Vec::new(), String::new());
            loop {
                let page = Page::read(size, &token, &["list"]).unwrap();
                let (part, next) = page.cut(rows.iter().cloned(), Clone::clone);
                prop_assert!(part.len() <= page.size);
                seen.extend(part);
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            prop_assert_eq!(seen, rows.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn no_token_makes_it_panic(size: i32, token: String) {
            let _ = Page::read(size, &token, &["list"]);
        }
    }
}
