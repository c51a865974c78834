//! The installation's own small CA, which signs the certificates of workers, and of the server where the operator brings
//! none. Its key rests in the store, sealed by the vault.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use postroom_proto::reason::{Failure, Reason};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};

use super::credential::{Fingerprint, fingerprint};
use super::vault::{self, Sealed, Vault};
use crate::clock;
use crate::ledger::Micros;
use crate::store::{self, Guard, Outcome, SharedStore, Write, key};

/// Format of the record.
const FORMAT: u32 = 1;
/// Whose secret its key is, for the vault.
pub const OWNER: &str = "access/authority/key";
/// How long the CA itself holds.
const LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How long a certificate of the server holds.
pub const SERVER_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
/// Certificates begin a while before they are made, for clocks that are late: at most this, and a tenth of their time.
const EARLY: Duration = Duration::from_secs(300);
/// Largest signing request, in bytes.
const LARGEST_REQUEST: usize = 8 * 1024;

/// The CA in the store, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    /// DER in base64.
    certificate: String,
    /// The key as PEM.
    pub key: Sealed,
    created: Micros,
}

impl Record {
    /// Its certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        BASE64.decode(&self.certificate).unwrap_or_default().into()
    }

    /// Its certificate as PEM, for those who are to trust it.
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate())
    }

    /// The value for the store.
    pub fn encode(&self) -> Bytes {
        // A struct of strings and numbers always has a JSON form.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Reads a value of the store; `None` when this version does not understand it.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok().filter(|read: &Self| read.format == FORMAT)
    }
}

/// Why the CA cannot be had or cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its key was sealed with a key that is not at hand.
    #[error(
        "the key of the installation's CA was sealed with key {key_id}, which is not at hand; if the store is another \
         installation's, name this one's, else restore the key file that holds it. If it is lost for good: add the \
         line lost:{key_id} to the key file and start again, and another CA is made"
    )]
    Locked {
        /// The key that is needed.
        key_id: String,
    },
    /// Its key cannot be opened or sealed.
    #[error("the key of the installation's CA: {0}")]
    Vault(#[from] vault::Error),
    /// What stands in the store is no CA.
    #[error("the installation's CA in the store is damaged: {0}")]
    Damaged(String),
    /// The signing request is none, or not signed by its own key.
    #[error("the signing request is not valid: {0}")]
    Request(String),
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Signing(#[from] rcgen::Error),
    /// The store cannot be read or written.
    #[error("the installation's CA cannot be kept")]
    Store(#[from] store::Error),
    /// It is not known whether the CA was written.
    #[error("it is not known whether the installation's CA was written; try again")]
    Unknown,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let reason = match &error {
            Error::Vault(_) | Error::Locked { .. } => Reason::SecretUnreadable,
            Error::Request(text) => return Self::invalid_field("signingRequest", text.clone()),
            Error::Damaged(_) | Error::Signing(_) => Reason::Internal,
            Error::Store(_) => Reason::StorageFailed,
            Error::Unknown => Reason::OutcomeUnknown,
        };
        Self::new(reason, crate::failure::chain(&error))
    }
}

/// The CA with its key at hand.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// A certificate that was just made.
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// When it ends.
    pub expires: Micros,
    /// Of the key that it is for.
    pub public_key: Fingerprint,
}

impl Authority {
    /// A new CA, and how it is kept.
    fn make(vault: &Vault, now: Micros) -> Result<Record, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // Invariant: the name is this CA's alone, so that its certificates are told from those of an operator's CA.
        params.distinguished_name = named(&format!("Postroom CA {}", HEXLOWER.encode(&random::<8>()?)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        dated(&mut params, now, LIFETIME)?;
        let certificate = params.self_signed(&key)?;
        let sealed = vault.seal(OWNER, &key.serialize_pem().into())?;
        Ok(Record { format: FORMAT, certificate: BASE64.encode(certificate.der()), key: sealed, created: now })
    }

    /// The CA of a record, whose key the vault opens.
    pub fn open(record: &Record, vault: &Vault) -> Result<Self, Error> {
        let damaged = |error: rcgen::Error| Error::Damaged(error.to_string());
        let pem = vault.open(OWNER, &record.key).map_err(|error| match error {
            vault::Error::UnknownKey { key_id } => Error::Locked { key_id },
            error => Error::Vault(error),
        })?;
        let key = KeyPair::from_pem(pem.expose_secret()).map_err(damaged)?;
        let certificate = record.certificate();
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(damaged)?;
        Ok(Self { issuer, certificate })
    }

    /// The CA of the installation, which is made when there is none, and anew when the operator has said that its key
    /// is lost. A key that is only not at hand may be that of another installation, whose store this is.
    pub async fn of(store: &SharedStore, vault: &Vault) -> Result<(Self, Record), Error> {
        // Two replicas may begin at one moment; the second finds the first one's.
        for _ in 0..4 {
            let found = store.get(key::AUTHORITY).await?;
            let guard = match &found {
                None => Guard::Absent(key::AUTHORITY.into()),
                Some(entry) => {
                    let record = Record::decode(&entry.value).ok_or_else(|| Error::Damaged("its form".into()))?;
                    match Self::open(&record, vault) {
                        Ok(authority) => return Ok((authority, record)),
                        Err(Error::Locked { key_id }) if vault.is_lost(&key_id) => {
                            tracing::warn!(
                                key = key_id,
                                "the key of the installation's CA is lost; another CA is made"
                            );
                            Guard::Unchanged(key::AUTHORITY.into(), entry.mod_revision)
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            let record = Self::make(vault, clock::now())?;
            let write = Write::Put(key::AUTHORITY.into(), record.encode());
            if matches!(store.commit(vec![guard], vec![write]).await?, Outcome::Committed(_)) {
                return Ok((Self::open(&record, vault)?, record));
            }
        }
        Err(Error::Unknown)
    }

    /// A certificate for the key of a signing request. Whatever else the request asks for is left out: the certificate is
    /// a client's, and names the worker.
    pub fn certify(&self, worker: &str, request: &[u8], now: Micros, lifetime: Duration) -> Result<Issued, Error> {
        if request.len() > LARGEST_REQUEST {
            return Err(Error::Request(format!("is larger than {LARGEST_REQUEST} bytes")));
        }
        let parsed = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(|error| Error::Request(format!("cannot be read: {error}")))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(worker);
        let name = worker.try_into().map_err(Error::Signing)?;
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let expires = self.leaf(&mut params, now, lifetime)?;
        let certificate = params.signed_by(&parsed.public_key, &self.issuer)?;
        let public_key = fingerprint(parsed.public_key.der_bytes());
        Ok(Issued { certificate: certificate.into(), expires, public_key })
    }

    /// A certificate of the server for these names and addresses, with its key, and when it ends.
    pub fn server(
        &self,
        names: &[String],
        now: Micros,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>, Micros), Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Postroom control plane");
        let alternative = names.iter().map(|name| match name.parse::<IpAddr>() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => name.as_str().try_into().map(SanType::DnsName),
        });
        params.subject_alt_names = alternative.collect::<Result<_, _>>().map_err(Error::Signing)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let expires = self.leaf(&mut params, now, SERVER_LIFETIME)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.into(), PrivatePkcs8KeyDer::from(key.serialize_der()).into(), expires))
    }

    /// The CA's own certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    fn leaf(&self, params: &mut CertificateParams, now: Micros, lifetime: Duration) -> Result<Micros, Error> {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        dated(params, now, lifetime)
    }
}

/// A certificate or key as PEM (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in BASE64.encode(der).as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Gives it a serial number and its time. Answers when it ends; certificates tell seconds.
fn dated(params: &mut CertificateParams, now: Micros, lifetime: Duration) -> Result<Micros, Error> {
    let mut serial = random::<16>()?;
    // A positive number, whatever comes.
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let epoch = date_time_ymd(1970, 1, 1);
    let now = now.max(0).unsigned_abs() / 1_000_000;
    let ends = now.saturating_add(lifetime.as_secs());
    let early = EARLY.min(lifetime / 10);
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(early.as_secs()));
    params.not_after = epoch + Duration::from_secs(ends);
    Ok(i64::try_from(ends).unwrap_or(i64::MAX).saturating_mul(1_000_000))
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Error::Vault(vault::Error::Seal))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::sqlite::Sqlite;

    /// A vault with a key of these bytes, which takes the key of that name for lost.
    fn vault(byte: u8, lost: &str) -> Vault {
        let text = format!("{}\n{lost}", BASE64.encode([byte; 32]));
        Vault::from_text(&text.into()).unwrap()
    }

    #[tokio::test]
    async fn a_ca_is_made_anew_only_on_the_word_that_its_key_is_lost() {
        let store: SharedStore = Arc::new(Sqlite::memory().await.unwrap());
        let own = vault(1, "");
        let (_, made) = Authority::of(&store, &own).await.unwrap();
        let again = async |vault: &Vault| Authority::of(&store, vault).await.map(|(_, record)| record);
        assert_eq!(again(&own).await.unwrap(), made);
        // By whoever has come upon this store with the key of another installation.
        let told = again(&vault(2, "")).await.unwrap_err().to_string();
        assert!(told.contains(&format!("lost:{}", own.key_id())), "{told}");
        again(&vault(2, "lost:0123456789ab")).await.expect_err("another key is lost");
        assert_eq!(again(&own).await.unwrap(), made, "it was left alone");
        // A word on a key that is at hand is none.
        assert_eq!(again(&vault(1, &format!("lost:{}", own.key_id()))).await.unwrap(), made);

        let without = vault(2, &format!("lost:{}", own.key_id()));
        let new = again(&without).await.unwrap();
        assert_ne!(new.certificate(), made.certificate());
        assert_eq!(again(&without).await.unwrap(), new, "it is made once");
    }
}
