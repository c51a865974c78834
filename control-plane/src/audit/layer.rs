//! Behind the gate: reads what a call is about, writes it down, lets it through, and writes down what became of it. Before
//! the gate: counts what was turned away.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use futures::StreamExt as _;
use futures::future::{BoxFuture, Either};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, BodyStream, StreamBody};
use postroom_proto::reason::{Failure, Reason, name};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::describe::{Told, cut, describe};
use super::table::{Rule, rule};
use super::{Audit, Changes, address, begun};
use crate::access::caller::Caller;
use crate::clock;
use crate::failure::chain;
use crate::ledger::audit::Ended;

/// Largest request that is read before it is let through, when it does not say itself what it is about. A larger one is a
/// model or a mail, of which nothing is told here.
const LARGEST: usize = 64 * 1024;
/// Largest request that is served, but for models and mails. One that says what it is about is read however large it is:
/// nobody hides a subject behind fields that no service knows.
pub const LARGEST_REQUEST: usize = 4 * 1024 * 1024;
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Most characters of what a caller was told that are kept.
const MESSAGE: usize = 500;

/// Whom the gate has recognised, as far as it came. The gate fills it.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<OnceLock<Caller>>);

impl Seen {
    /// This caller makes the call, whether or not it may.
    pub fn set(&self, caller: &Caller) {
        // Set once: a call has one caller.
        let _ = self.0.set(caller.clone());
    }
}

/// Marks the answer to a call that was written down.
#[derive(Debug, Clone, Copy)]
struct WrittenDown;

/// Puts the count of refused attempts in front of the gate.
#[derive(Debug, Clone)]
pub struct Counting(pub Audit);

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { audit: self.0.clone(), inner }
    }
}

/// A gate whose refusals are counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    audit: Audit,
    inner: S,
}

impl<S> Service<Request<Body>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (audit, seen) = (self.audit.clone(), Seen::default());
        let (path, address) = (request.uri().path().to_owned(), address(request.extensions()));
        request.extensions_mut().insert(seen.clone());
        let answered = self.inner.call(request);
        Box::pin(async move {
            let response = answered.await?;
            if response.extensions().get::<WrittenDown>().is_none()
                && let Some(reason) = turned_away(&response)
            {
                audit.refuse(seen.0.get(), address, &path, reason);
            }
            Ok(response)
        })
    }
}

/// Why a call was turned away. `None`: it was not.
fn turned_away(response: &Response<Body>) -> Option<Reason> {
    // Looked at first: nearly no call fails, and reading a status is not free.
    response.headers().get("grpc-status")?;
    let reason = Failure::from_status(&Status::from_header_map(response.headers())?)?.reason;
    matches!(reason, Reason::Unauthenticated | Reason::PermissionDenied).then_some(reason)
}

/// Puts the audit in front of services. It stands behind the gate, which says who calls.
#[derive(Debug, Clone)]
pub struct Auditing(pub Audit);

impl<S> Layer<S> for Auditing {
    type Service = Audited<S>;

    fn layer(&self, inner: S) -> Audited<S> {
        Audited { audit: self.0.clone(), inner }
    }
}

/// A service whose changes are written down.
#[derive(Debug, Clone)]
pub struct Audited<S> {
    audit: Audit,
    inner: S,
}

impl<S> Service<Request<Body>> for Audited<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let rule = rule(request.uri().path());
        if !request.extensions().get::<Caller>().is_some_and(|caller| rule.covers(&caller.role)) {
            return Either::Left(self.inner.call(request));
        }
        // Ordering: the service that was found ready makes the call; its copy is asked anew.
        let copy = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, copy);
        Either::Right(Box::pin(through(self.audit.clone(), inner, request, rule)))
    }
}

async fn through<S>(audit: Audit, mut inner: S, request: Request<Body>, rule: Rule) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let (message, body) = first_message(body, if rule.subject.is_empty() { LARGEST } else { LARGEST_REQUEST }).await;
    let told = message.map_or_else(Told::default, |message| describe(&path, rule, message));
    if told.only_asks {
        return inner.call(Request::from_parts(parts, body)).await;
    }
    let call = begun(&parts.extensions, &path, told);
    let id = match audit.log.begin(call).await {
        Ok(id) => id,
        Err(error) => {
            let why = chain(&error);
            tracing::error!(rpc = path, error = why, "a call is refused, since it cannot be written to the audit");
            let text = format!("nothing was done, since it cannot be written to the audit: {why}");
            return Ok(Status::from(Failure::new(Reason::StorageFailed, text)).into_http());
        }
    };
    let mut response = inner.call(Request::from_parts(parts, body)).await?;
    response.extensions_mut().insert(WrittenDown);
    // Ordering: before the answer leaves. The row stands; without its outcome it says that this is not known.
    if let Err(error) = audit.log.end(id, ended(&response)).await {
        tracing::error!(
            rpc = path,
            entry = id,
            error = chain(&error),
            "the outcome of a call cannot be written to the audit"
        );
    }
    Ok(response)
}

/// What became of a call, as far as its head tells: of a stream, that it began.
fn ended(response: &Response<Body>) -> Ended {
    let changes = response.extensions().get::<Changes>().map(|changes| changes.0.clone()).unwrap_or_default();
    let failed = Status::from_header_map(response.headers()).filter(|status| status.code() != tonic::Code::Ok);
    let (reason, message) = match failed {
        None => Default::default(),
        Some(status) => {
            let reason = Failure::from_status(&status).map(|it| name(it.reason).to_owned());
            (reason.unwrap_or_else(|| format!("{:?}", status.code())), cut(status.message(), MESSAGE))
        }
    };
    Ended { at: clock::now(), reason, message, detail: changes }
}

/// Reads the first message of a request, if it has at most so many bytes, and gives the request back as it was.
async fn first_message(mut body: Body, largest: usize) -> (Option<Bytes>, Body) {
    let (mut read, mut frames) = (BytesMut::new(), Vec::new());
    let message = loop {
        if let Some(length) = length(&read) {
            if length > largest {
                break None;
            }
            if read.len() >= PREFIX + length {
                read.advance(PREFIX);
                break Some(read.split_to(length).freeze());
            }
        }
        match body.frame().await {
            None => break None,
            Some(frame) => {
                let data = frame.as_ref().ok().and_then(Frame::data_ref).cloned();
                let failed = frame.is_err();
                frames.push(frame);
                match data {
                    Some(data) => read.extend_from_slice(&data),
                    None if failed => break None,
                    None => {}
                }
            }
        }
    };
    let whole = futures::stream::iter(frames).chain(BodyStream::new(body));
    (message, Body::new(StreamBody::new(whole)))
}

/// Length of the message that begins here, once that is known; of one that is compressed, more than is read.
fn length(read: &[u8]) -> Option<usize> {
    let prefix: [u8; PREFIX] = read.get(..PREFIX)?.try_into().ok()?;
    let [compressed, length @ ..] = prefix;
    if compressed != 0 { Some(usize::MAX) } else { usize::try_from(u32::from_be_bytes(length)).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: &[&[u8]]) -> Body {
        let frames: Vec<Result<Frame<Bytes>, Status>> =
            pieces.iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        Body::new(StreamBody::new(futures::stream::iter(frames)))
    }

    async fn whole(body: Body) -> Vec<u8> {
        body.collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn a_request_is_read_and_given_back_as_it_was() {
        let one = b"\0\0\0\0\x03abc";
        for pieces in [&[&one[..]][..], &[&one[..2], &one[2..6], &one[6..]], &[&one[..], b"\0\0\0\0\x01z"]] {
            let (message, rest) = first_message(body(pieces), LARGEST).await;
            assert_eq!(message.as_deref(), Some(&b"abc"[..]));
            assert_eq!(whole(rest).await, pieces.concat());
        }
        let empty = first_message(body(&[b"\0\0\0\0\0"]), LARGEST).await;
        assert_eq!(empty.0.as_deref(), Some(&b""[..]));
    }

    #[tokio::test]
    async fn what_is_large_compressed_or_cut_off_is_passed_on_unread() {
        let large = [b"\0\0\x02\0\0".as_slice(), &[7; 131_072]].concat();
        for pieces in [&[&large[..]][..], &[b"\x01\0\0\0\x01x"], &[b"\0\0\0\0\x09ab"], &[b"\0\0"], &[]] {
            let (message, rest) = first_message(body(pieces), LARGEST).await;
            assert_eq!(message, None);
            assert_eq!(whole(rest).await, pieces.concat());
        }
    }
}
