//! Bearer tokens. Only their digests are kept here, so that memory and dumps hold nothing to sign in with.

use secrecy::{ExposeSecret as _, SecretString};

use super::caller::Caller;
use super::credential::{Fingerprint, fingerprint};
use super::role::Role;

/// A token of 256 random bits, in text.
pub fn mint() -> Result<SecretString, getrandom::Error> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)?;
    Ok(data_encoding::BASE64URL_NOPAD.encode(&bytes).into())
}

/// The tokens that an installation is given by file, and what each makes of its bearer.
#[derive(Debug, Default)]
pub struct Tokens {
    known: Vec<(Fingerprint, Caller)>,
}

impl Tokens {
    /// Makes bearers of `token` a `role`, by whose words they are named.
    pub fn grant(&mut self, token: &SecretString, role: Role) {
        self.known.push((fingerprint(token.expose_secret().as_bytes()), Caller::new(role.to_string(), role)));
    }
}

impl IntoIterator for Tokens {
    type Item = (Fingerprint, Caller);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.known.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::directory::Directory;

    #[test]
    fn a_bearer_is_what_the_token_says_and_others_are_nobody() {
        let (admin, worker) = (mint().unwrap(), mint().unwrap());
        let mut tokens = Tokens::default();
        tokens.grant(&admin, Role::Admin);
        tokens.grant(&worker, Role::Worker(None));
        assert!(!format!("{tokens:?}").contains(admin.expose_secret()));
        let directory = Directory::new(tokens);
        let role = |token: &str| directory.find(&fingerprint(token.as_bytes())).map(|found| found.role.clone());
        assert_eq!(role(admin.expose_secret()), Some(Role::Admin));
        assert_eq!(role(worker.expose_secret()), Some(Role::Worker(None)));
        assert_eq!((role("forged"), role("")), (None, None));
    }
}
