//! What etcd refused or how it failed, in words that say what to do.

use std::error::Error as _;

use etcd_client::Error as ClientError;
use tonic::{Code, Status};

use crate::store::Error;

/// Why a call to etcd failed.
#[derive(Debug, thiserror::Error)]
#[error("etcd at {endpoints}: {what}")]
pub(super) struct Fault {
    /// Where etcd was looked for.
    pub(super) endpoints: String,
    pub(super) what: String,
    /// What it means for a call.
    pub(super) kind: Kind,
}

/// What a failure means for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The request never left this process, or was turned away unread. Another member may take it.
    Unsent,
    /// etcd has refused. Nothing happened, and nothing else would if it were asked again.
    Refused,
    /// The history that was asked for is gone. Nothing happened.
    Compacted,
    /// The request may have been carried out or not.
    Doubtful,
}

impl Fault {
    pub(super) fn new(endpoints: impl Into<String>, kind: Kind, what: impl Into<String>) -> Self {
        Self { endpoints: endpoints.into(), what: what.into(), kind }
    }

    /// What the client said about a call to `endpoints`.
    pub(super) fn of(endpoints: &str, error: &ClientError) -> Self {
        match error {
            ClientError::GRpcStatus(status) => {
                let kind = kind(status);
                Self::new(endpoints, kind, with_remedy(&told(status)))
            }
            ClientError::InvalidArgs(_) | ClientError::InvalidUri(_) => {
                Self::new(endpoints, Kind::Refused, error.to_string())
            }
            other => Self::new(endpoints, Kind::Doubtful, other.to_string()),
        }
    }

    /// Nobody answered in time.
    pub(super) fn late(endpoints: &str, after: std::time::Duration) -> Self {
        Self::new(endpoints, Kind::Doubtful, format!("no answer within {after:?}; is it running, and reachable?"))
    }

    /// As an error of the store.
    pub(super) fn during(self, attempt: &'static str) -> Error {
        Error::Backend { attempt, source: self.into() }
    }
}

/// What a refusal means.
fn kind(status: &Status) -> Kind {
    let message = status.message();
    match status.code() {
        Code::OutOfRange if message.contains("has been compacted") => Kind::Compacted,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented => Kind::Refused,
        // A full database is told before a commit, but now and then also after it.
        Code::ResourceExhausted if message.contains("too many requests") => Kind::Unsent,
        Code::Unavailable if message == "etcdserver: no leader" || never_connected(status) => Kind::Unsent,
        _ => Kind::Doubtful,
    }
}

/// True when there was no connection that the request could have gone out on.
fn never_connected(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        // Only making a connection fails so; one that breaks is reset or ends.
        let refused = error.downcast_ref::<std::io::Error>().is_some_and(|error| {
            use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
            matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
        });
        if refused || error.to_string() == "tcp connect error" {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What a status says, with its causes: "transport error" alone helps nobody.
fn told(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// What etcd says, and what to do about it where that is known.
fn with_remedy(said: &str) -> String {
    let remedy = if said.contains("user name is empty") {
        "it wants a user: write USER@ before its address, and name the file of the password"
    } else if said.contains("invalid user ID or password") {
        "the user or the password is wrong"
    } else if said.contains("permission denied") {
        "grant its user `readwrite` below the prefix: etcdctl role grant-permission --prefix ROLE readwrite PREFIX"
    } else if said.contains("authentication is not enabled") {
        "it knows no users: leave USER@ out of its address, or enable authentication"
    } else if said.contains("database space exceeded") {
        "its quota is used up: compact, defragment, and disarm the alarm; docs/etcd.md says how"
    } else if said.contains("UnknownIssuer") || said.contains("invalid peer certificate") {
        "its certificate is not trusted: name the file of its certificate authority"
    } else if said.contains("operation was canceled") || said.contains("CertificateRequired") {
        "it may want a client certificate"
    } else {
        return said.to_owned();
    };
    format!("{said}; {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_certainly_not_done_is_told_from_what_is_in_doubt() {
        let kind = |code, message: &str| kind(&Status::new(code, message.to_owned()));
        assert_eq!(kind(Code::InvalidArgument, "etcdserver: request is too large"), Kind::Refused);
        assert_eq!(kind(Code::PermissionDenied, "etcdserver: permission denied"), Kind::Refused);
        assert_eq!(kind(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"), Kind::Compacted);
        assert_eq!(kind(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"), Kind::Refused);
        assert_eq!(kind(Code::Unavailable, "etcdserver: no leader"), Kind::Unsent);
        assert_eq!(kind(Code::ResourceExhausted, "etcdserver: too many requests"), Kind::Unsent);
        // It is checked before a commit, and once more after it.
        assert_eq!(kind(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"), Kind::Doubtful);
        for (code, message) in [
            (Code::Unknown, "h2 protocol error: error reading a body from connection"),
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "connection reset"),
            (Code::Cancelled, "operation was canceled"),
            (Code::DeadlineExceeded, "deadline"),
            (Code::Internal, "?"),
        ] {
            assert_eq!(kind(code, message), Kind::Doubtful, "{message}");
        }
        let unreached = |kind| {
            let mut status = Status::new(Code::Unavailable, "x");
            status.set_source(std::sync::Arc::new(std::io::Error::from(kind)));
            super::kind(&status)
        };
        assert_eq!(unreached(std::io::ErrorKind::ConnectionRefused), Kind::Unsent);
        assert_eq!(unreached(std::io::ErrorKind::ConnectionReset), Kind::Doubtful);
    }

    #[test]
    fn remedies_go_with_what_etcd_says() {
        let fault = |message: &str| {
            let status = Status::new(Code::InvalidArgument, message.to_owned());
            Fault::of("a:1,b:2", &ClientError::GRpcStatus(status)).to_string()
        };
        assert!(
            fault("etcdserver: user name is empty").starts_with("etcd at a:1,b:2: etcdserver: user name is empty; it")
        );
        assert!(fault("etcdserver: mvcc: database space exceeded").contains("docs/etcd.md"));
        assert_eq!(fault("other"), "etcd at a:1,b:2: other");
    }
}
