//! What stands in a field. Each value is bounded before mail-parser sees it. Pure.

use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::parsers::MessageStream;
use mail_parser::{Address, ContentType, HeaderValue};

use super::fields::bounded;

/// Most of an address field that is read.
const MAX_ADDRESS_FIELD: usize = 64 * 1024;
/// Most of a field of ids that is read.
const MAX_ID_FIELD: usize = 64 * 1024;
/// Most of Content-Type and Content-Disposition that is read. Their parser compares parameters with each other.
const MAX_PARAMETERS: usize = 4 * 1024;
/// Most of any other field that is read.
const MAX_TEXT_FIELD: usize = 16 * 1024;

/// What a part says it is (RFC 2045 section 5).
#[derive(Debug, Clone, Default)]
pub(super) struct Kind {
    /// Lower case, for example `text/plain`.
    pub(super) name: String,
    pub(super) boundary: String,
    pub(super) charset: String,
    /// The parameter `name`.
    pub(super) file: String,
    /// Lower case. RFC 6522: of what a multipart/report is a report.
    pub(super) report: String,
    /// Upper case. RFC 6047: what a text/calendar asks for.
    pub(super) method: String,
    /// RFC 3676: lines end where the sender's window did.
    pub(super) flowed: bool,
    /// RFC 3676: the space before such an end is not part of the text.
    pub(super) delsp: bool,
}

/// How a part is meant to be shown (RFC 2183).
#[derive(Debug, Clone, Default)]
pub(super) struct Disposition {
    pub(super) is_attachment: bool,
    /// The parameter `filename`.
    pub(super) file: String,
}

/// A value as mail-parser takes it: bounded, in UTF-8, with a line end. Bytes that are not UTF-8 are read in `charset`.
/// True: something was cut off.
fn prepared(value: &[u8], max: usize, charset: &str) -> (Vec<u8>, bool) {
    let (value, cut) = bounded(value, max);
    let value = match std::str::from_utf8(value) {
        Err(error) if cut && error.error_len().is_none() => &value[..error.valid_up_to()],
        _ => value,
    };
    let mut bytes = match std::str::from_utf8(value) {
        Ok(text) => text.as_bytes().to_vec(),
        Err(_) => in_charset(value, charset).into_bytes(),
    };
    bytes.push(b'\n');
    (bytes, cut)
}

/// Bytes that are not UTF-8, as text: in this charset, or else in the one that Western Windows wrote for decades.
pub(super) fn in_charset(bytes: &[u8], charset: &str) -> String {
    let known = charset_decoder(charset.as_bytes()).filter(|_| !charset.is_empty());
    match known.or_else(|| charset_decoder(b"windows-1252")) {
        Some(decode) => decode(bytes),
        None => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Unstructured text with encoded words (RFC 2047).
pub(super) fn text(value: &[u8], charset: &str) -> (String, bool) {
    let (bytes, cut) = prepared(value, MAX_TEXT_FIELD, charset);
    let text = match MessageStream::new(&bytes).parse_unstructured() {
        HeaderValue::Text(text) => text.into_owned(),
        _ => String::new(),
    };
    (text, cut)
}

/// Names and addresses (RFC 5322 section 3.4), groups taken apart.
pub(super) fn addresses(value: &[u8], charset: &str) -> (Vec<(String, String)>, bool) {
    let (mut bytes, cut) = prepared(value, MAX_ADDRESS_FIELD, charset);
    if cut {
        // Half an address would be another address.
        let end = bytes.iter().rposition(|byte| *byte == b',').unwrap_or(0);
        bytes.truncate(end);
        bytes.push(b'\n');
    }
    let both = |one: &mail_parser::Addr<'_>| {
        let own = |text: Option<&str>| text.unwrap_or_default().trim().to_owned();
        (own(one.name()), own(one.address()))
    };
    let mut list: Vec<_> = match MessageStream::new(&bytes).parse_address() {
        HeaderValue::Address(list) => Address::iter(&list).map(both).collect(),
        _ => Vec::new(),
    };
    // The comma may have stood in a name.
    if cut && list.last().is_some_and(|(_, address)| address.is_empty()) {
        list.pop();
    }
    (list, cut)
}

/// Message ids without brackets. Of too many the last are kept: they are what threads hang on.
pub(super) fn ids(value: &[u8]) -> (Vec<String>, bool) {
    let begin = value.len().saturating_sub(MAX_ID_FIELD);
    let mut value = &value[begin..];
    if begin > 0 {
        let whole = value.iter().position(|byte| *byte == b'<').unwrap_or(value.len());
        value = &value[whole..];
    }
    let (bytes, cut) = prepared(value, MAX_ID_FIELD, "");
    let ids = match MessageStream::new(&bytes).parse_id() {
        HeaderValue::Text(id) => vec![bare(&id)],
        HeaderValue::TextList(ids) => ids.iter().map(|id| bare(id)).collect(),
        _ => Vec::new(),
    };
    (ids.into_iter().filter(|id| !id.is_empty()).collect(), cut || begin > 0)
}

/// The first id of a field that holds one.
pub(super) fn id(value: &[u8]) -> String {
    let (value, _) = bounded(value, MAX_PARAMETERS);
    ids(value).0.into_iter().next().unwrap_or_default()
}

fn bare(id: &str) -> String {
    id.trim().trim_start_matches('<').trim_end_matches('>').to_owned()
}

/// Seconds since 1970 of the years 1 to 9999, which is what a timestamp can be on the wire.
const DATES: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Seconds since 1970. The parser takes any number for a month or an hour; only real dates count.
pub(super) fn date(value: &[u8]) -> Option<i64> {
    let (bytes, _) = prepared(value, MAX_PARAMETERS, "");
    let date = MessageStream::new(&bytes).parse_date().into_datetime().filter(mail_parser::DateTime::is_valid)?;
    Some(date.to_timestamp()).filter(|seconds| DATES.contains(seconds))
}

/// The first word, in lower case, without comment and parameters.
pub(super) fn token(value: Option<&[u8]>) -> String {
    let (value, _) = bounded(value.unwrap_or_default(), MAX_PARAMETERS);
    let text = String::from_utf8_lossy(value.trim_ascii_start()).into_owned();
    let end = text.find([';', '(', ',', ' ', '\t', '\r', '\n']).unwrap_or(text.len());
    text[..end].trim_matches('"').to_lowercase()
}

fn structured(value: &[u8], read: impl FnOnce(&ContentType<'_>)) {
    let (bytes, _) = prepared(value, MAX_PARAMETERS, "");
    if let HeaderValue::ContentType(value) = MessageStream::new(&bytes).parse_content_type() {
        read(&value);
    }
}

/// What a Content-Type says; `default` where there is none that can be read (RFC 2045 section 5.2).
pub(super) fn media_type(value: Option<&[u8]>, default: &str) -> Kind {
    let mut kind = Kind { name: default.to_owned(), ..Kind::default() };
    structured(value.unwrap_or_default(), |value| {
        let get = |name: &str| value.attribute(name).unwrap_or_default().trim().to_owned();
        kind.name = match value.subtype() {
            Some(subtype) => format!("{}/{subtype}", value.ctype()).to_lowercase(),
            None if value.ctype().eq_ignore_ascii_case("text") => "text/plain".into(),
            None => "application/octet-stream".into(),
        };
        kind.boundary = value.attribute("boundary").unwrap_or_default().trim_end().to_owned();
        kind.charset = get("charset");
        kind.file = get("name");
        kind.report = get("report-type").to_lowercase();
        kind.method = get("method").to_uppercase();
        kind.flowed = get("format").eq_ignore_ascii_case("flowed");
        kind.delsp = get("delsp").eq_ignore_ascii_case("yes");
    });
    kind
}

/// What a Content-Disposition says. What is unknown is an attachment (RFC 2183 section 2.8).
pub(super) fn disposition(value: &[u8]) -> Disposition {
    let mut read = Disposition::default();
    structured(value, |value| {
        read.is_attachment = !value.ctype().eq_ignore_ascii_case("inline");
        read.file = value.attribute("filename").unwrap_or_default().trim().to_owned();
    });
    read
}
