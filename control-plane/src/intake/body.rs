//! Large message bodies, taken in before the report that names them.

use futures::{Stream, StreamExt as _};
use postroom_proto::id::Epoch;
use postroom_proto::limits::LARGEST_MESSAGE_BYTES as LARGEST;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1::{self, upload_blob_request::Part};

use super::{Intake, mailbox, session};
use crate::access::caller::Caller;
use crate::access::sessions::Sessions;
use crate::blob::{Upload, is_digest};

/// Largest piece.
const PIECE: usize = 256 * 1024;

impl Intake {
    /// Takes in a body: first its header, which must be of a session of the caller's, then its pieces. Durable when it
    /// returns.
    pub async fn upload(
        &self,
        mut parts: impl Stream<Item = Result<v1::UploadBlobRequest, tonic::Status>> + Unpin,
        caller: &Caller,
        sessions: &Sessions,
    ) -> Result<v1::UploadBlobResponse, Failure> {
        let Some(Part::Header(header)) = next(&mut parts).await? else {
            return Err(Failure::invalid_field("header", "must be the first part"));
        };
        sessions.require(caller, &session(&header.session)?).await?;
        self.check_header(&header).await?;
        let mailbox = header.mailbox.clone();
        let outcome = self.store_body(header, parts).await;
        // That one body could be stored says nothing of the report that will name it.
        if outcome.is_err() {
            self.unstored.note(&mailbox, &outcome);
        }
        outcome
    }

    async fn store_body(
        &self,
        header: v1::BlobHeader,
        mut parts: impl Stream<Item = Result<v1::UploadBlobRequest, tonic::Status>> + Unpin,
    ) -> Result<v1::UploadBlobResponse, Failure> {
        if self.blobs.contains(&header.digest).await? {
            return Ok(v1::UploadBlobResponse { digest: header.digest });
        }
        let mut upload = self.blobs.upload(&header.digest, header.size_bytes).await?;
        match fill(&mut upload, &mut parts).await {
            Ok(()) => upload.finish().await?,
            Err(failure) => {
                upload.abort().await;
                return Err(failure);
            }
        }
        Ok(v1::UploadBlobResponse { digest: header.digest })
    }

    async fn check_header(&self, header: &v1::BlobHeader) -> Result<(), Failure> {
        let uid = mailbox("header.mailbox", &header.mailbox)?;
        self.check_held(&session(&header.session)?, &uid, Epoch(header.epoch)).await?;
        if !is_digest(&header.digest) {
            return Err(Failure::invalid_field("header.digest", "is not a SHA-256 in lower-case hexadecimal"));
        }
        if header.size_bytes > LARGEST {
            let text = format!("a body of {} bytes is larger than the {LARGEST} that are taken", header.size_bytes);
            return Err(Failure::new(Reason::BlobInvalid, text));
        }
        Ok(())
    }
}

async fn fill(
    upload: &mut Upload,
    parts: &mut (impl Stream<Item = Result<v1::UploadBlobRequest, tonic::Status>> + Unpin),
) -> Result<(), Failure> {
    while let Some(part) = next(parts).await? {
        let Part::Chunk(piece) = part else {
            return Err(Failure::invalid_field("header", "stands only in the first part"));
        };
        if piece.len() > PIECE {
            return Err(Failure::invalid_field("chunk", format!("is longer than {PIECE} bytes")));
        }
        upload.push(piece).await?;
    }
    Ok(())
}

async fn next(
    parts: &mut (impl Stream<Item = Result<v1::UploadBlobRequest, tonic::Status>> + Unpin),
) -> Result<Option<Part>, Failure> {
    match parts.next().await {
        None => Ok(None),
        Some(Ok(request)) => Ok(request.part),
        // The worker went away in the middle; nobody is left to read the answer.
        Some(Err(status)) => Err(Failure::new(Reason::BlobInvalid, format!("the upload broke off: {status}"))),
    }
}
