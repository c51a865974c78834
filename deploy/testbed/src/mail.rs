//! Plain sample messages.

use jiff::{Timestamp, fmt::rfc2822, tz::TimeZone};
use uuid::Uuid;

use crate::lmtp::Delivery;

/// A message to be made: addresses, subject and a text of a wanted size.
#[derive(Clone, Debug)]
pub struct Mail {
    to: String,
    from: String,
    subject: String,
    message_id: String,
    date: Timestamp,
    headers: Vec<(String, String)>,
    body: Option<String>,
    size: usize,
}

impl Mail {
    /// A short message to `to` with a Message-ID of its own.
    pub fn to(to: &str) -> Self {
        Self {
            to: to.to_owned(),
            from: "Anna Customer <anna@customer.example>".to_owned(),
            subject: "A question".to_owned(),
            message_id: format!("{}@customer.example", Uuid::new_v4().simple()),
            date: Timestamp::now(),
            headers: Vec::new(),
            body: None,
            size: 0,
        }
    }

    /// Sets the header `From`, as it is to stand there.
    #[must_use]
    pub fn from(self, from: &str) -> Self {
        Self { from: from.to_owned(), ..self }
    }

    /// Sets the header `Subject`, as it is to stand there: ASCII or encoded words.
    #[must_use]
    pub fn subject(self, subject: &str) -> Self {
        Self { subject: subject.to_owned(), ..self }
    }

    /// Sets the header `Message-ID`, without the angle brackets.
    #[must_use]
    pub fn message_id(self, message_id: &str) -> Self {
        Self { message_id: message_id.to_owned(), ..self }
    }

    /// Sets the header `Date`.
    #[must_use]
    pub fn date(self, date: Timestamp) -> Self {
        Self { date, ..self }
    }

    /// Adds a header, as it is to stand there.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the text.
    #[must_use]
    pub fn body(self, body: &str) -> Self {
        Self { body: Some(body.to_owned()), ..self }
    }

    /// Fills the text up until the whole message has `bytes` bytes; a message that is longer stays as it is.
    #[must_use]
    pub fn size(self, bytes: usize) -> Self {
        Self { size: bytes, ..self }
    }

    /// The message, with CRLF line ends.
    pub fn build(&self) -> Vec<u8> {
        let date = rfc2822::to_string(&self.date.to_zoned(TimeZone::UTC)).unwrap_or_default();
        let mut text = format!(
            "Date: {date}\nFrom: {}\nTo: <{}>\nSubject: {}\nMessage-ID: <{}>\n",
            self.from, self.to, self.subject, self.message_id
        );
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\n"));
        }
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            text.push_str("MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n");
        }
        text.push('\n');
        text.push_str(self.body.as_deref().unwrap_or("Good morning,\n\nwhere is my parcel?\n\nAnna"));
        text.push('\n');
        let mut message = text.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes();
        fill(&mut message, self.size);
        message
    }

    /// The message and who gets it.
    pub fn delivery(&self) -> Delivery {
        Delivery { to: self.to.clone(), message: self.build() }
    }
}

/// Appends lines of at most 76 characters and CRLF until the message has exactly `size` bytes.
fn fill(message: &mut Vec<u8>, size: usize) {
    const LINE: usize = 78;
    const WORDS: &[u8] = b"The parcel left the warehouse on Monday and has not been seen since then. ";
    while message.len() + 2 < size {
        let missing = size - message.len();
        // What is left after this line must be nothing or enough for a line of its own.
        let line = if missing > LINE && missing < LINE + 3 { LINE - 3 } else { missing.min(LINE) };
        message.extend(WORDS.iter().cycle().take(line - 2));
        message.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_wanted_size_and_whole_lines() {
        for size in 1_000..1_400 {
            let message = Mail::to("a@b.example").size(size).build();
            assert_eq!(message.len(), size);
            assert!(message.ends_with(b"\r\n"));
            assert!(message.split(|byte| *byte == b'\n').all(|line| line.len() <= 77 + 1));
        }
    }

    #[test]
    fn line_ends_are_crlf_once() {
        let message = Mail::to("a@b.example").body("one\ntwo\r\nthree").build();
        let text = String::from_utf8(message).unwrap();
        assert!(text.ends_with("\r\n\r\none\r\ntwo\r\nthree\r\n"), "{text:?}");
    }

    #[test]
    fn headers_stand_as_given() {
        let text = Mail::to("a@b.example").subject("S").message_id("id@x").header("X-Test", "1").build();
        let text = String::from_utf8(text).unwrap();
        for line in ["To: <a@b.example>\r\n", "Subject: S\r\n", "Message-ID: <id@x>\r\n", "X-Test: 1\r\n"] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }
}
