//! Bearer tokens. Only their digests are kept here, so that memory and dumps hold nothing to sign in with.

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::caller::Caller;
use super::role::Role;

/// A token of 256 random bits, in text.
pub fn mint() -> Result<SecretString, getrandom::Error> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)?;
    Ok(data_encoding::BASE64URL_NOPAD.encode(&bytes).into())
}

/// The tokens that are known, and what each makes of its bearer.
#[derive(Debug, Default)]
pub struct Tokens {
    known: Vec<([u8; 32], Caller)>,
}

impl Tokens {
    /// Makes bearers of `token` a `role`, by whose words they are named.
    pub fn grant(&mut self, token: &SecretString, role: Role) {
        self.known.push((digest(token.expose_secret()), Caller::new(role.to_string(), role)));
    }

    /// The bearer of `token`.
    pub fn bearer(&self, token: &str) -> Option<&Caller> {
        let digest = digest(token);
        // A digest cannot be guessed byte by byte, but comparing in constant time costs nothing.
        self.known.iter().find(|(known, _)| bool::from(known.ct_eq(&digest))).map(|(_, caller)| caller)
    }
}

/// A token has 256 random bits, so a fast digest is as good as a slow one.
fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_is_what_the_token_says_and_others_are_nobody() {
        let (admin, worker) = (mint().unwrap(), mint().unwrap());
        let mut tokens = Tokens::default();
        tokens.grant(&admin, Role::Admin);
        tokens.grant(&worker, Role::Worker(None));
        assert_eq!(tokens.bearer(admin.expose_secret()), Some(&Caller::new("admin", Role::Admin)));
        assert_eq!(tokens.bearer(worker.expose_secret()), Some(&Caller::new("worker", Role::Worker(None))));
        assert_eq!(tokens.bearer("forged"), None);
        assert_eq!(tokens.bearer(""), None);
        assert!(!format!("{tokens:?}").contains(admin.expose_secret()));
    }
}
