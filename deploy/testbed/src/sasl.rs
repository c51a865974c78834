//! Who a client says that it is.

use base64::{Engine, engine::general_purpose::STANDARD};

/// The mailbox that the response of a SASL mechanism asks for.
pub(crate) fn claimed_name(mechanism: &str, response: &str) -> Option<String> {
    let response = String::from_utf8(STANDARD.decode(response).ok()?).ok()?;
    match mechanism {
        "XOAUTH2" => response.split('\x01').find_map(|field| field.strip_prefix("user=")).map(str::to_owned),
        // RFC 7628 section 3.1; what a name may not hold is written as RFC 5801 section 4 says.
        "OAUTHBEARER" => {
            let name = response.split(',').find_map(|field| field.strip_prefix("a="))?;
            Some(name.replace("=2C", ",").replace("=3D", "="))
        }
        "PLAIN" => {
            let mut fields = response.split('\0');
            let (to_be, who) = (fields.next()?, fields.next()?);
            Some(if to_be.is_empty() { who } else { to_be }.to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_signs_in_is_read_of_what_was_said() {
        for (mechanism, response, name) in [
            ("XOAUTH2", "user=a@b.example\x01auth=Bearer t\x01\x01", Some("a@b.example")),
            (
                "OAUTHBEARER",
                "n,a=a=3Db=2Cc@x.example,\x01host=h\x01port=993\x01auth=Bearer t\x01\x01",
                Some("a=b,c@x.example"),
            ),
            ("PLAIN", "\0a@b.example\0secret", Some("a@b.example")),
            ("PLAIN", "a@b.example\0master\0secret", Some("a@b.example")),
            ("LOGIN", "a@b.example", None),
        ] {
            assert_eq!(claimed_name(mechanism, &STANDARD.encode(response)).as_deref(), name, "{mechanism}");
        }
        assert_eq!(claimed_name("PLAIN", "no base64"), None);
    }
}
