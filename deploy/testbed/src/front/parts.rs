//! Lines and literals of IMAP (RFC 9051 section 2.2), read from one side.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use crate::imap::{LITERAL_BYTES, literal_length};

/// A line with its end, or a literal and the rest of the line that follows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) bytes: Vec<u8>,
    /// False: it belongs to what the part before has begun.
    pub(super) begins: bool,
}

/// Reads one side, part by part.
#[derive(Debug)]
pub(super) struct Parts<R> {
    from: BufReader<R>,
    /// What has come of the part that is being read.
    part: Vec<u8>,
    /// Bytes of the literal that this part begins with, and how many of them are still to come.
    literal: usize,
    missing: usize,
    /// This part belongs to what the one before has begun.
    goes_on: bool,
    /// Parts of a whole that is being read.
    gathered: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Parts<R> {
    pub(super) fn new(from: R) -> Self {
        let (part, gathered) = (Vec::new(), Vec::new());
        Self { from: BufReader::new(from), part, literal: 0, missing: 0, goes_on: false, gathered }
    }

    /// The next part. `None`: nothing comes any more; of what was begun nobody learns. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> io::Result<Option<Part>> {
        while self.missing > 0 {
            let some = self.from.fill_buf().await?;
            let take = some.len().min(self.missing);
            if take == 0 {
                return Ok(None);
            }
            self.part.extend_from_slice(&some[..take]);
            self.from.consume(take);
            self.missing -= take;
        }
        // What was read before this was dropped stands in the part already.
        let read = self.from.read_until(b'\n', &mut self.part).await?;
        if read == 0 || !self.part.ends_with(b"\n") {
            return Ok(None);
        }
        let bytes = std::mem::take(&mut self.part);
        let begins = !self.goes_on;
        let length = literal_length(bytes[self.literal..].trim_ascii_end());
        if length.is_some_and(|length| length > LITERAL_BYTES) {
            return Err(io::Error::other("a literal is larger than the testbed keeps in memory"));
        }
        self.goes_on = length.is_some();
        self.literal = length.unwrap_or_default();
        self.missing = self.literal;
        Ok(Some(Part { bytes, begins }))
    }

    /// The next line with all its literals. As safe to drop as [`Parts::next`].
    pub(super) async fn whole(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(part) = self.next().await? else { return Ok(None) };
            self.gathered.extend_from_slice(&part.bytes);
            if !self.goes_on {
                return Ok(Some(std::mem::take(&mut self.gathered)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const SAID: &str = "* 1 FETCH (UID 5 BODY[] {4}\r\na\r\n)\r\nX {2+}\r\n{}\r\nY {0}\r\n z\r\nhalf";

    #[tokio::test]
    async fn parts_end_where_the_other_side_has_to_answer() {
        let mut parts = Parts::new(SAID.as_bytes());
        let mut found = Vec::new();
        while let Some(part) = parts.next().await.unwrap() {
            found.push((String::from_utf8(part.bytes).unwrap(), part.begins));
        }
        let said = |text: &str, begins| (text.to_owned(), begins);
        let expected = [
            said("* 1 FETCH (UID 5 BODY[] {4}\r\n", true),
            said("a\r\n)\r\n", false),
            said("X {2+}\r\n", true),
            said("{}\r\n", false),
            said("Y {0}\r\n", true),
            said(" z\r\n", false),
        ];
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn wholes_come_in_one_piece_however_often_the_reader_is_dropped() {
        let (mut writer, reader) = tokio::io::duplex(3);
        let write = async move {
            for piece in SAID.as_bytes().chunks(1) {
                writer.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let read = async {
            let mut parts = Parts::new(reader);
            let mut found = Vec::new();
            loop {
                tokio::select! {
                    biased;
                    whole = parts.whole() => match whole.unwrap() {
                        Some(whole) => found.push(String::from_utf8(whole).unwrap()),
                        None => return found,
                    },
                    () = tokio::task::yield_now() => {}
                }
            }
        };
        let (found, ()) = tokio::join!(read, write);
        assert_eq!(found, ["* 1 FETCH (UID 5 BODY[] {4}\r\na\r\n)\r\n", "X {2+}\r\n{}\r\n", "Y {0}\r\n z\r\n"]);
    }

    #[tokio::test]
    async fn a_literal_that_does_not_fit_into_memory_is_refused() {
        let said = format!("* 1 FETCH (BODY[] {{{}}}\r\n", LITERAL_BYTES + 1);
        assert!(Parts::new(said.as_bytes()).next().await.is_err());
    }
}
