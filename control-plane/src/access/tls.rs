//! What the gRPC port speaks: TLS with the operator's certificate or one of the installation's own CA, or plaintext.
//!
//! A configuration is made anew when a file changes, when the installation's CA does, and when somebody asks; connections
//! that stand keep the one that they began with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postroom_proto::metric;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::authority::{self, Authority, SERVER_LIFETIME};
use super::certificate;
use super::context;
use super::directory::Directory;
use super::vault::Vault;
use crate::clock;
use crate::ledger::Micros;
use crate::store::SharedStore;

/// A certificate that ends within this time is warned of.
const SOON: Micros = 14 * 24 * 3600 * 1_000_000;
/// How often it is warned of.
const REMIND: Micros = 24 * 3600 * 1_000_000;

/// What the port speaks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Choice {
    /// Plaintext.
    #[default]
    Plain,
    /// TLS with a certificate of the operator's.
    Files {
        /// PEM, the server's certificate first.
        certificate: PathBuf,
        /// PEM.
        key: PathBuf,
        /// PEM with the CAs whose certificates make a client the worker that they name, besides the installation's own.
        client_ca: Option<PathBuf>,
        /// PEM with the CAs by which clients on this machine trust the server; `None`: the system's.
        ca: Option<PathBuf>,
    },
    /// TLS with a certificate of the installation's own CA, which is written into the data folder.
    Own {
        /// Names and addresses by which the server is called.
        names: Vec<String>,
    },
}

impl Choice {
    /// True with TLS.
    pub fn is_tls(&self) -> bool {
        *self != Self::Plain
    }
}

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {what}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("the server's certificate and its key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The certificates of the clients' CAs cannot be used.
    #[error("the CA certificates for clients cannot be used: {0}")]
    Clients(String),
    /// The installation's own CA cannot be had.
    #[error(transparent)]
    Authority(#[from] authority::Error),
    /// The CA's certificate cannot be written.
    #[error("cannot write {path}: {source}")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What new connections get.
pub struct Configuration {
    /// For the handshake.
    pub server: Arc<ServerConfig>,
    /// The name of the installation's own CA, DER, by which its certificates are told from those of an operator's CA.
    pub own: Option<Vec<u8>>,
}

/// What a configuration is made of.
#[derive(PartialEq, Eq)]
struct Material {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    /// The installation's own CA.
    own: Option<CertificateDer<'static>>,
    /// CAs of the operator's, for clients.
    clients: Vec<CertificateDer<'static>>,
    /// When the server's certificate ends.
    expires: Micros,
}

/// Keeps the configuration of the port.
pub struct Keeper {
    choice: Choice,
    ground: Ground,
    material: Material,
    /// The last that could not be used, so that it is said once.
    refused: String,
    warned: Micros,
    current: watch::Sender<Arc<Configuration>>,
}

/// What certificates are made with.
pub struct Ground {
    /// Where the installation's CA is.
    pub store: SharedStore,
    /// Opens its key.
    pub vault: Arc<Vault>,
    /// Knows its certificate.
    pub directory: Directory,
    /// Where the certificate of the installation's CA is written, if the server's is signed by it.
    pub ca_file: PathBuf,
}

impl Keeper {
    /// Makes the first configuration; with the installation's own CA that is made too, if there is none or its key is
    /// lost.
    pub async fn begin(choice: Choice, ground: Ground) -> Result<Self, Error> {
        let material = ground.gather(&choice, None).await?;
        let (current, _) = watch::channel(Arc::new(build(&material)?));
        ground.publish(&choice, &material)?;
        let mut keeper = Self { choice, ground, material, refused: String::new(), warned: 0, current };
        keeper.measure();
        keeper.warn();
        Ok(keeper)
    }

    /// Names and addresses of the server's certificate.
    pub fn names(&self) -> Vec<String> {
        let own = self.material.chain.first().and_then(|own| certificate::read(own));
        own.map(|own| own.names).unwrap_or_default()
    }

    /// The configuration for the next connection.
    pub fn configuration(&self) -> watch::Receiver<Arc<Configuration>> {
        self.current.subscribe()
    }

    /// Looks `every` so often, when the installation's CA changes and when `reload` is notified.
    pub async fn keep(mut self, every: Duration, reload: Arc<Notify>, told: CancellationToken) {
        let mut changed = self.ground.directory.subscribe();
        loop {
            tokio::select! {
                () = told.cancelled() => return,
                () = tokio::time::sleep(every) => {}
                () = reload.notified() => {}
                // Its sender lives in the directory, which is held here.
                _ = changed.changed() => {}
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let renewed = match self.ground.gather(&self.choice, Some(&self.material)).await {
            Ok(material) if material == self.material => {
                self.refused.clear();
                self.warn();
                return;
            }
            Ok(material) => build(&material).and_then(|configuration| {
                // Ordering: before it is shown, so that whoever looks for its CA finds it.
                self.ground.publish(&self.choice, &material)?;
                Ok((material, configuration))
            }),
            Err(error) => Err(error),
        };
        match renewed {
            Ok((material, configuration)) => {
                (self.material, self.warned) = (material, 0);
                self.refused.clear();
                self.current.send_replace(Arc::new(configuration));
                self.measure();
                tracing::info!("new connections get the renewed certificates");
                self.warn();
            }
            Err(error) => {
                let error = error.to_string();
                if error != self.refused {
                    tracing::error!(error, "certificates cannot be renewed; those in use stay until this is mended");
                    self.refused = error;
                }
            }
        }
    }

    /// Shows until when the certificates hold.
    fn measure(&self) {
        // Without TLS nobody is shown the CA either.
        let Some(server) = self.material.chain.first() else { return };
        for (name, certificate) in [("server", Some(server)), ("ca", self.material.own.as_ref())] {
            let Some(shown) = certificate.and_then(|it| certificate::read(it)) else { continue };
            metric::OWN_CERTIFICATE_START.set(&[name], shown.begins as f64 / 1e6);
            metric::OWN_CERTIFICATE_EXPIRY.set(&[name], shown.expires as f64 / 1e6);
        }
    }

    fn warn(&mut self) {
        let now = clock::now();
        let left = self.material.expires - now;
        if left < SOON && now - self.warned > REMIND && matches!(self.choice, Choice::Files { .. }) {
            self.warned = now;
            let days = left / (24 * 3600 * 1_000_000);
            tracing::warn!(days, "the server's certificate ends soon, or has ended; put a new one into its file");
        }
    }
}

impl Ground {
    /// Writes the CA's certificate for clients on this machine, and for those who copy it.
    fn publish(&self, choice: &Choice, material: &Material) -> Result<(), Error> {
        let (Choice::Own { .. }, Some(ca)) = (choice, material.chain.last()) else { return Ok(()) };
        let written = context::write_public(&self.ca_file, &authority::pem("CERTIFICATE", ca));
        written.map_err(|source| Error::Unwritable { path: self.ca_file.clone(), source })
    }

    async fn gather(&self, choice: &Choice, former: Option<&Material>) -> Result<Material, Error> {
        let own = self.directory.known().authority.as_ref().map(authority::Record::certificate);
        let mut clients = Vec::new();
        match choice {
            // Nobody asks.
            Choice::Plain => Ok(Material { chain: Vec::new(), key: Vec::new(), own, clients, expires: Micros::MAX }),
            Choice::Files { certificate, key, client_ca, .. } => {
                let chain = certificates(certificate).await?;
                let expires = chain.first().and_then(|first| certificate::read(first)).map_or(0, |shown| shown.expires);
                let pem = read(key).await?;
                let secret = PrivateKeyDer::from_pem_slice(&pem);
                let secret = secret.map_err(|_| broken(key, "holds no private key in PEM"))?;
                if let Some(file) = client_ca {
                    clients.extend(certificates(file).await?);
                }
                Ok(Material { chain, key: secret.secret_der().to_vec(), own, clients, expires })
            }
            Choice::Own { names } => {
                let now = clock::now();
                let third = i64::try_from(SERVER_LIFETIME.as_micros() / 3).unwrap_or(0);
                let fits = |former: &&Material| former.expires - now > third && former.chain.last() == own.as_ref();
                if let Some(former) = former.filter(fits) {
                    let (chain, key) = (former.chain.clone(), former.key.clone());
                    return Ok(Material { chain, key, own, clients, expires: former.expires });
                }
                let (authority, _) = Authority::of(&self.store, &self.vault).await?;
                let (server, key, expires) = authority.server(names, now)?;
                let chain = vec![server, authority.certificate()];
                let own = Some(authority.certificate());
                Ok(Material { chain, key: key.secret_der().to_vec(), own, clients, expires })
            }
        }
    }
}

fn build(material: &Material) -> Result<Configuration, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in material.own.iter().chain(&material.clients) {
        roots.add(certificate.clone()).map_err(|error| Error::Clients(error.to_string()))?;
    }
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = if roots.is_empty() {
        builder.with_no_client_auth()
    } else {
        // Whoever shows no certificate has a token, or is refused by the gate.
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
        builder.with_client_cert_verifier(verifier.build().map_err(|error| Error::Clients(error.to_string()))?)
    };
    let key = PrivateKeyDer::try_from(material.key.clone())
        .map_err(|error| Error::Unusable(rustls::Error::General(error.to_owned())))?;
    let mut server = builder.with_single_cert(material.chain.clone(), key)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    let own = material.own.as_ref().and_then(|own| certificate::read(own)).map(|own| own.subject);
    Ok(Configuration { server: Arc::new(server), own })
}

async fn read(path: &Path) -> Result<Vec<u8>, Error> {
    tokio::fs::read(path).await.map_err(|source| Error::Unreadable { path: path.into(), source })
}

async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(path).await?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(broken(path, "holds no certificate in PEM")),
    }
}

fn broken(path: &Path, what: &str) -> Error {
    Error::Broken { path: path.into(), what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::token::Tokens;
    use crate::access::vault::without;
    use crate::store::sqlite::Sqlite;
    use crate::store::{Outcome, Write, key};

    #[tokio::test]
    async fn a_ca_that_comes_from_a_former_store_is_served_and_written_down() {
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        let store: SharedStore = Arc::new(Sqlite::memory().await.unwrap());
        let vault = Arc::new(Vault::from_text(&without(&[]).unwrap()).unwrap());
        let directory = Directory::load(Tokens::default(), &store).await.unwrap();
        let (vault_too, told) = (vault.clone(), CancellationToken::new());
        let following = tokio::spawn(directory.clone().follow(store.clone(), told.clone()));
        let ground = Ground { store: store.clone(), vault, directory: directory.clone(), ca_file: ca_file.clone() };
        let choice = Choice::Own { names: vec!["localhost".into()] };
        let mut keeper = Keeper::begin(choice, ground).await.unwrap();
        let made = std::fs::read_to_string(&ca_file).unwrap();

        let former: SharedStore = Arc::new(Sqlite::memory().await.unwrap());
        let (_, record) = Authority::of(&former, &vault_too).await.unwrap();
        let write = Write::Put(key::AUTHORITY.into(), record.encode());
        let Outcome::Committed(revision) = store.commit(Vec::new(), vec![write]).await.unwrap() else {
            panic!("it is not written");
        };
        assert!(directory.reached(revision, Duration::from_secs(20)).await);
        keeper.look().await;
        assert_ne!(made, record.pem());
        assert_eq!(std::fs::read_to_string(&ca_file).unwrap(), record.pem());
        assert_eq!(keeper.material.chain.last(), Some(&record.certificate()));
        told.cancel();
        following.await.unwrap();
    }
}
