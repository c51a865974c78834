//! A message divided into its parts (RFC 2046). Pure; one pass over the lines, whatever the bytes.
//!
//! This is our own and not mail-parser's, of which 0.11 keeps each attached message inside the one around it (taking them
//! apart again overflows the stack of a thread: nobody can catch that), looks to the end of the message for each boundary
//! that never comes, and needs 30 times the memory of a message that is all tiny parts.

use std::ops::Range;

use super::fields::{Fields, line, section};
use super::values::{Disposition, Kind, disposition, id, media_type, token};

/// Deepest nesting of multiparts that is followed. A deeper one is an attachment as it is.
pub(super) const MAX_DEPTH: usize = 50;
/// Most parts that are told apart.
pub(super) const MAX_PARTS: usize = 1000;

/// How the body of a part is encoded (RFC 2045 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Base64,
    QuotedPrintable,
}

/// A part that has no parts itself.
#[derive(Debug)]
pub(super) struct Leaf {
    /// Where its body stands in the message.
    pub(super) body: Range<usize>,
    pub(super) kind: Kind,
    pub(super) encoding: Encoding,
    pub(super) disposition: Disposition,
    /// Content-ID without brackets.
    pub(super) id: String,
    /// The outermost multipart/alternative around it.
    pub(super) choice: Option<usize>,
    /// It stands directly in a multipart/related.
    pub(super) in_related: bool,
    /// It is the first of the parts beside it.
    pub(super) is_first: bool,
}

/// The parts of a message.
#[derive(Debug)]
pub(super) struct Parts<'m> {
    /// The fields of the message itself.
    pub(super) fields: Fields<'m>,
    /// What the message itself says it is.
    pub(super) kind: Kind,
    pub(super) leaves: Vec<Leaf>,
    /// Parts were left out.
    pub(super) cut: bool,
}

/// A multipart whose end has not come.
struct Open {
    boundary: Vec<u8>,
    subtype: String,
    choice: Option<usize>,
    /// Parts begun in it.
    count: usize,
}

/// A line that divides.
struct Divider {
    /// Where the line begins, and where the next does.
    begin: usize,
    after: usize,
    /// Which of the open multiparts it belongs to, and whether it ends that one.
    level: usize,
    ends: bool,
}

/// RFC 2046 section 5.1.1: a line of `--`, the boundary, `--` at the end, and white space. The innermost one wins.
fn divides(text: &[u8], open: &[Open]) -> Option<(usize, bool)> {
    let rest = text.strip_prefix(b"--")?;
    open.iter().enumerate().rev().find_map(|(level, one)| {
        match rest.strip_prefix(one.boundary.as_slice())?.trim_ascii_end() {
            b"" => Some((level, false)),
            b"--" => Some((level, true)),
            _ => None,
        }
    })
}

/// Divides `raw`.
pub(super) fn divide(raw: &[u8]) -> Parts<'_> {
    let (fields, mut at) = section(raw, 0, |_| false);
    let mut walk = Walk { raw, open: Vec::new(), leaf: None, leaves: Vec::new(), choices: 0, cut: false };
    let kind = walk.begin(&fields, at);
    // Invariant: `at` only grows, and what is before it is not looked at again.
    while let Some(divider) = walk.next_divider(at) {
        at = divider.after;
        walk.take_leaf(divider.begin, Some(&divider));
        walk.open.truncate(divider.level + usize::from(!divider.ends));
        if divider.ends {
            continue;
        }
        if walk.leaves.len() >= MAX_PARTS {
            walk.cut = true;
            break;
        }
        let open = &walk.open;
        let (fields, body) = section(raw, at, |line| divides(line, open).is_some());
        at = body;
        walk.begin(&fields, body);
    }
    walk.take_leaf(raw.len(), None);
    Parts { fields, kind, leaves: walk.leaves, cut: walk.cut }
}

struct Walk<'m> {
    raw: &'m [u8],
    open: Vec<Open>,
    /// The part whose end has not come. For a multipart none of whose parts has begun: what it is if none ever does.
    leaf: Option<Leaf>,
    leaves: Vec<Leaf>,
    choices: usize,
    cut: bool,
}

impl Walk<'_> {
    /// A part begins, with its body at `body`.
    fn begin(&mut self, fields: &Fields<'_>, body: usize) -> Kind {
        let (mut choice, mut in_related, mut is_first, mut default) = (None, false, true, "text/plain");
        if let Some(parent) = self.open.last_mut() {
            parent.count += 1;
            choice = parent.choice;
            in_related = parent.subtype == "related";
            is_first = parent.count == 1;
            if parent.subtype == "digest" {
                default = "message/rfc822";
            }
        }
        let kind = media_type(fields.get("content-type"), default);
        self.leaf = Some(Leaf {
            body: body..body,
            kind: kind.clone(),
            encoding: match token(fields.get("content-transfer-encoding")).as_str() {
                "base64" => Encoding::Base64,
                "quoted-printable" => Encoding::QuotedPrintable,
                _ => Encoding::Identity,
            },
            disposition: fields.get("content-disposition").map(disposition).unwrap_or_default(),
            id: fields.get("content-id").map(id).unwrap_or_default(),
            choice,
            in_related,
            is_first,
        });
        if let Some(subtype) = kind.name.strip_prefix("multipart/") {
            if kind.boundary.is_empty() {
                return kind;
            }
            if self.open.len() >= MAX_DEPTH {
                self.cut = true;
                return kind;
            }
            if subtype == "alternative" && choice.is_none() {
                choice = Some(self.choices);
                self.choices += 1;
            }
            let boundary = kind.boundary.as_bytes().to_vec();
            self.open.push(Open { boundary, subtype: subtype.to_owned(), choice, count: 0 });
        }
        kind
    }

    fn next_divider(&self, mut at: usize) -> Option<Divider> {
        while at < self.raw.len() {
            let (range, after) = line(self.raw, at);
            if let Some((level, ends)) = divides(&self.raw[range], &self.open) {
                return Some(Divider { begin: at, after, level, ends });
            }
            at = after;
        }
        None
    }

    /// The part under way ends before `end`.
    fn take_leaf(&mut self, end: usize, divider: Option<&Divider>) {
        let Some(mut leaf) = self.leaf.take() else { return };
        let is_open = self.open.last().is_some_and(|open| open.count == 0 && leaf.kind.name.starts_with("multipart/"));
        if is_open && divider.is_some_and(|divider| divider.level + 1 == self.open.len() && !divider.ends) {
            // What came before the first part of a multipart (its preamble) is for nobody.
            return;
        }
        if leaf.kind.name.starts_with("multipart/") && self.open.len() < MAX_DEPTH {
            // It says that it has parts, and has none: people can read what there is.
            leaf.kind.name = "text/plain".into();
        }
        // The line end before a boundary belongs to the boundary.
        let body = &self.raw[leaf.body.start..end];
        let body = if divider.is_some() { body.strip_suffix(b"\n").unwrap_or(body) } else { body };
        let length = match divider {
            Some(_) if body.len() < end - leaf.body.start => body.strip_suffix(b"\r").unwrap_or(body).len(),
            _ => body.len(),
        };
        leaf.body.end = leaf.body.start + length;
        self.leaves.push(leaf);
    }
}
