//! One line of an IMAP server, judged before a parser sees it (RFC 3501 section 7). Pure.

/// What to do with a line that begins a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Known: hand it on.
    Pass,
    /// Known but too short for the parser, or without its status: hand this on in its place.
    Complete(Vec<u8>),
    /// The capabilities, which are read here because the parser refuses lists without `IMAP4rev1`.
    Capabilities(Vec<String>),
    /// A folder, read here because whoever did not ask for one must not meet it.
    Listed(Listed),
    /// Well-formed, but nobody asked for it.
    Drop,
    /// Not IMAP. Exchange does that: `Server Unavailable. 15`.
    Noise(String),
}

/// A folder that a LIST response names (RFC 3501 section 7.2.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Its attributes, upper case: `\\SENT` (RFC 6154).
    pub attributes: Vec<String>,
    /// Its name as the server writes it, in modified UTF-7.
    pub name: String,
    /// The last part of its name.
    pub last: String,
}

/// Reads `(\HasNoChildren \Sent) "/" "Sent Items"`. A name in a literal is not read.
fn listed(rest: &[u8]) -> Option<Listed> {
    let text = std::str::from_utf8(rest).ok()?;
    let (attributes, rest) = text.strip_prefix('(')?.split_once(") ")?;
    let (delimiter, rest) = string(rest)?;
    let (name, _) = string(rest.strip_prefix(' ')?)?;
    let last = match delimiter.as_str() {
        "" | "NIL" => name.as_str(),
        delimiter => name.rsplit(delimiter).next().unwrap_or_default(),
    };
    let attributes = attributes.split_whitespace().map(str::to_ascii_uppercase).collect();
    Some(Listed { attributes, last: last.to_owned(), name })
}

/// A quoted string or an atom, and what follows it.
fn string(text: &str) -> Option<(String, &str)> {
    let Some(inside) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        return (!word.is_empty() && !word.starts_with('{')).then(|| (word.to_owned(), rest));
    };
    let (mut string, mut escaped) = (String::new(), false);
    for (at, c) in inside.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return Some((string, &inside[at + 1..])),
            c => {
                string.push(c);
                escaped = false;
            }
        }
    }
    None
}

/// The line without its line end.
pub fn strip_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Judges the first line of a response.
pub fn judge(line: &[u8]) -> Verdict {
    if line.first() == Some(&b'+') {
        return spaced(line).map_or(Verdict::Pass, Verdict::Complete);
    }
    let (tag, rest) = split_word(line);
    if tag == b"*" {
        return untagged(line, rest);
    }
    // async-imap's tags: a letter and digits.
    let ours = tag.len() >= 2 && tag[0].is_ascii_uppercase() && tag[1..].iter().all(u8::is_ascii_digit);
    let (status, text) = split_word(rest);
    if ours && is_status(status) { with_text(line, text) } else { noise(line) }
}

fn untagged(line: &[u8], rest: &[u8]) -> Verdict {
    let (word, more) = split_word(rest);
    if is_status(word) || word.eq_ignore_ascii_case(b"BYE") || word.eq_ignore_ascii_case(b"PREAUTH") {
        return with_text(line, more);
    }
    if is_code(rest) {
        // Some servers leave out the OK before a response code: `* [UIDNEXT 9] Predicted next UID`.
        let fixed = [b"* OK ", rest].concat();
        return Verdict::Complete(spaced(&fixed).unwrap_or(fixed));
    }
    if word.eq_ignore_ascii_case(b"CAPABILITY") {
        let words = String::from_utf8_lossy(more);
        return Verdict::Capabilities(words.split_whitespace().map(str::to_ascii_uppercase).collect());
    }
    if word.eq_ignore_ascii_case(b"SEARCH") {
        return Verdict::Pass;
    }
    if word.eq_ignore_ascii_case(b"LIST") {
        return listed(more).map_or(Verdict::Drop, Verdict::Listed);
    }
    let numbered = !word.is_empty() && word.len() <= 10 && word.iter().all(u8::is_ascii_digit);
    let (kind, data) = split_word(more);
    let known = [b"EXISTS".as_slice(), b"EXPUNGE", b"RECENT"].iter().any(|known| kind.eq_ignore_ascii_case(known));
    let fetch = kind.eq_ignore_ascii_case(b"FETCH") && data.first() == Some(&b'(');
    if numbered && (known || fetch) { Verdict::Pass } else { Verdict::Drop }
}

/// True for a response code (RFC 3501 section 7.1), whatever follows it.
fn is_code(rest: &[u8]) -> bool {
    let Some(inside) = rest.strip_prefix(b"[") else { return false };
    inside.first().is_some_and(u8::is_ascii_alphabetic) && inside.contains(&b']')
}

/// The parser wants text behind a status; some servers send none.
fn with_text(line: &[u8], text: &[u8]) -> Verdict {
    if text.iter().any(|byte| *byte != b' ') {
        return spaced(line).map_or(Verdict::Pass, Verdict::Complete);
    }
    let mut fixed = line.trim_ascii_end().to_vec();
    fixed.extend_from_slice(b" -");
    Verdict::Complete(fixed)
}

/// The line with a space behind each bracket that is followed at once by text beyond ASCII. The parser takes what comes behind
/// a response code for the space that belongs there (RFC 3501 section 7.1), and panics in the middle of a character.
pub fn spaced(line: &[u8]) -> Option<Vec<u8>> {
    let lacks = |pair: &[u8]| pair[0] == b']' && !pair[1].is_ascii();
    if !line.windows(2).any(lacks) {
        return None;
    }
    let mut fixed = Vec::with_capacity(line.len() + 8);
    for (at, byte) in line.iter().enumerate() {
        fixed.push(*byte);
        if line.get(at..at + 2).is_some_and(lacks) {
            fixed.push(b' ');
        }
    }
    Some(fixed)
}

fn noise(line: &[u8]) -> Verdict {
    Verdict::Noise(short(line))
}

/// A NO, BAD or BYE in words, for whoever has to explain a failure.
pub fn remark(line: &[u8]) -> Option<String> {
    let (tag, rest) = split_word(line);
    let (status, _) = split_word(rest);
    let bad = [b"NO".as_slice(), b"BAD", b"BYE"].iter().any(|bad| status.eq_ignore_ascii_case(bad));
    let known = || matches!(judge(line), Verdict::Pass | Verdict::Complete(_));
    (bad && (tag == b"*" || known())).then(|| {
        let at = line.len() - rest.len() + status.len();
        short(line[at..].trim_ascii())
    })
}

/// Size of the literal that follows this line (RFC 3501 section 4.3, RFC 7888, RFC 3516).
pub fn literal(line: &[u8]) -> Option<u64> {
    let inside = line.strip_suffix(b"}")?;
    let inside = inside.strip_suffix(b"+").unwrap_or(inside);
    let digits = inside.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, digits) = inside.split_at(inside.len() - digits);
    if before.last() != Some(&b'{') || digits.is_empty() {
        return None;
    }
    // A size that does not fit is one that is too large.
    Some(std::str::from_utf8(digits).ok()?.parse().unwrap_or(u64::MAX))
}

/// The UID that a FETCH response names in this line.
pub fn uid(line: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(line).to_ascii_uppercase();
    let (_, after) = text.split_once("(UID ").or_else(|| text.split_once(" UID "))?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn is_status(word: &[u8]) -> bool {
    [b"OK".as_slice(), b"NO", b"BAD"].iter().any(|status| word.eq_ignore_ascii_case(status))
}

fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b' ') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

fn short(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(512)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_as_servers_write_them() {
        let read = |line: &str| match judge(line.as_bytes()) {
            Verdict::Listed(Listed { attributes, name, last }) => Some((attributes.join(" "), name, last)),
            _ => None,
        };
        let told = |attributes: &str, name: &str, last: &str| Some((attributes.into(), name.into(), last.into()));
        let sent = r#"* LIST (\HasNoChildren \Sent) "/" "Sent Items""#;
        assert_eq!(read(sent), told(r"\HASNOCHILDREN \SENT", "Sent Items", "Sent Items"));
        assert_eq!(read(r"* LIST () NIL INBOX"), told("", "INBOX", "INBOX"));
        assert_eq!(read(r#"* list () "." INBOX.Trash"#), told("", "INBOX.Trash", "Trash"));
        assert_eq!(read(r#"* LIST () "/" "a\"b\\c""#), told("", r#"a"b\c"#, r#"a"b\c"#));
        for other in [r#"* LIST () "/" {5}"#, r#"* LIST () "/" "open"#, "* LIST", "* LIST (", r#"* LIST () "/""#] {
            assert_eq!(judge(other.as_bytes()), Verdict::Drop, "{other}");
        }
    }

    #[test]
    fn known_lines_pass() {
        for line in [
            "* 3 EXISTS",
            "* 3 FETCH (UID 5)",
            "* OK [UIDVALIDITY 3] x",
            "A0001 NO no",
            "+ idling",
            "+",
            "* BYE x",
            "* SEARCH 2",
        ] {
            assert_eq!(judge(line.as_bytes()), Verdict::Pass, "{line}");
        }
        for line in ["* ESEARCH (TAG \"A1\")", "* 3 FOO", "* FLAGS (\\Seen)", "*", "* 3 FETCH BODY", "* VANISHED 1"] {
            assert_eq!(judge(line.as_bytes()), Verdict::Drop, "{line}");
        }
        for line in ["Server Unavailable. 15", "", "A0001", "a1 OK x"] {
            assert!(matches!(judge(line.as_bytes()), Verdict::Noise(_)), "{line}");
        }
    }

    #[test]
    fn a_response_code_without_its_ok_gets_one() {
        let line = b"* [UIDVALIDITY 9] UIDs valid";
        assert_eq!(judge(line), Verdict::Complete(b"* OK [UIDVALIDITY 9] UIDs valid".to_vec()));
        assert_eq!(judge(b"* [READ-WRITE]"), Verdict::Complete(b"* OK [READ-WRITE]".to_vec()));
        for other in ["* [", "* []", "* [9]", "* [UIDNEXT 9", "* [ X]"] {
            assert_eq!(judge(other.as_bytes()), Verdict::Drop, "{other}");
        }
    }

    #[test]
    fn text_beyond_ascii_gets_its_space_behind_a_response_code() {
        for (line, fixed) in [
            ("* OK [ALERT]\u{fc}ber Nacht", "* OK [ALERT] \u{fc}ber Nacht"),
            ("A0003 NO [UNAVAILABLE]\u{20ac}", "A0003 NO [UNAVAILABLE] \u{20ac}"),
            ("+ [ALERT]\u{fc}", "+ [ALERT] \u{fc}"),
            ("* [UIDNEXT 9]\u{fc}", "* OK [UIDNEXT 9] \u{fc}"),
        ] {
            assert_eq!(judge(line.as_bytes()), Verdict::Complete(fixed.into()), "{line}");
        }
        assert_eq!(judge(b"* OK [ALERT]\xaa]\xff"), Verdict::Complete(b"* OK [ALERT] \xaa] \xff".to_vec()));
        assert_eq!(judge("* OK [ALERT] \u{fc}ber".as_bytes()), Verdict::Pass);
        assert_eq!(remark("A0003 NO [X]\u{fc}ber".as_bytes()).as_deref(), Some("[X]\u{fc}ber"));
    }

    #[test]
    fn refusals_are_kept_for_the_explanation() {
        assert_eq!(remark(b"A0003 NO [X] not now").as_deref(), Some("[X] not now"));
        assert_eq!(remark(b"* BYE Connection closed. 14").as_deref(), Some("Connection closed. 14"));
        assert_eq!(remark(b"* OK fine"), None);
        assert_eq!(remark(b"* 1 FETCH (X NO)"), None);
    }

    #[test]
    fn literals_of_every_kind() {
        for (line, want) in [
            ("x {3}", Some(3)),
            ("x {3+}", Some(3)),
            ("x ~{12}", Some(12)),
            ("x {99999999999999999999999}", Some(u64::MAX)),
            ("x {}", None),
            ("x {a}", None),
            ("x 3}", None),
        ] {
            assert_eq!(literal(line.as_bytes()), want, "{line}");
        }
    }

    #[test]
    fn uids_are_found_before_the_literal() {
        assert_eq!(uid(b"* 1 FETCH (UID 42 BODY[] {3}"), Some(42));
        assert_eq!(uid(b"* 1 FETCH (FLAGS () uid 42 BODY[] {3}"), Some(42));
        assert_eq!(uid(b"* 1 FETCH (BODY[] {3}"), None);
    }
}
