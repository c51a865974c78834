//! The gate in front of every RPC: who calls, and may they? Permission comes before existence: whoever may not call
//! learns nothing else. A call lasts no longer than the credential that it was made by.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response, header};
use postroom_proto::reason::{Failure, Reason};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::caller::Caller;
use super::credential::{Kind, fingerprint};
use super::directory::Directory;
use super::ending;
use super::listening::Peer;
use super::pace::Rate;
use super::role::{self, Role};
use super::standing::Standing;
use crate::audit::layer::Seen;
use crate::clock;

/// Longest token that is looked at, in bytes; ours are much shorter.
const LONGEST_TOKEN: usize = 512;
/// The call that ends credentials.
const REVOKE: &str = "/postroom.v1.AccessService/RevokeCredentials";

/// How many calls a credential may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of people and instances.
    pub callers: Rate,
    /// Of workers, of which many may share one token.
    pub workers: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Self::per_second(2000)
    }
}

impl Limits {
    /// So many calls a second for people and instances, ten times as many for workers, and twice as many at once. 0: no
    /// limit.
    pub fn per_second(calls: u32) -> Self {
        let rate = |per_second: u32| Rate { per_second, burst: per_second.saturating_mul(2) };
        Self { callers: rate(calls), workers: rate(calls.saturating_mul(10)) }
    }

    fn of(&self, role: &Role) -> Rate {
        match role {
            Role::Worker(_) => self.workers,
            _ => self.callers,
        }
    }
}

/// Puts the gate in front of services. The [`Caller`] is then an extension of the request, and so is its [`Standing`].
#[derive(Debug, Clone)]
pub struct Gate {
    directory: Directory,
    limits: Limits,
    start: Instant,
}

impl Gate {
    /// A gate that lets in whom the directory knows.
    pub fn new(directory: Directory, limits: Limits) -> Self {
        Self { directory, limits, start: Instant::now() }
    }

    fn admit<B>(&self, request: &Request<B>) -> Result<(Caller, Arc<Standing>), Failure> {
        let peer = request.extensions().get::<Peer>();
        let standing = match request.headers().get(header::AUTHORIZATION) {
            Some(value) => self.bearer(value.as_bytes())?,
            None => self.shown(peer)?,
        };
        let caller =
            Caller { name: standing.name.clone(), role: standing.role.clone(), from: peer.and_then(|peer| peer.from) };
        // Ordering: before anything is refused, so that the audit knows who was.
        if let Some(seen) = request.extensions().get::<Seen>() {
            seen.set(&caller);
        }
        let now = clock::now();
        standing.check(now)?;
        // Ordering: before anything that costs more, and before a refusal, which a caller might repeat for ever.
        standing.take(self.start.elapsed(), self.limits.of(&standing.role))?;
        let path = request.uri().path();
        if !standing.role.may_call(path) {
            let text = format!("the role {} may not call {path}", standing.role);
            return Err(Failure::new(Reason::PermissionDenied, text));
        }
        standing.touch(now);
        Ok((caller, standing))
    }

    fn bearer(&self, value: &[u8]) -> Result<Arc<Standing>, Failure> {
        let token = value.strip_prefix(b"Bearer ").filter(|token| token.len() <= LONGEST_TOKEN);
        let found = token.and_then(|token| self.directory.find(&fingerprint(token)));
        // Invariant: a certificate is no secret; it counts only with the handshake that proves its key.
        found.filter(|found| found.kind != Kind::Certificate).ok_or_else(|| {
            let text = "the token is not known here; it may have been revoked, or be of another installation";
            Failure::new(Reason::Unauthenticated, text)
        })
    }

    /// Whoever showed a certificate.
    fn shown(&self, peer: Option<&Peer>) -> Result<Arc<Standing>, Failure> {
        let unauthenticated = |text: &str| Failure::new(Reason::Unauthenticated, text);
        let Some(shown) = peer.and_then(|peer| peer.certificate.as_ref()) else {
            let text = "no bearer token came with the call, and no client certificate; name a token with --token-file";
            return Err(unauthenticated(text));
        };
        // Invariant: a certificate of the installation's own CA counts only as long as it stands in the directory, so that
        // it can be revoked; one of an operator's CA counts by its signature.
        if shown.own {
            let found = self.directory.find(&shown.fingerprint).filter(|found| found.kind == Kind::Certificate);
            return found.ok_or_else(|| {
                let text = "the client certificate is not known here any more; enrol the worker again with `postroom \
                            worker enroll`";
                unauthenticated(text)
            });
        }
        shown.standing.clone().ok_or_else(|| {
            let text = "the client certificate names no worker: among its alternative names must be one DNS name of \
                        lower-case letters, digits and hyphens, the worker's";
            unauthenticated(text)
        })
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

/// A service behind the gate.
#[derive(Debug, Clone)]
pub struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S, B> Service<Request<B>> for Gated<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if role::is_open(request.uri().path()) {
            return Box::pin(self.inner.call(request));
        }
        match self.gate.admit(&request) {
            Ok((caller, standing)) => {
                request.extensions_mut().insert(caller);
                request.extensions_mut().insert(standing.clone());
                let revokes = request.uri().path() == REVOKE;
                let answer = self.inner.call(request);
                Box::pin(async move {
                    // Whoever ends its own credential hears that it is done. The call ends soon by itself.
                    if revokes {
                        return answer.await;
                    }
                    tokio::select! {
                        biased;
                        answer = answer => Ok(answer?.map(|body| ending::with(standing, body))),
                        failure = standing.clone().ended() => Ok(Status::from(failure).into_http()),
                    }
                })
            }
            Err(failure) => Box::pin(async { Ok(Status::from(failure).into_http()) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::credential::Credential;
    use crate::access::token::Tokens;
    use crate::store::sqlite::Sqlite;
    use crate::store::{SharedStore, Write, key};

    #[tokio::test]
    async fn what_is_no_secret_is_no_token() {
        let store: SharedStore = Arc::new(Sqlite::memory().await.unwrap());
        let kinds =
            [("aaaaaaaaaaaa", Kind::Token), ("bbbbbbbbbbbb", Kind::Enrolment), ("cccccccccccc", Kind::Certificate)];
        for (text, kind) in kinds {
            let role = Role::Worker(Some("mail-1".into()));
            let it = Credential::new(kind, "mail-1", role, fingerprint(text.as_bytes()), (1, "ada", i64::MAX));
            store.commit(Vec::new(), vec![Write::Put(key::credential(text), it.encode())]).await.unwrap();
        }
        let gate = Gate::new(Directory::load(Tokens::default(), &store).await.unwrap(), Limits::default());
        let admitted = kinds.map(|(text, _)| gate.bearer(format!("Bearer {text}").as_bytes()).is_ok());
        assert_eq!(admitted, [true, true, false]);
    }
}
