//! An answer that ends with the credential by which it was asked for, however long its stream would go on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use postroom_proto::reason::Failure;
use tonic::Status;
use tonic::body::Body;

use super::standing::Standing;

/// The same body, which ends with the failure once `standing` does.
pub(super) fn with(standing: Arc<Standing>, body: Body) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(Ending { body, standing: Some(standing), over: None })
}

struct Ending {
    body: Body,
    /// Until it is waited for.
    standing: Option<Arc<Standing>>,
    over: Option<BoxFuture<'static, Failure>>,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.standing.is_none() && self.over.is_none() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        // Only answers that make wait need to know: most are there at once.
        if let Some(standing) = self.standing.take() {
            self.over = Some(standing.ended().boxed());
        }
        let Some(over) = &mut self.over else { return Poll::Ready(None) };
        match over.poll_unpin(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(failure) => {
                self.over = None;
                let mut trailers = HeaderMap::new();
                Poll::Ready(Some(match Status::from(failure).add_header(&mut trailers) {
                    Ok(()) => Ok(Frame::trailers(trailers)),
                    Err(status) => Err(status),
                }))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        (self.standing.is_none() && self.over.is_none()) || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
