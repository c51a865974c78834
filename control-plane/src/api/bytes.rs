//! Raw messages and attachments, in pieces.

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::{Attachment, TransferEncoding};
use tonic::Status;

use crate::blob::{self, Blobs};
use crate::contact::attachment::Decoder;
use crate::ledger::Raw;

/// Most bytes in a piece.
const PIECE: usize = 256 * 1024;

type Stored = BoxStream<'static, Result<Bytes, blob::Error>>;

/// A whole raw message. `None`: it was not kept.
pub(super) async fn all(
    blobs: &Blobs,
    raw: Raw,
) -> Result<Option<impl Stream<Item = Result<Bytes, Status>> + Send + 'static>, Failure> {
    let stored: Stored = match raw {
        Raw::None => return Ok(None),
        Raw::Inline(bytes) => stream::iter([Ok(bytes)]).boxed(),
        Raw::Blob(digest) => blobs.read(&digest).await?,
    };
    Ok(Some(in_pieces(stored)))
}

/// The decoded bytes of an attachment.
pub(super) async fn attachment(
    blobs: &Blobs,
    raw: Raw,
    attachment: &Attachment,
) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + 'static, Failure> {
    let not_recorded = || {
        let text =
            "where this attachment stands in the message was not recorded when it was taken in; read the raw message";
        Failure::new(Reason::NotFound, text)
    };
    let encoding = attachment.encoding();
    if encoding == TransferEncoding::Unspecified {
        return Err(not_recorded());
    }
    let range = attachment.raw_offset..attachment.raw_offset.saturating_add(attachment.raw_bytes);
    let stored: Stored = match raw {
        Raw::None => return Err(not_recorded()),
        _ if range.is_empty() => stream::empty().boxed(),
        Raw::Inline(bytes) => {
            let within = |end: u64| usize::try_from(end).unwrap_or(usize::MAX).min(bytes.len());
            stream::iter([Ok(bytes.slice(within(range.start)..within(range.end)))]).boxed()
        }
        Raw::Blob(digest) => blobs.read_range(&digest, range).await?,
    };
    Ok(in_pieces(decoded(stored, encoding)))
}

fn decoded(stored: Stored, encoding: TransferEncoding) -> Stored {
    let begin = Some((split(stored).boxed(), Decoder::new(encoding)));
    let decoded = stream::unfold(begin, async |state| {
        let (mut stored, mut decoder) = state?;
        match stored.next().await {
            Some(Ok(piece)) => Some((Ok(Bytes::from(decoder.push(&piece))), Some((stored, decoder)))),
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Ok(Bytes::from(decoder.finish())), None)),
        }
    });
    decoded.boxed()
}

fn in_pieces(stored: Stored) -> impl Stream<Item = Result<Bytes, Status>> + Send + 'static {
    split(stored).map(|piece| piece.map_err(|error| Status::from(Failure::from(error))))
}

/// Cuts what is longer than a piece; empty ones are left out.
fn split(stored: Stored) -> impl Stream<Item = Result<Bytes, blob::Error>> + Send + 'static {
    stored.flat_map(|piece| {
        let pieces: Vec<_> = match piece {
            Ok(bytes) => (0..bytes.len())
                .step_by(PIECE)
                .map(|from| Ok(bytes.slice(from..bytes.len().min(from + PIECE))))
                .collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(pieces)
    })
}
