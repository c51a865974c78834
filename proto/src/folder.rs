//! Names of mail folders: as people read them, and as IMAP says them.

use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};

/// BASE64 with a comma for the slash, unpadded (RFC 3501 section 5.1.3).
static SHIFTED: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,");
    specification.encoding().ok()
});

/// A folder's name in modified UTF-7 (RFC 3501 section 5.1.3), as every IMAP server knows it. What already is in it, like
/// `Entw&APw-rfe`, stays as it is, so that a name can be written as a person sees it and as a server lists it.
/// Control characters are left out: a line end would begin another command.
pub fn in_utf7(name: &str) -> String {
    let mut written = String::with_capacity(name.len());
    let mut shifted = Vec::new();
    for (at, c) in name.char_indices() {
        match c {
            c if c.is_control() => {}
            ' '..='~' => {
                shift(&mut written, &mut shifted);
                written.push(c);
                if c == '&' && !begins_shift(&name[at..]) {
                    written.push('-');
                }
            }
            c => shifted.extend(c.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| unit.to_be_bytes())),
        }
    }
    shift(&mut written, &mut shifted);
    written
}

/// Writes down what has been gathered that is no ASCII, as UTF-16 in BASE64 between `&` and `-`.
fn shift(written: &mut String, shifted: &mut Vec<u8>) {
    if let Some(encoding) = SHIFTED.as_ref().filter(|_| !shifted.is_empty()) {
        written.push('&');
        encoding.encode_append(shifted, written);
        written.push('-');
    }
    shifted.clear();
}

fn begins_shift(text: &str) -> bool {
    let Some((inside, _)) = text[1..].split_once('-') else { return false };
    inside.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_what_servers_know() {
        for (name, expected) in [
            ("INBOX", "INBOX"),
            ("R&D", "R&-D"),
            ("R&-D", "R&-D"),
            ("Entwürfe", "Entw&APw-rfe"),
            ("Entw&APw-rfe", "Entw&APw-rfe"),
            ("Ü&Ä", "&ANw-&-&AMQ-"),
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("Éléments envoyés", "&AMk-l&AOk-ments envoy&AOk-s"),
            ("post 📮", "post &2D3c7g-"),
            ("a\r\nA2 LOGOUT", "aA2 LOGOUT"),
            ("Ä\u{85}Ä", "&AMQAxA-"),
            ("", ""),
        ] {
            assert_eq!(in_utf7(name), expected, "{name:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_name_is_printable_ascii_and_stays_when_written_again(name in "\\PC{0,40}") {
            let written = in_utf7(&name);
            proptest::prop_assert!(written.bytes().all(|b| (b' '..=b'~').contains(&b)), "{written:?}");
            proptest::prop_assert_eq!(in_utf7(&written), written);
        }
    }
}
