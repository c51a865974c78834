//! Keys of this worker, and the request to sign one (PKCS #10).

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use secrecy::{ExposeSecret as _, SecretString};

use super::Error;

/// A new key, as PEM.
pub fn new_key() -> Result<SecretString, Error> {
    Ok(KeyPair::generate().map_err(unusable)?.serialize_pem().into())
}

/// The request to sign a key, DER. Its name is a courtesy: the control plane decides whose certificate it makes.
pub fn of(key: &SecretString, worker: &str) -> Result<Vec<u8>, Error> {
    let key = KeyPair::from_pem(key.expose_secret()).map_err(unusable)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, worker);
    Ok(params.serialize_request(&key).map_err(unusable)?.der().to_vec())
}

fn unusable(error: rcgen::Error) -> Error {
    Error::Unusable(format!("a key of this worker: {error}"))
}
