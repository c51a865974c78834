//! The bytes of a part into bytes and text: transfer encodings, charsets, flowed lines, HTML. Pure.
//!
//! Transfer encodings are decoded here: RFC 2045 wants what does not belong there to be ignored, while mail-parser 0.11
//! gives up at the first such byte, and it takes the last letters off a quoted-printable part that ends in a soft line
//! break (in a debug build it panics). Charsets and the reading of HTML are mail-parser's.

use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::html::html_to_text as read_html;
use memchr::memchr_iter;

use super::parts::Encoding;
use super::values::in_charset;

/// Decodes at most `max` encoded bytes. True: there were more.
pub(super) fn decode(encoding: Encoding, bytes: &[u8], max: usize) -> (Vec<u8>, bool) {
    let kept = &bytes[..bytes.len().min(max)];
    let decoded = match encoding {
        Encoding::Identity => kept.to_vec(),
        Encoding::Base64 => base64(kept),
        Encoding::QuotedPrintable => quoted_printable(kept),
    };
    (decoded, kept.len() < bytes.len())
}

/// Length after decoding.
pub(super) fn size(encoding: Encoding, bytes: &[u8]) -> usize {
    match encoding {
        Encoding::Identity => bytes.len(),
        Encoding::Base64 => base64_size(bytes),
        Encoding::QuotedPrintable => quoted_printable(bytes).len(),
    }
}

/// What [`base64`] would make, without making it: an equals sign ends a group early, and what is no letter counts for nothing.
fn base64_size(bytes: &[u8]) -> usize {
    let size = |letters: usize| letters / 4 * 3 + (letters % 4).saturating_sub(1);
    let mut begin = 0;
    let mut total = 0;
    for end in memchr_iter(b'=', bytes) {
        total += size(letters(&bytes[begin..end]));
        begin = end + 1;
    }
    total + size(letters(&bytes[begin..]))
}

/// How many of these bytes stand for something. Without a branch, and in parts whose count fits into a byte, so that the
/// compiler looks at many bytes at once.
fn letters(bytes: &[u8]) -> usize {
    let is_letter = |byte: u8| {
        ((byte | 0x20).wrapping_sub(b'a') < 26) | (byte.wrapping_sub(b'0') < 10) | (byte == b'+') | (byte == b'/')
    };
    bytes.chunks(255).map(|part| usize::from(part.iter().map(|byte| u8::from(is_letter(*byte))).sum::<u8>())).sum()
}

fn sextet(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

/// Groups of four letters (RFC 4648 section 4).
#[derive(Default)]
struct Groups {
    bits: u32,
    letters: u8,
}

impl Groups {
    /// How many bytes come out after this letter, and which.
    fn push(&mut self, byte: u8) -> (usize, [u8; 3]) {
        if byte == b'=' {
            return self.flush();
        }
        let Some(value) = sextet(byte) else { return (0, [0; 3]) };
        self.bits = self.bits << 6 | value;
        self.letters += 1;
        if self.letters < 4 {
            return (0, [0; 3]);
        }
        self.flush()
    }

    fn flush(&mut self) -> (usize, [u8; 3]) {
        let Self { bits, letters } = std::mem::take(self);
        let count = usize::from(letters).saturating_sub(1);
        let [_, a, b, c] = (bits << (6 * (4 - u32::from(letters)))).to_be_bytes();
        (count, [a, b, c])
    }
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len() / 4 * 3 + 3);
    let mut groups = Groups::default();
    for byte in bytes {
        let (count, out) = groups.push(*byte);
        decoded.extend_from_slice(&out[..count]);
    }
    let (count, out) = groups.flush();
    decoded.extend_from_slice(&out[..count]);
    decoded
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// RFC 2045 section 6.7. What is no encoding stands for itself.
fn quoted_printable(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (line, end) = match line.strip_suffix(b"\r\n") {
            Some(line) => (line, &b"\r\n"[..]),
            None => line.strip_suffix(b"\n").map_or((line, &b""[..]), |line| (line, &b"\n"[..])),
        };
        // White space at the end of a line was added on the way.
        let mut rest = line.trim_ascii_end();
        let soft = rest.last() == Some(&b'=');
        if soft {
            rest = &rest[..rest.len() - 1];
        }
        while let Some(at) = rest.iter().position(|byte| *byte == b'=') {
            decoded.extend_from_slice(&rest[..at]);
            match &rest[at + 1..] {
                [high, low, after @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                    decoded.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                    rest = after;
                }
                after => {
                    decoded.push(b'=');
                    rest = after;
                }
            }
        }
        decoded.extend_from_slice(rest);
        if !soft {
            decoded.extend_from_slice(end);
        }
    }
    decoded
}

/// Charsets that say nothing: senders name them without looking.
const HARMLESS: [&str; 8] =
    ["", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252", "iso-8859-15", "x-unknown"];

/// Text in a charset. Labels are often wrong: what is UTF-8 with letters beyond ASCII is UTF-8 where the label is one of
/// those that stand there by default, and what cannot be UTF-8 is not.
pub(super) fn to_text(bytes: &[u8], charset: &str) -> String {
    let label = charset.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
    let decoder = charset_decoder(label.as_bytes()).filter(|_| !label.is_empty());
    let mut text = match (decoder, std::str::from_utf8(bytes)) {
        (_, Ok(text)) if HARMLESS.contains(&label.as_str()) => text.to_owned(),
        (Some(decode), read) => {
            let text = decode(bytes);
            // mail-parser answers so for charsets that browsers refuse to read. Their ASCII can be read.
            match read {
                _ if text != "\u{fffd}" || bytes.is_empty() => text,
                Ok(plain) => plain.to_owned(),
                Err(_) => String::from_utf8_lossy(bytes).into_owned(),
            }
        }
        (None, Ok(text)) => text.to_owned(),
        (None, Err(_)) => {
            let lossy = String::from_utf8_lossy(bytes);
            // Nothing beyond ASCII in it was UTF-8: then it is none.
            let wrong = !lossy.chars().any(|one| !one.is_ascii() && one != char::REPLACEMENT_CHARACTER);
            if wrong { in_charset(bytes, "") } else { lossy.into_owned() }
        }
    };
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    text
}

/// Joins the lines of flowed text (RFC 3676 section 4.2) to paragraphs, within the same depth of quotation.
pub(super) fn unflow(text: &str, delsp: bool) -> String {
    let mut joined = String::with_capacity(text.len());
    // Depth of the paragraph that goes on.
    let mut open: Option<usize> = None;
    for line in text.lines() {
        let rest = line.trim_start_matches('>');
        let depth = line.len() - rest.len();
        let words = rest.strip_prefix(' ').unwrap_or(rest);
        if open != Some(depth) {
            if open.is_some() {
                joined.push('\n');
            }
            joined.push_str(&line[..depth]);
            if depth > 0 {
                joined.push(' ');
            }
        }
        let soft = words.ends_with(' ') && words != "-- ";
        joined.push_str(if soft && delsp { &words[..words.len() - 1] } else { words });
        open = soft.then_some(depth);
        if !soft {
            joined.push('\n');
        }
    }
    joined
}

/// Elements that begin a line of their own.
const BLOCKS: [&str; 26] = [
    "address",
    "article",
    "blockquote",
    "dd",
    "div",
    "dl",
    "dt",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "li",
    "ol",
    "p",
    "pre",
    "section",
    "table",
    "tr",
    "ul",
];

/// Stands for the beginning or the end of an element that has lines of its own.
const BREAK: char = '\u{1}';

/// HTML as text. mail-parser ends a line only at `<br>` and `</p>`, which runs the lines of most mail programs together, so
/// the other elements that have lines of their own are marked for it first.
pub(super) fn html_to_text(html: &str) -> String {
    let mut marked = String::with_capacity(html.len() + html.len() / 8);
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        marked.push_str(&rest[..at]);
        rest = &rest[at..];
        let inner = rest[1..].strip_prefix('/').unwrap_or(&rest[1..]);
        let length = inner.bytes().take(12).take_while(u8::is_ascii_alphanumeric).count();
        let name = inner[..length].to_ascii_lowercase();
        if BLOCKS.contains(&name.as_str()) {
            marked.push(BREAK);
        } else if name == "td" || name == "th" {
            marked.push(' ');
        }
        marked.push('<');
        rest = &rest[1..];
    }
    marked.push_str(rest);
    let mut lines = Vec::new();
    for line in read_html(&marked).split('\n') {
        let pieces: Vec<&str> = line.split(BREAK).map(str::trim).collect();
        lines.extend(pieces.iter().filter(|piece| !piece.is_empty()).copied().map(str::to_owned));
        // Where an element ended or began, nothing was left for a line end to end: it is an empty line.
        if pieces.last().is_some_and(|last| last.is_empty()) {
            lines.push(String::new());
        }
    }
    lines.dedup_by(|one, before| one.is_empty() && before.is_empty());
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn html_has_the_lines_that_people_see() {
        for (html, text) in [
            ("<div>one</div><div>two</div>", "one\ntwo"),
            ("<div>one</div><div><br></div><div>two</div>", "one\n\ntwo"),
            ("<p>one</p>\r\n\r\n<p>two</p>", "one\n\ntwo"),
            ("one<br>two<br/>three", "one\ntwo\nthree"),
            ("<ul><li>one</li><li>two</li></ul>", "one\ntwo"),
            ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
            ("<DIV>one</DIV><H1>two</H1>three", "one\ntwo\nthree"),
            ("a <b>bold</b> word &lt;here&gt; &amp; &#8364;", "a bold word <here> & €"),
            ("<style>p{}</style><script>x()</script>text<!-- no <div> -->", "text"),
            ("<html><head><title>no</title></head><body>yes</body></html>", "yes"),
            ("a<br><br><br><br><br>b", "a\n\nb"),
            ("<p>never closed", "never closed"),
            ("5 < 6", "5"),
            ("", ""),
        ] {
            assert_eq!(html_to_text(html), text, "{html}");
        }
    }

    #[test]
    fn transfer_encodings_are_read_whatever_was_done_to_them() {
        for (encoding, written, read) in [
            (Encoding::Base64, "SGVsbG8g\r\nd29ybGQ=", "Hello world"),
            (Encoding::Base64, "SGVsbG8", "Hello"),
            (Encoding::Base64, "SGVs*bG8=\r\n_____", "Hello"),
            (Encoding::Base64, "SGVsbG8=SGVsbG8=", "HelloHello"),
            (Encoding::Base64, "SGVsbG8gA", "Hello "),
            (Encoding::Base64, "====", ""),
            (Encoding::QuotedPrintable, "a=3Db  \r\nc=\r\nd=", "a=b\r\ncd"),
            (Encoding::QuotedPrintable, "=zz=4", "=zz=4"),
            (Encoding::Identity, "=3D", "=3D"),
        ] {
            let bytes = decode(encoding, written.as_bytes(), 1000).0;
            assert_eq!(String::from_utf8_lossy(&bytes), read, "{written:?}");
            assert_eq!(size(encoding, written.as_bytes()), read.len(), "{written:?}");
        }
        assert_eq!(decode(Encoding::Identity, b"abc", 2), (b"ab".to_vec(), true));
    }

    proptest! {
        #[test]
        fn a_size_is_the_length_of_what_is_decoded(bytes in "[A-Za-z0-9+/=\r\n*\\[@{`é-]{0,600}", any in prop::collection::vec(any::<u8>(), 0..600)) {
            for bytes in [bytes.as_bytes(), &any] {
                prop_assert_eq!(size(Encoding::Base64, bytes), base64(bytes).len());
            }
        }
    }

    #[test]
    fn flowed_lines_are_joined_within_their_quotation() {
        for (flowed, delsp, text) in [
            ("one \r\ntwo\r\nthree\r\n", false, "one two\nthree\n"),
            ("wo \r\nrd\r\n", true, "word\n"),
            ("> a \r\n> b\r\nc", false, "> a b\nc\n"),
            ("> a \r\n>> b\r\n", false, "> a \n>> b\n"),
            ("-- \r\nAnna", false, "-- \nAnna\n"),
            (" stuffed", false, "stuffed\n"),
            ("end ", false, "end "),
        ] {
            assert_eq!(unflow(flowed, delsp), text, "{flowed:?}");
        }
    }
}
