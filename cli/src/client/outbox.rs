//! Calls about mail on its way out.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use postroom_proto::v1;
use postroom_proto::v1::compose_request::Part;
use postroom_proto::v1::outbox_service_client::OutboxServiceClient;
use tonic::{Request, Response, Status};

use super::{Authorized, Client, Error, MAX_ANSWER, Parts, Repeat, page_size};

/// Bookmarks come every 10 s; a watch that is silent for longer is broken.
const WATCH_PATIENCE: Duration = Duration::from_secs(30);
/// Largest piece of an attachment.
const CHUNK: usize = 256 * 1024;
/// A slow line: what is to be sent up may take a second for so many bytes.
const BYTES_A_SECOND: u64 = 1 << 20;

/// A mail to be composed. Attachments are read from their files as it is sent up, again if that has to be repeated.
#[derive(Debug, Clone)]
pub struct Composition {
    /// Everything but attachments.
    pub draft: v1::Draft,
    /// What is said of each, and where it is.
    pub attachments: Vec<(v1::DraftAttachment, PathBuf)>,
}

impl Composition {
    fn size(&self) -> u64 {
        self.attachments.iter().map(|(attachment, _)| attachment.size_bytes).sum()
    }

    /// The requests of the stream. A file that cannot be read any more ends it early, which the control plane refuses.
    fn pieces(self) -> impl Iterator<Item = v1::ComposeRequest> + Send + 'static {
        let attached = self.attachments.into_iter().flat_map(|(attachment, path)| {
            std::iter::once(Part::Attachment(attachment)).chain(chunks(File::open(path).ok()).map(Part::Chunk))
        });
        std::iter::once(Part::Draft(self.draft)).chain(attached).map(|part| v1::ComposeRequest { part: Some(part) })
    }
}

fn chunks(file: Option<File>) -> impl Iterator<Item = bytes::Bytes> + Send {
    let mut file = file;
    std::iter::from_fn(move || {
        let mut chunk = Vec::with_capacity(CHUNK);
        file.as_mut()?.take(CHUNK as u64).read_to_end(&mut chunk).ok()?;
        (!chunk.is_empty()).then(|| chunk.into())
    })
}

/// The request of a stream, with what the client has put around it.
fn streamed(request: Request<Composition>) -> Request<impl tokio_stream::Stream<Item = v1::ComposeRequest> + Send> {
    let (metadata, extensions, composition) = request.into_parts();
    Request::from_parts(metadata, extensions, tokio_stream::iter(composition.pieces()))
}

impl Client {
    /// Stores a reply. The request id is repeated with the request, so a lost answer stores nothing twice.
    pub async fn reply(&self, composition: Composition) -> Result<v1::OutboxMail, Error> {
        self.compose(composition, async |r| self.outbox().reply(streamed(r)).await).await
    }

    /// Stores a mail that answers nothing.
    pub async fn send(&self, composition: Composition) -> Result<v1::OutboxMail, Error> {
        self.compose(composition, async |r| self.outbox().send(streamed(r)).await).await
    }

    async fn compose(
        &self,
        composition: Composition,
        call: impl AsyncFn(Request<Composition>) -> Result<Response<v1::OutboxMail>, Status>,
    ) -> Result<v1::OutboxMail, Error> {
        let time = Duration::from_secs(composition.size() / BYTES_A_SECOND);
        self.call(Repeat::Call, time, composition, call).await
    }

    /// The first `limit` mails that pass the filter, newest first. `next_page_token` stays when there are more.
    pub async fn list_outbox(
        &self,
        filter: v1::ListOutboxRequest,
        limit: u32,
    ) -> Result<v1::ListOutboxResponse, Error> {
        let mut all = v1::ListOutboxResponse::default();
        loop {
            let missing = limit - u32::try_from(all.mails.len()).unwrap_or(limit).min(limit);
            let page = v1::ListOutboxRequest {
                page_size: page_size(Some(missing)),
                page_token: all.next_page_token,
                ..filter.clone()
            };
            let page = self.read(page, async |r| self.outbox().list_outbox(r).await).await?;
            all.mails.extend(page.mails);
            self.progress.at(all.mails.len() as u64, 0);
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() || all.mails.len() >= limit as usize {
                return Ok(all);
            }
        }
    }

    /// One mail with everything but its bytes.
    pub async fn get_outbox_mail(&self, mail: String) -> Result<v1::OutboxMail, Error> {
        self.read(v1::GetOutboxMailRequest { mail }, async |r| self.outbox().get_outbox_mail(r).await).await
    }

    /// The bytes of a mail.
    pub async fn get_outbox_raw(&self, mail: String) -> Result<Parts<v1::RawMessageChunk>, Error> {
        let request = v1::GetOutboxRawRequest { mail };
        self.parts(request, self.deadline, async |r| self.outbox().get_outbox_raw(r).await).await
    }

    /// Sends a mail once more.
    pub async fn retry_outbox_mail(&self, mail: String, may_arrive_twice: bool) -> Result<v1::OutboxMail, Error> {
        let request = v1::RetryOutboxMailRequest { mail, may_arrive_twice };
        self.read(request, async |r| self.outbox().retry_outbox_mail(r).await).await
    }

    /// Gives a mail up.
    pub async fn cancel_outbox_mail(&self, mail: String) -> Result<v1::OutboxMail, Error> {
        self.read(v1::CancelOutboxMailRequest { mail }, async |r| self.outbox().cancel_outbox_mail(r).await).await
    }

    /// Records that a mail did arrive.
    pub async fn confirm_outbox_mail(&self, mail: String) -> Result<v1::OutboxMail, Error> {
        self.read(v1::ConfirmOutboxMailRequest { mail }, async |r| self.outbox().confirm_outbox_mail(r).await).await
    }

    /// Mails and their changes, without end.
    pub async fn watch_outbox(&self, request: v1::WatchOutboxRequest) -> Result<Parts<v1::WatchOutboxResponse>, Error> {
        self.parts(request, WATCH_PATIENCE, async |r| self.outbox().watch_outbox(r).await).await
    }

    fn outbox(&self) -> OutboxServiceClient<Authorized> {
        OutboxServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_ANSWER)
    }
}
