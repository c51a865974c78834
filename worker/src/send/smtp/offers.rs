//! What a server offers in its answer to EHLO (RFC 5321 section 4.1.1.1). Pure.

/// The extensions that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Offers {
    /// SIZE (RFC 1870): it can be told the size of a mail. `Some(0)`: without a limit that it names.
    pub(super) size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub(super) eight_bit: bool,
    /// SMTPUTF8 (RFC 6531).
    pub(super) utf8: bool,
    /// AUTH (RFC 4954): mechanisms, upper case.
    pub(super) sign_in: Vec<String>,
}

impl Offers {
    /// Reads the lines of the answer. The first only greets.
    pub(super) fn read<'l>(lines: impl Iterator<Item = &'l str>) -> Self {
        let mut offers = Self::default();
        for line in lines.skip(1) {
            // Some servers write AUTH=LOGIN beside AUTH LOGIN, for clients of another age.
            let line = line.to_ascii_uppercase().replacen("AUTH=", "AUTH ", 1);
            let mut words = line.split_whitespace();
            match words.next() {
                Some("SIZE") => offers.size = Some(words.next().and_then(|limit| limit.parse().ok()).unwrap_or(0)),
                Some("8BITMIME") => offers.eight_bit = true,
                Some("SMTPUTF8") => offers.utf8 = true,
                Some("AUTH") => offers.sign_in.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        offers.sign_in.sort();
        offers.sign_in.dedup();
        offers
    }

    /// True when it can be signed in to by this mechanism.
    pub(super) fn knows(&self, mechanism: &str) -> bool {
        self.sign_in.iter().any(|known| known == mechanism)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_read_however_they_are_written() {
        let exchange = ["x.example Hello [10.0.0.1]", "SIZE 157286400", "auth LOGIN XOAUTH2", "8BITMIME", "SMTPUTF8"];
        let offers = Offers::read(exchange.into_iter());
        assert_eq!((offers.size, offers.eight_bit, offers.utf8), (Some(157_286_400), true, true));
        assert!(offers.knows("XOAUTH2") && offers.knows("LOGIN") && !offers.knows("PLAIN"));
        let bare = Offers::read(["SIZE 5", "SIZE", "AUTH=LOGIN", "AUTH LOGIN"].into_iter());
        assert_eq!((bare.size, bare.sign_in), (Some(0), vec!["LOGIN".to_owned()]));
        assert_eq!(Offers::read(["x.example"].into_iter()), Offers::default());
    }
}
