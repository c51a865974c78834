//! Settings of a control plane.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use postroom_proto::lease::{InvalidTerms, LeaseTerms};
use postroom_proto::observe::Listen;

use crate::access::gate::Limits;
use crate::access::tls;
use crate::access::token::Tokens;
pub use crate::access::vault::KeySource;
use crate::blob;
pub use crate::blob::choice::{BlobsChoice, S3Settings};
use crate::folder;
use crate::outbox::Terms;
use crate::store::choice;
pub use crate::store::choice::{EtcdSettings, StoreChoice};
use crate::telemetry::look;

pub mod settings;

/// How long the audit is kept: 366 days.
pub const AUDIT_KEPT: Duration = Duration::from_secs(366 * 24 * 3600);

/// How a control plane is to be run.
#[derive(Debug)]
pub struct Config {
    /// Folder with the ledger, large bodies and the key, and the store unless it is elsewhere. Created when it is missing.
    pub data: PathBuf,
    /// Where definitions, sessions, assignments and leadership are.
    pub store: StoreChoice,
    /// Where large bodies are.
    pub blobs: BlobsChoice,
    /// Where the key of the stored secrets is.
    pub secret_key: KeySource,
    /// Where to listen for gRPC. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// What the port speaks.
    pub tls: tls::Choice,
    /// How often the files of certificates are looked at, and uses of credentials recorded.
    pub upkeep_interval: Duration,
    /// How long a certificate of a worker holds that is made here.
    pub certificate_lifetime: Duration,
    /// URL by which it is called; `None`: made of the address and the server's certificate.
    pub endpoint: Option<String>,
    /// Listens beyond loopback without TLS.
    pub insecure: bool,
    /// How many calls a credential may make.
    pub limits: Limits,
    /// Name of this control plane among its replicas.
    pub replica: String,
    /// True: its workers live and die with it, so sessions of a former process are over when it starts. False: they
    /// live on while it restarts.
    pub alone: bool,
    /// Who may call.
    pub tokens: Tokens,
    /// Terms of the leases.
    pub terms: LeaseTerms,
    /// How often missed deadlines of contacts, and claims of mails that lapsed, are looked for.
    pub deadline_interval: Duration,
    /// What the outbox may do.
    pub outbox: Terms,
    /// Where metrics and health are served.
    pub observe: Listen,
    /// Of what metrics are made, and how often.
    pub telemetry: look::Terms,
    /// How long the audit is kept.
    pub audit_kept: Duration,
}

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// Tokens and mail would cross the network in the clear.
    #[error(
        "listening on {0} would send tokens and mail over the network in the clear; name a certificate and its key with \
         tls.certificate-file and tls.key-file, listen on 127.0.0.1, or say --insecure where something else protects the \
         connection"
    )]
    Exposed(SocketAddr),
    /// The settings of the store do not fit together.
    #[error(transparent)]
    Store(#[from] choice::Invalid),
    /// The settings of the blob store do not fit together.
    #[error(transparent)]
    Blobs(#[from] blob::choice::Invalid),
    /// The terms do not fit together.
    #[error("the lease terms do not fit together")]
    Terms(#[from] InvalidTerms),
}

impl Config {
    /// The usual settings of an installation that is one process.
    pub fn new(data: PathBuf, listen: SocketAddr, tokens: Tokens) -> Self {
        Self {
            secret_key: KeySource::File(data.join(folder::KEY)),
            data,
            store: StoreChoice::Sqlite,
            blobs: BlobsChoice::Folder,
            listen,
            tls: tls::Choice::Plain,
            upkeep_interval: Duration::from_secs(5),
            certificate_lifetime: Duration::from_secs(30 * 24 * 3600),
            endpoint: None,
            insecure: false,
            limits: Limits::default(),
            replica: format!("up-{}", std::process::id()),
            alone: true,
            tokens,
            terms: LeaseTerms::default(),
            deadline_interval: Duration::from_millis(500),
            outbox: Terms::default(),
            observe: Listen::Off,
            telemetry: look::Terms::default(),
            audit_kept: AUDIT_KEPT,
        }
    }

    /// Refuses what would be unsafe or could not work.
    pub fn check(&self) -> Result<(), Invalid> {
        if !self.listen.ip().is_loopback() && !self.insecure && !self.tls.is_tls() {
            return Err(Invalid::Exposed(self.listen));
        }
        self.store.check()?;
        self.blobs.check()?;
        self.terms.check()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str) -> Config {
        Config::new(PathBuf::new(), listen.parse().unwrap(), Tokens::default())
    }

    #[test]
    fn beyond_loopback_only_on_the_operators_word() {
        assert!(config("127.0.0.1:0").check().is_ok());
        assert!(config("[::1]:0").check().is_ok());
        assert!(matches!(config("0.0.0.0:7430").check(), Err(Invalid::Exposed(_))));
        assert!(Config { insecure: true, ..config("0.0.0.0:7430") }.check().is_ok());
        let tls = tls::Choice::Own { names: Vec::new() };
        assert!(Config { tls, ..config("0.0.0.0:7430") }.check().is_ok());
    }

    #[test]
    fn terms_that_do_not_fit_are_refused() {
        let terms = LeaseTerms { ttl: Duration::from_secs(3), ..LeaseTerms::default() };
        assert!(matches!(Config { terms, ..config("127.0.0.1:0") }.check(), Err(Invalid::Terms(_))));
    }
}
