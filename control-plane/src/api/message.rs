//! Messages of the ledger, for people.

use futures::StreamExt as _;
use futures::stream::BoxStream;
use postroom_proto::convert::from_timestamp;
use postroom_proto::id::MailboxUid;
use postroom_proto::reason::Failure;
use postroom_proto::v1::{self, Disposition, message_service_server::MessageService};
use tonic::{Request, Response, Status};

use super::page::Page;
use super::{by, bytes};
use crate::blob::Blobs;
use crate::ledger::message::MessageFilter;
use crate::message::Messages;
use crate::observation::Observer;

/// Longest text to look for in reasons, in bytes.
const LONGEST_SEARCH: usize = 200;
/// Longest reason of a discard, in bytes.
const LONGEST_REASON: usize = 500;

/// Serves [`MessageService`].
#[derive(Clone)]
pub struct Service {
    messages: Messages,
    observer: Observer,
    blobs: Blobs,
}

impl Service {
    /// Serves `messages`; `observer` knows which mailbox is meant, `blobs` has large bodies.
    pub fn new(messages: Messages, observer: Observer, blobs: Blobs) -> Self {
        Self { messages, observer, blobs }
    }

    /// A mailbox that is read, or one by its uid whose messages are still in the ledger.
    fn mailbox(&self, wanted: &str) -> Result<MailboxUid, Failure> {
        self.observer.uid(wanted).or_else(|failure| MailboxUid::parse(wanted).map_err(|_| failure))
    }

    fn filter(&self, request: &v1::ListMessagesRequest) -> Result<MessageFilter, Failure> {
        let disposition = |number: &i32| {
            Disposition::try_from(*number)
                .ok()
                .filter(|disposition| *disposition != Disposition::Unspecified)
                .ok_or_else(|| Failure::invalid_field("dispositions", format!("{number} is no disposition")))
        };
        if request.reason.len() > LONGEST_SEARCH {
            return Err(Failure::invalid_field("reason", format!("is longer than {LONGEST_SEARCH} bytes")));
        }
        let mailbox = if request.mailbox.is_empty() { None } else { Some(self.mailbox(&request.mailbox)?) };
        Ok(MessageFilter {
            mailbox,
            dispositions: request.dispositions.iter().map(disposition).collect::<Result<_, _>>()?,
            settled: request.settled,
            since: request.since_time.as_ref().map(from_timestamp),
            until: request.until_time.as_ref().map(from_timestamp),
            reason: request.reason.clone(),
        })
    }
}

#[tonic::async_trait]
impl MessageService for Service {
    type GetMessageRawStream = BoxStream<'static, Result<v1::RawMessageChunk, Status>>;
    type ReconcileMailboxStream = BoxStream<'static, Result<v1::ReconcileMailboxResponse, Status>>;

    async fn list_messages(
        &self,
        request: Request<v1::ListMessagesRequest>,
    ) -> Result<Response<v1::ListMessagesResponse>, Status> {
        let request = request.into_inner();
        let filter = self.filter(&request)?;
        let narrowed = format!("{filter:?}");
        let page = Page::read(request.page_size, &request.page_token, &["messages", &narrowed])?;
        let before = page.after.as_deref().map(position).transpose()?;
        let mut messages = self.messages.list(&filter, before, page.size + 1).await?;
        let more = messages.len() > page.size;
        messages.truncate(page.size);
        let next_page_token = match messages.last() {
            Some(last) if more => page.next(&last.id),
            _ => String::new(),
        };
        Ok(Response::new(v1::ListMessagesResponse { messages, next_page_token }))
    }

    async fn get_message(&self, request: Request<v1::GetMessageRequest>) -> Result<Response<v1::Message>, Status> {
        Ok(Response::new(self.messages.get(&request.into_inner().message).await?))
    }

    async fn get_message_raw(
        &self,
        request: Request<v1::GetMessageRawRequest>,
    ) -> Result<Response<Self::GetMessageRawStream>, Status> {
        let raw = self.messages.raw(&request.into_inner().message).await?;
        let pieces = match bytes::all(&self.blobs, raw).await? {
            Some(pieces) => pieces.map(|piece| piece.map(|data| v1::RawMessageChunk { data })).boxed(),
            None => futures::stream::empty().boxed(),
        };
        Ok(Response::new(pieces))
    }

    async fn replay_message(
        &self,
        request: Request<v1::ReplayMessageRequest>,
    ) -> Result<Response<v1::ReplayMessageResponse>, Status> {
        let by = by(request.extensions())?;
        Ok(Response::new(self.messages.replay(&request.into_inner().message, &by).await?))
    }

    async fn discard_message(
        &self,
        request: Request<v1::DiscardMessageRequest>,
    ) -> Result<Response<v1::Message>, Status> {
        let by = by(request.extensions())?;
        let request = request.into_inner();
        if request.reason.len() > LONGEST_REASON {
            return Err(Failure::invalid_field("reason", format!("is longer than {LONGEST_REASON} bytes")).into());
        }
        Ok(Response::new(self.messages.discard(&request.message, &by, &request.reason).await?))
    }

    async fn reconcile_mailbox(
        &self,
        request: Request<v1::ReconcileMailboxRequest>,
    ) -> Result<Response<Self::ReconcileMailboxStream>, Status> {
        let request = request.into_inner();
        let uid = self.observer.uid(&request.mailbox)?;
        let told = self.messages.reconcile(uid, request.all).await?;
        let told = told.map(|told| match told {
            Ok(told) => Ok(v1::ReconcileMailboxResponse { told: Some(told) }),
            Err(failure) => Err(Status::from(failure)),
        });
        Ok(Response::new(told.boxed()))
    }
}

/// The place that a page token names.
fn position(key: &str) -> Result<i64, Failure> {
    key.parse().map_err(|_| Failure::invalid_field("page_token", "was not made here; start again without a token"))
}
