//! Attachments on their way out: decoded piece by piece, whatever is in them. What is broken is left out, and what can
//! be decoded comes; memory is bounded by a piece and a line.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use postroom_proto::v1::TransferEncoding;

/// Longest line that is kept until its end is seen; longer ones are decoded in parts. RFC 2045 ends a line after 76.
const LONGEST_LINE: usize = 64 * 1024;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes one attachment.
#[derive(Debug)]
pub struct Decoder {
    encoding: TransferEncoding,
    /// What came and cannot be decoded before more has come.
    kept: Vec<u8>,
}

impl Decoder {
    /// A decoder for bytes that are written like this; without an encoding they come as they are.
    pub fn new(encoding: TransferEncoding) -> Self {
        Self { encoding, kept: Vec::new() }
    }

    /// Takes the next piece; returns what can be decoded by now.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        match self.encoding {
            TransferEncoding::Base64 => self.push_base64(piece),
            TransferEncoding::QuotedPrintable => self.push_quoted_printable(piece),
            TransferEncoding::Identity | TransferEncoding::Unspecified => piece.to_vec(),
        }
    }

    /// What is left when all pieces have come.
    pub fn finish(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.encoding {
            TransferEncoding::Base64 => self.flush_base64(&mut out),
            TransferEncoding::QuotedPrintable => out = quoted_printable(&self.kept),
            TransferEncoding::Identity | TransferEncoding::Unspecified => {}
        }
        out
    }

    /// Line breaks and all that is not of the alphabet are skipped (RFC 2045 section 6.8). Padding ends a group; what
    /// comes behind it, as where two texts were joined, is decoded too.
    fn push_base64(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(piece.len() / 4 * 3 + 3);
        for byte in piece {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => self.kept.push(*byte),
                b'=' => self.flush_base64(&mut out),
                _ => {}
            }
        }
        let rest = self.kept.split_off(self.kept.len() / 4 * 4);
        self.flush_base64(&mut out);
        self.kept = rest;
        out
    }

    fn flush_base64(&mut self, out: &mut Vec<u8>) {
        // One letter holds six bits and so no byte.
        if self.kept.len() % 4 == 1 {
            self.kept.pop();
        }
        // Invariant: only letters of the alphabet are kept, in groups that make bytes, so this does not fail.
        if LENIENT.decode_vec(&self.kept, out).is_err() {
            tracing::debug!("a part in base64 was not decoded");
        }
        self.kept.clear();
    }

    /// Whole lines only: a line break belongs to what stands before it.
    fn push_quoted_printable(&mut self, piece: &[u8]) -> Vec<u8> {
        self.kept.extend_from_slice(piece);
        let end = match self.kept.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => last + 1,
            None if self.kept.len() > LONGEST_LINE => safe_cut(&self.kept),
            None => return Vec::new(),
        };
        let rest = self.kept.split_off(end);
        let lines = std::mem::replace(&mut self.kept, rest);
        quoted_printable(&lines)
    }
}

/// Where a long line can be cut: neither within an escape, nor behind a space that may stand at the end of the line.
fn safe_cut(line: &[u8]) -> usize {
    let mut end = line.len();
    while end > 0 && matches!(line[end - 1], b' ' | b'\t' | b'\r') {
        end -= 1;
    }
    match line[..end].iter().rposition(|byte| *byte == b'=') {
        Some(escape) if end - escape < 3 => escape,
        _ if end == 0 => line.len(),
        _ => end,
    }
}

/// Invalid escapes stay as they are.
fn quoted_printable(lines: &[u8]) -> Vec<u8> {
    quoted_printable::decode(lines, quoted_printable::ParseMode::Robust).unwrap_or_else(|_| lines.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(encoding: TransferEncoding, bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut decoder = Decoder::new(encoding);
        let mut out: Vec<u8> = bytes.chunks(piece.max(1)).flat_map(|piece| decoder.push(piece)).collect();
        out.extend(decoder.finish());
        out
    }

    fn base64(text: &str) -> String {
        String::from_utf8_lossy(&decode(TransferEncoding::Base64, text.as_bytes(), 7)).into_owned()
    }

    fn printable(text: &str) -> String {
        String::from_utf8_lossy(&decode(TransferEncoding::QuotedPrintable, text.as_bytes(), 7)).into_owned()
    }

    #[test]
    fn base64_comes_whatever_was_done_to_it() {
        assert_eq!(base64("SGVsbG8g\r\nd29ybGQ="), "Hello world");
        assert_eq!(base64("SGVsbG8g d29y!\u{e4}bGQ"), "Hello world", "no padding, and strange letters between");
        assert_eq!(base64("SGVsbG8=IHdvcmxk"), "Hello world", "two texts joined");
        assert_eq!(base64("SGVsbG8=\r\n=\r\n====="), "Hello");
        assert_eq!(base64("SGVsbG8gd29ybGQ=A"), "Hello world", "a letter too much");
        assert_eq!(base64(""), "");
        assert_eq!(base64("===="), "");
    }

    #[test]
    fn quoted_printable_comes_whatever_was_done_to_it() {
        assert_eq!(printable("caf=C3=A9 =\r\nau lait\r\n"), "café au lait\r\n");
        assert_eq!(printable("a=ZZb=\r\n=3"), "a=ZZb=3", "escapes that are none");
        assert_eq!(printable(""), "");
    }

    #[test]
    fn a_line_without_end_does_not_fill_memory() {
        let line = "=41".repeat(100_000);
        let mut decoder = Decoder::new(TransferEncoding::QuotedPrintable);
        let mut out = Vec::new();
        for piece in line.as_bytes().chunks(1000) {
            out.extend(decoder.push(piece));
            assert!(decoder.kept.len() <= LONGEST_LINE + 1000);
        }
        out.extend(decoder.finish());
        assert_eq!(out, b"A".repeat(100_000));
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back_in_pieces_of_any_size(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            piece in 1..300usize,
        ) {
            let text = data_encoding::BASE64_MIME.encode(&bytes);
            prop_assert_eq!(&decode(TransferEncoding::Base64, text.as_bytes(), piece), &bytes);
            let text = quoted_printable::encode(&bytes);
            prop_assert_eq!(&decode(TransferEncoding::QuotedPrintable, &text, piece), &bytes);
            prop_assert_eq!(&decode(TransferEncoding::Identity, &bytes, piece), &bytes);
        }

        #[test]
        fn nonsense_does_no_harm_and_does_not_depend_on_the_pieces(
            bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..500), "[A=3 \r\n\t]{0,200}".prop_map(String::into_bytes)],
            piece in 1..50usize,
        ) {
            for encoding in [TransferEncoding::Base64, TransferEncoding::QuotedPrintable] {
                prop_assert_eq!(decode(encoding, &bytes, piece), decode(encoding, &bytes, usize::MAX));
            }
        }
    }
}
