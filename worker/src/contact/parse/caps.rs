//! Cuts what is too long, and remembers what was cut. Pure.

use postroom_proto::v1::{ContactContent, EmailAddress};

/// Most text, and most HTML, that a contact carries.
pub const MAX_BODY: usize = 1024 * 1024;
/// Longest subject.
pub const MAX_SUBJECT: usize = 2 * 1024;
/// Most addresses in all headers together.
pub const MAX_ADDRESSES: usize = 500;
/// Most attachments listed.
pub const MAX_ATTACHMENTS: usize = 500;
/// Most of what is not capped by itself, in bytes together, so that headers alone never fill a report.
pub const MAX_HEADERS: usize = 256 * 1024;
/// Most ids in In-Reply-To and in References.
const MAX_IDS: usize = 200;
/// Longest single name, address or id.
pub(super) const MAX_WORD: usize = 1000;

/// What may be cut, by the names that `ContactContent.truncated` has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Text,
    Html,
    Headers,
    Attachments,
}

const NAMES: [&str; 4] = ["text", "html", "headers", "attachments"];

/// What was used up so far, and what was cut.
#[derive(Debug, Default)]
pub(super) struct Caps {
    addresses: usize,
    header_bytes: usize,
    cut: [bool; 4],
}

impl Caps {
    /// Remembers a cut where there was one.
    pub(super) fn mark(&mut self, what: Cut, is_cut: bool) {
        self.cut[what as usize] |= is_cut;
    }

    /// The content, with the names of what was cut.
    pub(super) fn finish(self, content: ContactContent) -> ContactContent {
        let cut = self.cut.iter().zip(NAMES).filter(|(cut, _)| **cut);
        ContactContent { truncated: cut.map(|(_, name)| name.to_owned()).collect(), ..content }
    }

    /// Text of a body. Without null characters: no text store takes them, and no reader sees them.
    pub(super) fn body(&mut self, mut body: String, what: Cut) -> String {
        // Looking is much quicker than writing every letter again, and next to no body has one.
        if body.contains('\0') {
            body.retain(|one| one != '\0');
        }
        if body.len() > MAX_BODY {
            body.truncate(boundary(&body, MAX_BODY));
            self.mark(what, true);
        }
        body
    }

    /// A subject, a name, an address, an id: one line, without control characters. Encoded words may hold line ends, which
    /// would end a header field wherever the word is written again.
    pub(super) fn word(&mut self, text: &str, max: usize) -> String {
        let clean: String =
            text.chars().filter(|one| *one != '\0').map(|one| if one.is_control() { ' ' } else { one }).collect();
        let text = clean.trim();
        let room = max.min(MAX_HEADERS.saturating_sub(self.header_bytes));
        let end = boundary(text, room);
        self.mark(Cut::Headers, end < text.len());
        self.header_bytes += end;
        text[..end].to_owned()
    }

    pub(super) fn addresses(&mut self, list: Vec<(String, String)>) -> Vec<EmailAddress> {
        let mut taken = Vec::new();
        for (name, address) in list {
            if self.addresses >= MAX_ADDRESSES || self.header_bytes >= MAX_HEADERS {
                self.mark(Cut::Headers, true);
                break;
            }
            let name = self.word(&name, MAX_WORD);
            let address = self.word(&address, MAX_WORD);
            if name.is_empty() && address.is_empty() {
                continue;
            }
            self.addresses += 1;
            taken.push(EmailAddress { name, address });
        }
        taken
    }

    pub(super) fn ids(&mut self, all: &[String]) -> Vec<String> {
        self.mark(Cut::Headers, all.len() > MAX_IDS);
        // The newest are last, and they are what threads hang on.
        let newest = &all[all.len().saturating_sub(MAX_IDS)..];
        newest.iter().map(|id| self.word(id, MAX_WORD)).filter(|id| !id.is_empty()).collect()
    }
}

/// The last place at or before `max` where `text` may be cut.
fn boundary(text: &str, max: usize) -> usize {
    if text.len() <= max { text.len() } else { (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0) }
}
