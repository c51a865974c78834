//! What measured mailboxes are filled with. The same message for the same number, in every run.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postroom_testbed::Mail;

/// What kind of messages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Filling {
    /// Text, each message of the same size.
    Plain {
        /// Its bytes, headers included.
        bytes: usize,
    },
    /// Of twenty, fourteen are text of 2 to 6 KB, five HTML of 20 to 60 KB, and one has an attachment of 0.2 to 2.2 MB.
    Mixed,
    /// A short text and one attachment, each message of about the same size.
    Large {
        /// Its bytes.
        bytes: usize,
    },
}

/// The date of the first message, in seconds since 1970.
const BEGINNING: i64 = 1_767_225_600;
const BOUNDARY: &str = "=_measured";

impl Filling {
    /// The message with this number.
    pub(crate) fn message(self, mailbox: &str, number: u64) -> Vec<u8> {
        let mail = Mail::to(mailbox)
            .from(&format!("Customer {number} <customer{number}@customer.example>"))
            .subject(&format!("Order {number}"))
            .message_id(&format!("order-{number}@customer.example"))
            .date(jiff::Timestamp::constant(BEGINNING + number as i64, 0));
        let bytes = match self {
            Self::Plain { bytes } => return mail.size(bytes).build(),
            Self::Large { bytes } => return large(mail, bytes),
            Self::Mixed => |from: usize, to: usize| from + scattered(number) % (to - from),
        };
        match number % 20 {
            0..=13 => mail.size(bytes(2_000, 6_000)).build(),
            14..=18 => {
                let row = "<tr><td class=\"item\">A parcel</td><td align=\"right\">12.50 &euro;</td></tr>\r\n";
                let rows = row.repeat(bytes(20_000, 60_000) / row.len());
                let page = format!("<html><body><table>\r\n{rows}</table></body></html>\r\n");
                mail.header("MIME-Version", "1.0")
                    .header("Content-Type", "text/html; charset=utf-8")
                    .body(&page)
                    .build()
            }
            _ => {
                let content: Vec<u8> = (0..bytes(150_000, 1_600_000)).map(|at| (at * 7 % 251) as u8).collect();
                let encoded = STANDARD.encode(content);
                let lines: Vec<&str> =
                    (0..encoded.len()).step_by(76).map(|at| &encoded[at..encoded.len().min(at + 76)]).collect();
                let body = format!(
                    "--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nSee the picture.\r\n--{BOUNDARY}\r\n\
                     Content-Type: image/jpeg; name=\"parcel.jpg\"\r\nContent-Transfer-Encoding: base64\r\n\
                     Content-Disposition: attachment; filename=\"parcel.jpg\"\r\n\r\n{}\r\n--{BOUNDARY}--\r\n",
                    lines.join("\r\n")
                );
                let kind = format!("multipart/mixed; boundary=\"{BOUNDARY}\"");
                mail.header("MIME-Version", "1.0").header("Content-Type", &kind).body(&body).build()
            }
        }
    }
}

/// Line by line: a message of this size should not be in memory several times.
fn large(mail: Mail, bytes: usize) -> Vec<u8> {
    let kind = format!("multipart/mixed; boundary=\"{BOUNDARY}\"");
    let begin = format!(
        "--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nSee the film.\r\n--{BOUNDARY}\r\n\
         Content-Type: video/mp4; name=\"parcel.mp4\"\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"parcel.mp4\"\r\n"
    );
    let mut message = mail.header("MIME-Version", "1.0").header("Content-Type", &kind).body(&begin).build();
    message.reserve(bytes.saturating_sub(message.len()) + 256);
    message.extend_from_slice(b"\r\n");
    let content: Vec<u8> = (0..57 * 251).map(|at: usize| (at * 7 % 251) as u8).collect();
    for piece in content.chunks(57).cycle() {
        if message.len() >= bytes {
            break;
        }
        message.extend_from_slice(STANDARD.encode(piece).as_bytes());
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    message
}

/// A number that looks as if it had nothing to do with `number` (a multiplicative hash).
fn scattered(number: u64) -> usize {
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_messages_have_the_sizes_that_are_said() {
        let sizes: Vec<usize> = (0..200).map(|number| Filling::Mixed.message("a@b.example", number).len()).collect();
        let within = |from: usize, to: usize| sizes.iter().filter(|size| (from..to).contains(*size)).count();
        assert_eq!(
            (within(2_000, 6_000), within(19_000, 61_000), within(200_000, 2_300_000)),
            (140, 50, 10),
            "{sizes:?}"
        );
        assert_eq!(Filling::Mixed.message("a@b.example", 19), Filling::Mixed.message("a@b.example", 19));
    }

    #[test]
    fn a_large_message_has_about_its_size_and_one_attachment() {
        let message = Filling::Large { bytes: 1_000_000 }.message("a@b.example", 1);
        assert!((1_000_000..1_000_300).contains(&message.len()), "{}", message.len());
        let text = String::from_utf8(message).unwrap();
        assert!(text.lines().all(|line| line.len() <= 78) && text.matches(BOUNDARY).count() == 4, "{}", &text[..600]);
    }
}
