//! One caller's credential while it is in force: whether it still holds, how much it may call, when it was used.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postroom_proto::reason::{Failure, Reason};
use tokio_util::sync::CancellationToken;

use super::credential::{Credential, Kind};
use super::pace::{Pace, Rate};
use super::role::Role;
use crate::clock;
use crate::ledger::Micros;

/// Longest sleep for an end that is years away; then the clock is looked at again.
const NAP: Duration = Duration::from_secs(3600);

/// A credential in force. Calls and streams hold it, and end with it.
#[derive(Debug)]
pub struct Standing {
    /// Id of the credential in the store. `None`: it came by file, or is a certificate of a CA of the operator's.
    pub id: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// Name of the token, or of the worker.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// `None`: it does not expire.
    expires: Option<Micros>,
    revoked: CancellationToken,
    pace: Mutex<Pace>,
    /// When it was last used, and what of that is recorded. 0: never.
    used: AtomicI64,
    recorded: AtomicI64,
}

impl Standing {
    /// One that holds until it `expires`.
    pub fn new(kind: Kind, name: &str, role: Role, expires: Option<Micros>) -> Self {
        Self {
            id: None,
            kind,
            name: name.into(),
            role,
            expires,
            revoked: CancellationToken::new(),
            pace: Mutex::default(),
            used: AtomicI64::new(0),
            recorded: AtomicI64::new(0),
        }
    }

    /// That of a credential of the store.
    pub fn of(id: &str, credential: &Credential) -> Self {
        let Credential { kind, name, role, expires, .. } = credential;
        Self { id: Some(id.into()), ..Self::new(*kind, name, role.clone(), Some(*expires)) }
    }

    /// True when the credential of the store is still what this was made of.
    pub(super) fn is_of(&self, id: &str, credential: &Credential) -> bool {
        self.id.as_deref() == Some(id) && self.role == credential.role && self.expires == Some(credential.expires)
    }

    /// Ends it before its time, also for those who hold it.
    pub(super) fn revoke(&self) {
        self.revoked.cancel();
    }

    /// Refuses once it is revoked or has expired.
    pub fn check(&self, now: Micros) -> Result<(), Failure> {
        if self.revoked.is_cancelled() {
            return Err(self.refusal("was revoked"));
        }
        if self.expires.is_some_and(|expires| now >= expires) {
            return Err(self.refusal("has expired"));
        }
        Ok(())
    }

    /// Waits until it is revoked or expires, then says so.
    pub async fn ended(self: Arc<Self>) -> Failure {
        loop {
            if let Err(failure) = self.check(clock::now()) {
                return failure;
            }
            let left = self.expires.map(|expires| expires.saturating_sub(clock::now()).max(0).unsigned_abs());
            let nap = left.map_or(NAP, |left| Duration::from_micros(left).min(NAP));
            tokio::select! {
                () = self.revoked.cancelled() => {}
                () = tokio::time::sleep(nap) => {}
            }
        }
    }

    fn refusal(&self, what: &str) -> Failure {
        let text = match self.kind {
            Kind::Token => format!("the token {:?} {what}; ask an admin for a new one", self.name),
            Kind::Enrolment => {
                format!("the enrolment of worker {} {what}; make another with `postroom worker enroll {0}`", self.name)
            }
            Kind::Certificate => format!(
                "the certificate of worker {} {what}; enrol the worker again with `postroom worker enroll {0}`",
                self.name
            ),
        };
        Failure::new(Reason::Unauthenticated, text)
    }

    /// Lets one more call through, or says when to try again. `now` is counted from any moment, the same for all calls.
    pub fn take(&self, now: Duration, rate: Rate) -> Result<(), Failure> {
        let taken = self.pace.lock().unwrap_or_else(PoisonError::into_inner).take(now, rate);
        taken.map_err(|wait| {
            let text = format!("{} makes more than {} calls a second; slow down", self.name, rate.per_second);
            let mut failure = Failure::new(Reason::TooMany, text);
            failure.retry_after = Some(wait);
            failure
        })
    }

    /// It is used now.
    pub fn touch(&self, now: Micros) {
        self.used.fetch_max(now, Ordering::Relaxed);
    }

    /// When it was used, if that should be recorded: the last record is older by `coarse`, in microseconds.
    pub(super) fn unrecorded(&self, coarse: Micros) -> Option<Micros> {
        let (used, recorded) = (self.used.load(Ordering::Relaxed), self.recorded.load(Ordering::Relaxed));
        (used > 0 && (recorded == 0 || used - recorded >= coarse)).then_some(used)
    }

    /// That is recorded.
    pub(super) fn recorded(&self, used: Micros) {
        self.recorded.fetch_max(used, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expiring(expires: Option<Micros>) -> Arc<Standing> {
        Arc::new(Standing::new(Kind::Token, "ada", Role::Admin, expires))
    }

    #[tokio::test]
    async fn it_ends_by_its_time_or_by_revocation_and_says_which() {
        let past = expiring(Some(clock::now() - 1));
        assert!(past.ended().await.message.contains("has expired"));
        let soon = expiring(Some(clock::now() + 50_000));
        assert!(soon.check(clock::now()).is_ok());
        assert!(soon.ended().await.message.contains("has expired"));
        let lasting = expiring(None);
        let waiting = tokio::spawn(lasting.clone().ended());
        lasting.revoke();
        assert!(waiting.await.unwrap().message.contains("was revoked"));
        assert!(lasting.check(0).is_err());
    }

    #[test]
    fn a_use_is_recorded_coarsely() {
        let token = expiring(None);
        assert_eq!(token.unrecorded(10), None);
        token.touch(100);
        assert_eq!(token.unrecorded(10), Some(100));
        token.recorded(100);
        token.touch(109);
        assert_eq!(token.unrecorded(10), None);
        token.touch(110);
        assert_eq!(token.unrecorded(10), Some(110));
    }
}
