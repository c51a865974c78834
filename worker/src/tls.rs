//! Whom we trust: the system's CAs, and those of a definition's `caFile`.
//!
//! The crypto provider is named here, so that nothing depends on a process-wide default.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use postroom_proto::metric;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::certificate;
use crate::diagnosis::{self, Diagnosis};

/// Why there is no TLS configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the CA file {path} cannot be used: {detail}")]
pub struct Error {
    /// The file.
    pub path: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Error {
    /// Cause and remedy.
    pub fn diagnosis(&self) -> Diagnosis {
        diagnosis::bad_ca_file(&self.path, &self.detail)
    }
}

/// A configuration and the time of the file that it was read from.
type Cached = (Option<SystemTime>, Arc<ClientConfig>);

/// TLS configurations by CA file. Thousands of connections share one, which is most of what keeps an idle one small.
#[derive(Debug, Default)]
pub struct Roots {
    configs: Mutex<HashMap<String, Cached>>,
}

impl Roots {
    /// Nothing loaded yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The configuration that trusts the system's CAs and those in `ca_file` (PEM; empty: none). A file that has
    /// changed since is read again.
    pub async fn client_config(&self, ca_file: &str) -> Result<Arc<ClientConfig>, Error> {
        let fault = |detail: String| Error { path: ca_file.to_owned(), detail };
        let modified = match ca_file {
            "" => None,
            path => {
                let metadata = tokio::fs::metadata(path).await.map_err(|error| fault(error.to_string()))?;
                metadata.modified().ok()
            }
        };
        if let Some((at, config)) = self.lock().get(ca_file)
            && *at == modified
        {
            return Ok(config.clone());
        }
        let pem = match ca_file {
            "" => Vec::new(),
            path => tokio::fs::read(path).await.map_err(|error| fault(error.to_string()))?,
        };
        let config = Arc::new(build(&pem).map_err(fault)?);
        self.lock().insert(ca_file.to_owned(), (modified, config.clone()));
        Ok(config)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Cached>> {
        self.configs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build(pem: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = system();
    if !pem.is_empty() {
        add(&mut roots, pem)?;
    }
    Ok(trusting(roots)?.with_no_client_auth())
}

/// The configuration for connections to the control plane: trusts the CAs of `ca` in place of the system's, and shows a
/// certificate with its key. All of it PEM.
pub fn control_plane(ca: Option<&[u8]>, shown: Option<(&[u8], &[u8])>) -> Result<ClientConfig, String> {
    let roots = match ca {
        None => system(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            add(&mut roots, pem).map_err(|detail| format!("the CA file of the control plane: {detail}"))?;
            roots
        }
    };
    let builder = trusting(roots)?;
    let mut configuration = match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
            let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or("the worker's certificate is not PEM")?;
            let key =
                PrivateKeyDer::from_pem_slice(key).map_err(|_| "the key of the worker's certificate is not PEM")?;
            let shown = builder.with_client_auth_cert(chain, key);
            shown.map_err(|error| format!("the worker's certificate and its key: {error}"))?
        }
    };
    configuration.alpn_protocols = vec![b"h2".to_vec()];
    Ok(configuration)
}

/// The first certificate of a PEM text.
pub fn first_certificate(pem: &[u8]) -> Option<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).next()?.ok()
}

fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Single certificates of the system that cannot be read are no reason to trust none of them.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn add(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    let mut own = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("it is not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("a certificate in it is not valid: {error}"))?;
        own += 1;
    }
    if own == 0 { Err("there is no certificate in it".into()) } else { Ok(()) }
}

fn trusting(roots: RootCertStore) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    if roots.is_empty() {
        return Err("and the system trusts no CA at all: install its CA certificates".into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let verifier = Explaining(verifier.map_err(|error| error.to_string())?);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    // Not less strict than the usual verifier: it asks that one, and only adds words to its refusals.
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)))
}

/// The usual verifier, whose refusal of an unknown issuer says which certificate it was and who signed it.
#[derive(Debug)]
struct Explaining(Arc<WebPkiServerVerifier>);

/// A chain that ends at nobody we trust.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Untrusted(String);

impl ServerCertVerifier for Explaining {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let untrusted = |what: &str| -> rustls::Error {
            let untrusted = Untrusted(certificate::unknown_issuer(end_entity, intermediates) + what);
            CertificateError::Other(OtherError(Arc::new(untrusted))).into()
        };
        if verified.is_ok() {
            let first = certificate::ends(std::slice::from_ref(end_entity)).into_iter();
            if let Some(ends) = first.chain(certificate::ends(intermediates)).min() {
                #[allow(clippy::cast_precision_loss)]
                metric::CERTIFICATE_EXPIRY.set(&[&server_name.to_str()], ends as f64);
            }
        }
        verified.map_err(|error| match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => untrusted(""),
            // What a CA that was made anew under its old name looks like to whoever trusts the former one.
            rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
                untrusted("; a CA of that name is trusted, but with another key")
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What kind of TLS failure an error is, looked for along its whole chain: the outer ones only say "request failed".
pub fn diagnose(host: &str, error: &(dyn std::error::Error + 'static)) -> Option<Diagnosis> {
    let found = find(error)?;
    let detail = found.to_string();
    Some(match found {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) if other.0.is::<Untrusted>() => {
            diagnosis::untrusted(host, &other.0.to_string())
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => diagnosis::untrusted(host, &detail),
        rustls::Error::InvalidCertificate(_) => diagnosis::bad_certificate(host, &detail),
        _ => diagnosis::tls_failed(host, &detail),
    })
}

fn find<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An io error is transparent: its source() skips the very error that it wraps.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ca_file_that_is_none_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ca.pem").display().to_string();
        let roots = Roots::new();
        let missing = roots.client_config(&path).await.expect_err("missing");
        assert_eq!(missing.diagnosis().code, "CA_FILE_UNREADABLE");
        std::fs::write(&path, "no certificate").expect("written");
        let empty = roots.client_config(&path).await.expect_err("empty");
        assert!(empty.detail.contains("no certificate"), "{empty}");
    }

    #[tokio::test]
    async fn one_configuration_is_shared() {
        let roots = Roots::new();
        let first = roots.client_config("").await.expect("system roots");
        let second = roots.client_config("").await.expect("system roots");
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn an_unknown_issuer_is_found_below_other_errors() {
        let cause = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = io::Error::other(io::Error::other(cause));
        let found = diagnose("imap.contoso.example", &error).expect("found");
        assert_eq!(found.code, "TLS_UNTRUSTED");
        assert!(found.remedy.contains("caFile"));
        assert_eq!(diagnose("x", &io::Error::other("else")), None);
    }
}
