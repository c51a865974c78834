//! A private certificate authority and one server certificate for everything that listens on loopback.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::error::{Error, Result};

/// The files of the authority, all PEM, and TLS settings made of them.
#[derive(Clone, Debug)]
pub struct Authority {
    ca_file: PathBuf,
    certificate_file: PathBuf,
    key_file: PathBuf,
}

impl Authority {
    /// Makes a new authority and a server certificate in `dir`, which is created when missing.
    pub fn create(dir: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Postroom testbed CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into()?),
            // Some clients look for what they were told to connect to among the DNS names only, addresses included.
            SanType::DnsName("127.0.0.1".try_into()?),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &ca)?;

        std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        let files = Self {
            ca_file: dir.join("ca.pem"),
            certificate_file: dir.join("server.pem"),
            key_file: dir.join("server.key"),
        };
        crate::file::write(&files.ca_file, ca.pem().as_bytes())?;
        crate::file::write(&files.certificate_file, certificate.pem().as_bytes())?;
        crate::file::write_private(&files.key_file, key.serialize_pem().as_bytes())?;
        Ok(files)
    }

    /// The CA's certificate: what clients have to trust.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The certificate of every server, for one that reads it from a file.
    pub fn certificate_file(&self) -> &Path {
        &self.certificate_file
    }

    /// The key that belongs to it.
    pub fn key_file(&self) -> &Path {
        &self.key_file
    }

    /// What a server on loopback needs, speaking the application protocols `alpn`.
    pub fn server_config(&self, alpn: &[&str]) -> Result<Arc<rustls::ServerConfig>> {
        let certificate = CertificateDer::from_pem_file(&self.certificate_file).map_err(unreadable)?;
        let key = PrivateKeyDer::from_pem_file(&self.key_file).map_err(unreadable)?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// What a client needs that trusts this authority and nobody else.
    pub fn client_config(&self) -> Result<Arc<rustls::ClientConfig>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca_file).map_err(unreadable)?)?;
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unreadable(error: rustls_pki_types::pem::Error) -> Error {
    Error::System { action: "read a PEM file of the authority".to_owned(), source: std::io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_make_both_ends_of_tls() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(&dir.path().join("tls")).unwrap();
        assert_eq!(authority.server_config(&["h2"]).unwrap().alpn_protocols, vec![b"h2".to_vec()]);
        authority.client_config().unwrap();
    }
}
