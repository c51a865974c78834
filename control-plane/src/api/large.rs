//! One call of a service may be much larger than its others.
//!
//! What a server takes in is bounded for a service as a whole, but only one of its calls needs more: without this whoever
//! may list queues could make the control plane read 64 MiB to be told so.

use std::convert::Infallible;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// The same service twice: one takes large requests, the other does not.
#[derive(Debug, Clone)]
pub struct Large<S> {
    path: String,
    large: S,
    usual: S,
}

impl<S: NamedService> Large<S> {
    /// Only `call`, by its name in the service, goes to `large`.
    pub fn new(call: &str, large: S, usual: S) -> Self {
        Self { path: format!("/{}/{call}", S::NAME), large, usual }
    }
}

impl<S: NamedService> NamedService for Large<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for Large<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self.large.poll_ready(context) {
            Poll::Ready(Ok(())) => self.usual.poll_ready(context),
            other => other,
        }
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        if request.uri().path() == self.path { self.large.call(request) } else { self.usual.call(request) }
    }
}
