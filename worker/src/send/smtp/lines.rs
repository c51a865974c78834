//! What a server sends, made fit for the parser of replies (RFC 5321 section 4.2). Pure.
//!
//! lettre takes a reply apart only when every line has a text, ends in CRLF, is UTF-8 and has at most 1000 bytes; for
//! what it cannot read the outcome of a mail would be unknown. So each line is put into that form before.

/// Bytes of a line that are kept.
const LONGEST_LINE: usize = 900;

/// Where in a line the stream is.
#[derive(Debug, Default)]
pub(super) struct Lines {
    column: usize,
}

impl Lines {
    /// Appends to `out` what `input` goes on with.
    pub(super) fn tidy(&mut self, input: &[u8], out: &mut Vec<u8>) {
        for byte in input {
            match byte {
                b'\r' => {}
                b'\n' => {
                    // RFC 5321 section 4.2: a code alone is a reply too.
                    if self.column == 3 {
                        out.push(b' ');
                    }
                    out.extend_from_slice(b"\r\n");
                    self.column = 0;
                }
                byte => {
                    if self.column < LONGEST_LINE {
                        out.push(if byte.is_ascii_graphic() || *byte == b' ' { *byte } else { b'?' });
                    }
                    self.column += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tidied(input: &[&[u8]]) -> String {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for part in input {
            lines.tidy(part, &mut out);
        }
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn what_is_in_form_stays_as_it_is_however_it_is_cut() {
        let text = b"250-x.example\r\n250 OK\r\n";
        for at in 0..text.len() {
            assert_eq!(tidied(&[&text[..at], &text[at..]]).as_bytes(), text);
        }
    }

    #[test]
    fn what_is_not_is_put_into_form() {
        assert_eq!(tidied(&[b"250\r\n"]), "250 \r\n");
        assert_eq!(tidied(&[b"250 OK\n354\n"]), "250 OK\r\n354 \r\n");
        assert_eq!(tidied(&[b"550 \xfcber\x00\tx\r\n"]), "550 ?ber??x\r\n");
        let long = [b"250 ".as_slice(), &[b'x'; 5000], b"\r\n"].concat();
        assert_eq!(tidied(&[&long]).len(), LONGEST_LINE + 2);
    }
}
