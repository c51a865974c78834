//! Who this worker is to the control plane, and whom it takes for the control plane: the TLS of those connections.
//!
//! Files are read anew for every connection. When they change, connections that stand are cut, so that nobody goes on
//! with a certificate that is about to end; what was under way is repeated, as after any lost connection.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use postroom_proto::metric;
use rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

use crate::certificate;
use crate::config::Identity;
use crate::tls;

pub mod folder;
pub mod request;

/// Why a connection to the control plane cannot be secured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {path}: {detail}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {detail}")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// What was read cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// What a configuration is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Material {
    /// CAs to trust, as PEM; `None`: those of the system.
    ca: Option<Vec<u8>>,
    /// Certificate and key, as PEM.
    pair: Option<(Vec<u8>, Vec<u8>)>,
}

/// The worker's side of its connections to the control plane. Shared by all of them.
#[derive(Debug)]
pub struct Presence {
    identity: Identity,
    ca_file: Option<PathBuf>,
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    material: Material,
    configuration: Arc<ClientConfig>,
    /// Cancelled when connections with this configuration are to end.
    cut: CancellationToken,
}

impl Presence {
    /// Shows what `identity` has, and trusts the CAs of `ca_file`; `None`: those of the system.
    pub fn new(identity: Identity, ca_file: Option<PathBuf>) -> Self {
        Self { identity, ca_file, current: Mutex::default() }
    }

    /// The folder in which the certificate is kept that it gets by enrolment.
    pub fn folder(&self) -> Option<&Path> {
        match &self.identity {
            Identity::Enrolled { folder, .. } => Some(folder),
            _ => None,
        }
    }

    /// The file that holds the token for its enrolment.
    pub fn enrolment_token_file(&self) -> Option<&Path> {
        match &self.identity {
            Identity::Enrolled { token_file, .. } => token_file.as_deref(),
            _ => None,
        }
    }

    /// The configuration for a new connection, and what ends that connection.
    pub async fn configuration(&self) -> Result<(Arc<ClientConfig>, CancellationToken), Error> {
        let material = self.gather().await?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = current.as_ref().filter(|known| known.material == material) {
            return Ok((known.configuration.clone(), known.cut.clone()));
        }
        let pair = material.pair.as_ref().map(|(certificate, key)| (certificate.as_slice(), key.as_slice()));
        let configuration = Arc::new(tls::control_plane(material.ca.as_deref(), pair).map_err(Error::Unusable)?);
        if let Some((begins, ends)) = pair.and_then(|(certificate, _)| validity(certificate)) {
            metric::OWN_CERTIFICATE_START.set(&["client"], begins as f64);
            metric::OWN_CERTIFICATE_EXPIRY.set(&["client"], ends as f64);
        }
        let cut = CancellationToken::new();
        let made = Current { material, configuration: configuration.clone(), cut: cut.clone() };
        if let Some(former) = current.replace(made) {
            tracing::info!("certificates have changed; connections to the control plane are made anew");
            former.cut.cancel();
        }
        Ok((configuration, cut))
    }

    /// When its certificate is to be renewed, in seconds since 1970: two thirds into its time. `None`: it has none that it
    /// could renew.
    pub async fn renewal(&self) -> Option<i64> {
        let pem = folder::read(self.folder()?).await.ok()??;
        let (begins, ends) = validity(&pem)?;
        Some(begins + (ends - begins) / 3 * 2)
    }

    /// True when it has to be enrolled before it can show anything.
    pub async fn is_missing(&self, now: i64) -> Result<bool, Error> {
        let Some(folder) = self.folder() else { return Ok(false) };
        Ok(folder::read(folder).await?.is_none_or(|pem| is_over(&pem, now)))
    }

    async fn gather(&self) -> Result<Material, Error> {
        let ca = match &self.ca_file {
            Some(path) => Some(read(path).await?),
            None => None,
        };
        let pair = match &self.identity {
            Identity::Token(_) => None,
            Identity::Certificate { certificate, key } => Some((read(certificate).await?, read(key).await?)),
            // One that has ended would be refused before anything was said, an enrolment too.
            Identity::Enrolled { folder, .. } => {
                let now = jiff::Timestamp::now().as_second();
                folder::read(folder).await?.filter(|pem| !is_over(pem, now)).map(|pem| (pem.clone(), pem))
            }
        };
        Ok(Material { ca, pair })
    }
}

/// True when what a folder holds is no certificate, or one that has ended.
fn is_over(pem: &[u8], now: i64) -> bool {
    validity(pem).is_none_or(|(_, ends)| now >= ends)
}

/// Seconds since 1970 between which the first certificate of a PEM text holds.
fn validity(pem: &[u8]) -> Option<(i64, i64)> {
    certificate::validity(&tls::first_certificate(pem)?)
}

async fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let read = tokio::fs::read(path).await;
    read.map_err(|error| Error::Unreadable { path: path.into(), detail: error.to_string() })
}
