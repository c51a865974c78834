//! What can go wrong while real servers are started and asked.

use std::path::{Path, PathBuf};

/// Why the testbed could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as an infinitive.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The network, or a process, did not do what it was asked.
    #[error("cannot {action}")]
    System {
        /// What was tried, as an infinitive.
        action: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// No certificate could be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A certificate or key was refused.
    #[error("cannot use a certificate")]
    Tls(#[from] rustls::Error),
    /// A mail server did not start, or ended.
    #[error("{server} {what}\n{log}")]
    Server {
        /// `dovecot`, `cyrus` or `postfix`.
        server: &'static str,
        /// What happened.
        what: String,
        /// The last lines of its log and of its error output.
        log: String,
    },
    /// A member of etcd did not start, or ended.
    #[error("etcd {what}\n{log}")]
    Etcd {
        /// What happened.
        what: String,
        /// The last lines of its log.
        log: String,
    },
    /// An `etcdctl` command failed.
    #[error("etcdctl {command}: {said}")]
    Etcdctl {
        /// The command and its arguments, without those that sign it in.
        command: String,
        /// Its error output.
        said: String,
    },
    /// A `doveadm` command failed.
    #[error("doveadm {command}: {said}")]
    Doveadm {
        /// The command and its arguments.
        command: String,
        /// Its error output.
        said: String,
    },
    /// Postfix was to be started by somebody else than root.
    #[error("postfix runs as root only: run this as root, for example in a container or by sudo")]
    NotRoot,
    /// A server answered something else than the protocol's success.
    #[error("{protocol}: {said}")]
    Refused {
        /// `LMTP`, `IMAP` or `SMTP`.
        protocol: &'static str,
        /// The server's answer, or what was missing.
        said: String,
    },
    /// A bounded wait ended before what it waited for.
    #[error("waited {seconds} s in vain for {what}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
}

/// What the testbed's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }
}
