//! The header section of a message or a part, as bounded fields. Pure, and linear in the section.
//!
//! Only fields that something reads are kept, so a section of a million fields costs one look at each line and no memory.

use std::collections::BTreeMap;
use std::ops::Range;

use memchr::memchr;

/// Fields of which the last one counts (RFC 8621 section 4.1.2: where a field may stand once only, the last instance).
const SINGLE: [&str; 29] = [
    "auto-submitted",
    "content-disposition",
    "content-id",
    "content-transfer-encoding",
    "content-type",
    "date",
    "from",
    "in-reply-to",
    "list-help",
    "list-id",
    "list-post",
    "list-unsubscribe",
    "message-id",
    "precedence",
    "references",
    "reply-to",
    "return-path",
    "sender",
    "subject",
    "x-auto-response-suppress",
    "x-autoreply",
    "x-autorespond",
    "x-autoresponder",
    "x-failed-recipients",
    "x-mailer",
    "x-ms-exchange-generated-message-source",
    "x-ms-exchange-inbox-rules-loop",
    "x-ms-exchange-message-is-ndr",
    "x-msexchange-messageclass",
];
/// Fields of recipients: who is named twice is still a recipient, so all of them count.
const RECIPIENTS: [&str; 2] = ["to", "cc"];
/// Most fields of recipients that are kept.
const MAX_RECIPIENT_FIELDS: usize = 50;

/// What is kept of a header section. Values are as written: folded, encoded, with their line ends.
#[derive(Debug, Default)]
pub(super) struct Fields<'m> {
    single: BTreeMap<&'static str, &'m [u8]>,
    recipients: Vec<(&'static str, &'m [u8])>,
    /// Recipients were left out.
    pub(super) cut: bool,
}

impl<'m> Fields<'m> {
    /// The value of a field of which the last counts.
    pub(super) fn get(&self, name: &str) -> Option<&'m [u8]> {
        self.single.get(name).copied()
    }

    /// All fields of this name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &'m [u8]> {
        self.recipients.iter().filter(move |(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// Every kept name that stands once, with its value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &'m [u8])> {
        self.single.iter().map(|(name, value)| (*name, *value))
    }

    fn keep(&mut self, name: &[u8], value: &'m [u8]) {
        let same = |known: &&&'static str| known.as_bytes().eq_ignore_ascii_case(name);
        if let Some(known) = SINGLE.iter().find(same) {
            self.single.insert(known, value);
        } else if let Some(known) = RECIPIENTS.iter().find(same) {
            self.cut |= self.recipients.len() >= MAX_RECIPIENT_FIELDS;
            if self.recipients.len() < MAX_RECIPIENT_FIELDS {
                self.recipients.push((known, value));
            }
        }
    }
}

/// One line of `raw` from `at`: where it ends, and where the next begins.
pub(super) fn line(raw: &[u8], at: usize) -> (Range<usize>, usize) {
    let rest = raw.get(at..).unwrap_or_default();
    match memchr(b'\n', rest) {
        Some(length) => {
            let end = if length > 0 && rest[length - 1] == b'\r' { length - 1 } else { length };
            (at..at + end, at + length + 1)
        }
        None => (at..raw.len(), raw.len()),
    }
}

/// The fields of the section that begins at `at`, and where the body begins. `ends` is asked for each line and says
/// whether the part ends before it, which is where the section ends, too, if no empty line came first.
///
/// What does not look like a field is passed over, since some servers fold wrongly. But where nothing like a field follows
/// any more, the empty line is what is missing, and the body begins.
pub(super) fn section<'m>(raw: &'m [u8], at: usize, mut ends: impl FnMut(&'m [u8]) -> bool) -> (Fields<'m>, usize) {
    let mut fields = Fields::default();
    let mut open: Option<(Range<usize>, Range<usize>)> = None;
    let mut stray: Option<usize> = None;
    let mut next = at;
    let body = loop {
        let begin = next;
        if begin >= raw.len() {
            break stray.unwrap_or(begin);
        }
        let (range, after) = line(raw, begin);
        let text = &raw[range.clone()];
        if ends(text) {
            break stray.unwrap_or(begin);
        }
        next = after;
        if text.is_empty() {
            break stray.unwrap_or(after);
        }
        if matches!(text[0], b' ' | b'\t') && stray.is_none() {
            if let Some((_, value)) = &mut open {
                value.end = range.end;
            }
            continue;
        }
        match name(text) {
            Some(length) => {
                if let Some((name, value)) = open.take() {
                    fields.keep(&raw[name], &raw[value]);
                }
                let colon = text.iter().position(|byte| *byte == b':').unwrap_or(length);
                open = Some((begin..begin + length, begin + colon + 1..range.end));
                stray = None;
            }
            // The separator of the mbox format, as some gateways leave it.
            None if begin == at && (text.starts_with(b"From ") || text.starts_with(b">From ")) => {}
            None => {
                stray.get_or_insert(begin);
            }
        }
    };
    if let Some((name, value)) = open {
        fields.keep(&raw[name], &raw[value]);
    }
    (fields, body)
}

/// Length of the name when the line begins like a field (RFC 5322 section 2.2, and white space before the colon as in its
/// section 4.5).
fn name(text: &[u8]) -> Option<usize> {
    let length = text.iter().position(|byte| !matches!(byte, b'!'..=b'9' | b';'..=b'~'))?;
    let colon = text[length..].iter().find(|byte| !matches!(byte, b' ' | b'\t'));
    (length > 0 && colon == Some(&b':')).then_some(length)
}

/// Most bytes that the search for the ends of encoded words may look at, in one field.
const MAX_LOOKS: usize = 256 * 1024;

/// At most `max` bytes of a value, ended by a line end. True: something was cut off.
///
/// mail-parser 0.11 looks for the end of an encoded word (RFC 2047) from each `=?` on, to the end of the field if need be.
/// A field of many beginnings and no end costs the square of its length, so it is cut off before that.
pub(super) fn bounded(value: &[u8], max: usize) -> (&[u8], bool) {
    let mut end = value.len().min(max);
    let mut looks = 0;
    let mut begun = 0usize;
    for (at, pair) in value[..end].windows(2).enumerate() {
        match pair {
            b"=?" => begun += 1,
            b"?=" => begun = 0,
            _ => {}
        }
        looks += begun;
        if looks > MAX_LOOKS {
            end = at;
            break;
        }
    }
    (&value[..end], end < value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str) -> (Vec<(&'static str, String)>, &str) {
        let (fields, body) = section(raw.as_bytes(), 0, |line| line.starts_with(b"--end"));
        let kept = fields.iter().map(|(name, value)| (name, String::from_utf8_lossy(value).trim().to_owned()));
        (kept.collect(), &raw[body..])
    }

    #[test]
    fn where_the_body_begins() {
        let s = || vec![("subject", "s".to_owned())];
        for (raw, fields, body) in [
            ("Subject: s\r\n\r\nbody", s(), "body"),
            ("Subject: s\n\nbody", s(), "body"),
            ("SUBJECT :s\r\n\r\nbody", s(), "body"),
            ("Subject: s", s(), ""),
            ("Subject: s\r\n", s(), ""),
            ("", vec![], ""),
            ("\r\nbody", vec![], "body"),
            ("no header\r\nat all", vec![], "no header\r\nat all"),
            ("no header\r\n\r\nmore", vec![], "no header\r\n\r\nmore"),
            ("Subject: s\r\nthe empty line\r\nis missing\r\n\r\nmore", s(), "the empty line\r\nis missing\r\n\r\nmore"),
            ("X: y\r\nnot a field\r\nSubject: s\r\n\r\nbody", s(), "body"),
            ("From me Mon Jan 1\r\nSubject: s\r\n\r\nbody", s(), "body"),
            ("Subject: s\r\n--end\r\n\r\nbody", s(), "--end\r\n\r\nbody"),
            ("Subject: first\r\nSubject: s\r\n\r\n", s(), ""),
            (" folded before anything\r\nSubject: s\r\n\r\nbody", s(), "body"),
        ] {
            assert_eq!(read(raw), (fields, body), "{raw:?}");
        }
    }

    #[test]
    fn folded_fields_go_on_and_recipients_of_all_fields_are_kept() {
        let raw = b"To: a\r\nSubject: one\r\n two\r\n\tthree\r\nTO: b\r\nCc: c\r\n\r\n";
        let (fields, _) = section(raw, 0, |_| false);
        assert_eq!(fields.get("subject"), Some(&b" one\r\n two\r\n\tthree"[..]));
        assert_eq!(fields.all("to").collect::<Vec<_>>(), [b" a", b" b"]);
        let many = "To: a\r\n".repeat(MAX_RECIPIENT_FIELDS + 1);
        let (fields, _) = section(many.as_bytes(), 0, |_| false);
        assert!(fields.cut);
        assert_eq!(fields.all("to").count(), MAX_RECIPIENT_FIELDS);
    }

    #[test]
    fn encoded_words_that_never_end_are_cut_off_early() {
        let fine = "=?utf-8?q?x?= ".repeat(4000);
        assert_eq!(bounded(fine.as_bytes(), 1 << 20), (fine.as_bytes(), false));
        assert_eq!(bounded(b"abc", 2), (&b"ab"[..], true));
        let hostile = "=?aa?q? ".repeat(100_000);
        let (kept, cut) = bounded(hostile.as_bytes(), 1 << 20);
        assert!(cut && kept.len() < 8000, "{}", kept.len());
    }
}
