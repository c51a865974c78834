//! Counts every call and how long it took, those too that the gate turns away, and tells those whose caller traces them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use postroom_proto::metric;
use postroom_proto::trace::{self, Span, SpanKind};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::traces::Traced;
use crate::access::role;

/// Puts the count in front of services.
#[derive(Debug, Clone, Copy, Default)]
pub struct Calls;

impl<S> Layer<S> for Calls {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner }
    }
}

/// A service whose calls are counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let method = role::known(request.uri().path());
        let span = traced(method, request.headers());
        if let Some(span) = &span {
            request.extensions_mut().insert(Traced(span.context().clone()));
        }
        let call = Call { method, begun: Instant::now(), code: None, span };
        let answered = self.inner.call(request);
        Box::pin(async move {
            let mut call = call;
            let response = answered.await?;
            call.note(response.headers());
            Ok(response.map(|inner| Body::new(CountedBody { inner, call })))
        })
    }
}

/// The part of its caller's trace that a call is. `None`: its caller traces nothing.
fn traced(method: &'static str, headers: &HeaderMap) -> Option<Span> {
    let caller = trace::of_caller(headers.get(trace::HEADER)?.to_str().ok()?)?;
    Some(trace::part(&caller, method)?.kind(SpanKind::Server).with("rpc.system", "grpc"))
}

/// One call, counted when it is dropped.
struct Call {
    method: &'static str,
    begun: Instant,
    /// Not yet known: whoever called has gone, if it stays so.
    code: Option<Code>,
    span: Option<Span>,
}

impl Call {
    /// Of an answer that is only a refusal the code stands in the headers, of others in the trailers.
    fn note(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.code = Some(status.code());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.code.map_or_else(|| "Cancelled".to_owned(), |code| format!("{code:?}"));
        metric::CALLS.count(&[self.method, &code]);
        metric::CALL_TIME.observe(&[self.method], self.begun.elapsed().max(Duration::from_nanos(1)));
        if let Some(span) = self.span.take() {
            let number = self.code.map_or(i64::from(Code::Cancelled as i32), |code| i64::from(code as i32));
            let failed = (self.code != Some(Code::Ok)).then_some(code);
            span.with("rpc.grpc.status_code", number).failed(failed).end();
        }
    }
}

/// The body of an answer, whose trailers say how the call ended.
struct CountedBody {
    inner: Body,
    call: Call,
}

impl http_body::Body for CountedBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.note(trailers);
                }
            }
            Some(Err(status)) => self.call.code = Some(status.code()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
