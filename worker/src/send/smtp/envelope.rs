//! The lines of an envelope (RFC 5321 sections 4.1.1.2 and 4.1.1.3), by what the server offers. Pure.

use postroom_proto::catalogue::send;
use postroom_proto::v1::ClaimedMail;

use super::offers::Offers;
use crate::diagnosis::Diagnosis;
use crate::send::verdict::{Fate, Fault, smtp as verdict};

/// MAIL FROM with SIZE (RFC 1870), BODY (RFC 6152) and SMTPUTF8 (RFC 6531), each only where it is offered and needed; or
/// why this server cannot carry the mail.
pub(super) fn begin(offers: &Offers, mail: &ClaimedMail, raw: &[u8]) -> Result<String, Fault> {
    if !fits(&mail.sender) {
        let cause = format!("{:?} is no address that mail can be sent from", mail.sender);
        return Err(Fault::of(Diagnosis::of(&send::SENDER_REFUSED, cause), Fate::Again));
    }
    let size = raw.len() as u64;
    if let Some(limit) = offers.size.filter(|limit| (1..size).contains(limit)) {
        return Err(verdict::over_announced(size, limit));
    }
    let header = header(raw);
    let utf8_needed = if !mail.sender.is_ascii() {
        Some("the sender's address has letters beyond ASCII")
    } else if !header.is_ascii() {
        Some("the header of the mail has letters beyond ASCII")
    } else {
        None
    };
    if let Some(why) = utf8_needed.filter(|_| !offers.utf8) {
        return Err(verdict::not_offered("SMTPUTF8", why));
    }
    let utf8 = offers.utf8 && (utf8_needed.is_some() || mail.recipients.iter().any(|address| !address.is_ascii()));
    let eight_bit = !raw[header.len()..].is_ascii();
    if eight_bit && !offers.eight_bit {
        return Err(verdict::not_offered("8BITMIME", "the mail has bytes beyond ASCII"));
    }
    let mut line = format!("MAIL FROM:<{}>", mail.sender);
    if offers.size.is_some() {
        line += &format!(" SIZE={size}");
    }
    // RFC 6531 section 3.6: a header in UTF-8 is such a body, too.
    if offers.eight_bit && (eight_bit || !header.is_ascii()) {
        line += " BODY=8BITMIME";
    }
    if utf8 {
        line += " SMTPUTF8";
    }
    Ok(line)
}

/// RCPT TO; or why this recipient cannot be named to this server.
pub(super) fn recipient(offers: &Offers, address: &str) -> Result<String, Fault> {
    if !fits(address) {
        let found = Diagnosis::of(&send::RECIPIENT_REFUSED, format!("{address:?} is no address"));
        return Err(Fault { status: "5.1.3".into(), ..Fault::of(found, Fate::Never) });
    }
    if !address.is_ascii() && !offers.utf8 {
        return Err(verdict::not_offered("SMTPUTF8", "the recipient's address has letters beyond ASCII"));
    }
    Ok(format!("RCPT TO:<{address}>"))
}

/// Invariant: nothing that could end the line, or the address in it, gets into a command.
fn fits(address: &str) -> bool {
    let quoted = address.starts_with('"');
    let bad = |c: char| c.is_control() || matches!(c, '<' | '>') || c.is_whitespace() && !quoted;
    address.contains('@') && address.len() <= 1000 && !address.contains(bad)
}

fn header(raw: &[u8]) -> &[u8] {
    let end = raw.windows(4).position(|part| part == b"\r\n\r\n");
    &raw[..end.unwrap_or(raw.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(sender: &str, recipients: &[&str]) -> ClaimedMail {
        let recipients = recipients.iter().map(|address| (*address).to_owned()).collect();
        ClaimedMail { sender: sender.into(), recipients, ..ClaimedMail::default() }
    }

    fn all() -> Offers {
        Offers { size: Some(1000), eight_bit: true, utf8: true, sign_in: Vec::new() }
    }

    fn line(offers: &Offers, mail: &ClaimedMail, raw: &str) -> Result<String, String> {
        begin(offers, mail, raw.as_bytes()).map_err(|fault| fault.found.code)
    }

    #[test]
    fn what_is_offered_is_used_where_it_is_needed() {
        let plain = mail("a@x.example", &["b@x.example"]);
        assert_eq!(line(&Offers::default(), &plain, "S: x\r\n\r\nx"), Ok("MAIL FROM:<a@x.example>".into()));
        assert_eq!(line(&all(), &plain, "S: x\r\n\r\nx"), Ok("MAIL FROM:<a@x.example> SIZE=9".into()));
        assert_eq!(line(&all(), &plain, "S: x\r\n\r\nä").unwrap(), "MAIL FROM:<a@x.example> SIZE=10 BODY=8BITMIME");
        let header = line(&all(), &plain, "S: ä\r\n\r\nx").unwrap();
        assert_eq!(header, "MAIL FROM:<a@x.example> SIZE=10 BODY=8BITMIME SMTPUTF8");
        let to = mail("a@x.example", &["bär@x.example"]);
        assert_eq!(line(&all(), &to, "S: x\r\n\r\n").unwrap(), "MAIL FROM:<a@x.example> SIZE=8 SMTPUTF8");
    }

    #[test]
    fn what_a_server_cannot_carry_is_not_sent_there() {
        let plain = mail("a@x.example", &["b@x.example"]);
        let bare = Offers::default();
        for (mail, raw) in
            [(&plain, "S: ä\r\n\r\nx"), (&plain, "S: x\r\n\r\nä"), (&mail("ä@x.example", &[]), "\r\n\r\n")]
        {
            assert_eq!(line(&bare, mail, raw), Err("EXTENSION_NOT_OFFERED".into()), "{raw}");
        }
        let small = Offers { size: Some(4), ..bare.clone() };
        assert_eq!(line(&small, &plain, "12345"), Err("MESSAGE_TOO_LARGE".into()));
        assert!(line(&small, &plain, "1234").is_ok());
        assert!(line(&Offers { size: Some(0), ..bare.clone() }, &plain, "12345").is_ok(), "no limit is named");
        assert_eq!(recipient(&bare, "ä@x.example").unwrap_err().status, "5.6.7");
        assert_eq!(recipient(&all(), "ä@x.example").unwrap(), "RCPT TO:<ä@x.example>");
    }

    #[test]
    fn no_address_breaks_out_of_its_command() {
        for bad in ["", "a", "a@x\r\nDATA", "a@x> SIZE=1", "a b@x", "<a@x>", "\"a\r\nb\"@x", "\"a>b\"@x"] {
            assert_eq!(recipient(&all(), bad).unwrap_err().status, "5.1.3", "{bad:?}");
            assert_eq!(line(&all(), &mail(bad, &[]), "x"), Err("SENDER_REFUSED".into()), "{bad:?}");
        }
        assert_eq!(recipient(&all(), "\"a b\"@x").unwrap(), "RCPT TO:<\"a b\"@x>");
    }
}
