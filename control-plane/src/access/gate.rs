//! The gate in front of every RPC: who calls, and may they? Permission comes before existence: whoever may not call
//! learns nothing else.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use http::{Request, Response, header};
use postroom_proto::reason::{Failure, Reason};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tower::{Layer, Service};

use super::caller::Caller;
use super::token::Tokens;
use crate::audit::layer::Seen;

/// Puts the gate in front of services. The [`Caller`] is then an extension of the request.
#[derive(Debug, Clone)]
pub struct Gate {
    tokens: Arc<Tokens>,
}

impl Gate {
    /// A gate that knows these tokens.
    pub fn new(tokens: Tokens) -> Self {
        Self { tokens: Arc::new(tokens) }
    }

    fn admit<B>(&self, request: &Request<B>) -> Result<Caller, Failure> {
        let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(|| {
            Failure::new(Reason::Unauthenticated, "no bearer token came with the call; name one with --token-file")
        })?;
        let caller = self.tokens.bearer(token).ok_or_else(|| {
            Failure::new(Reason::Unauthenticated, "the token is not known here; it may be of another installation")
        })?;
        if let Some(seen) = request.extensions().get::<Seen>() {
            seen.set(caller);
        }
        let Caller { name, role, .. } = caller;
        if role.may_call(request.uri().path()) {
            let from = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
            Ok(Caller { name: name.clone(), role: role.clone(), from })
        } else {
            Err(Failure::new(
                Reason::PermissionDenied,
                format!("the role {role} may not call {}", request.uri().path()),
            ))
        }
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
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.gate.admit(&request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Left(self.inner.call(request))
            }
            Err(failure) => Either::Right(ready(Ok(Status::from(failure).into_http()))),
        }
    }
}
