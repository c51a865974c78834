//! The scripted control plane's outbox.

use postroom_proto::v1;
use postroom_proto::v1::compose_request::Part;
use postroom_proto::v1::outbox_service_server::OutboxService;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

use super::{Answer, Fake, not_found};

/// What somebody composed: the draft, and what each attachment said and held.
pub(crate) type Composed = (v1::Draft, Vec<(v1::DraftAttachment, Vec<u8>)>);

impl Fake {
    fn outbox_mail(&self, id: &str, change: impl FnOnce(&mut v1::OutboxMail)) -> Answer<v1::OutboxMail> {
        let mut state = self.0.lock().unwrap();
        let mail = state.mails.iter_mut().find(|mail| mail.id == id).ok_or_else(|| not_found("mail", id))?;
        change(mail);
        Ok(Response::new(mail.clone()))
    }

    async fn composed(&self, mut parts: Streaming<v1::ComposeRequest>) -> Answer<v1::OutboxMail> {
        let (mut draft, mut attachments) = (v1::Draft::default(), Vec::new());
        while let Some(part) = parts.next().await {
            match part?.part.unwrap() {
                Part::Draft(it) => draft = it,
                Part::Attachment(it) => attachments.push((it, Vec::new())),
                Part::Chunk(bytes) => attachments.last_mut().unwrap().1.extend_from_slice(&bytes),
            }
        }
        let mut state = self.0.lock().unwrap();
        let first = state.mails.first().cloned().unwrap_or_default();
        let mail = v1::OutboxMail {
            state: v1::OutboxState::Queued.into(),
            contact: draft.contact.clone(),
            subject: if draft.subject.is_empty() { first.subject.clone() } else { draft.subject.clone() },
            request_id: "8f14e45f-ceea-467f-a0e6-1c2d3e4f5a6b".into(),
            sent_time: None,
            response: String::new(),
            attempt_count: 0,
            problem: None,
            recipients: Vec::new(),
            ..first
        };
        state.composed.push((draft, attachments));
        Ok(Response::new(mail))
    }
}

#[tonic::async_trait]
impl OutboxService for Fake {
    type GetOutboxRawStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::RawMessageChunk, Status>>>;
    type WatchOutboxStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::WatchOutboxResponse, Status>>>;

    async fn reply(&self, request: Request<Streaming<v1::ComposeRequest>>) -> Answer<v1::OutboxMail> {
        let parts = self.enter("Reply", request).await?;
        self.composed(parts).await
    }

    async fn send(&self, request: Request<Streaming<v1::ComposeRequest>>) -> Answer<v1::OutboxMail> {
        let parts = self.enter("Send", request).await?;
        self.composed(parts).await
    }

    async fn list_outbox(&self, request: Request<v1::ListOutboxRequest>) -> Answer<v1::ListOutboxResponse> {
        let request = self.enter("ListOutbox", request).await?;
        let wanted = |m: &v1::OutboxMail| request.states.is_empty() || request.states.contains(&m.state);
        let all: Vec<_> = self.0.lock().unwrap().mails.iter().filter(|mail| wanted(mail)).cloned().collect();
        let (mut mails, next_page_token) = Self::page(&all, request.page_size, &request.page_token);
        mails.iter_mut().for_each(|mail| mail.recipients.clear());
        Ok(Response::new(v1::ListOutboxResponse { mails, next_page_token }))
    }

    async fn get_outbox_mail(&self, request: Request<v1::GetOutboxMailRequest>) -> Answer<v1::OutboxMail> {
        let id = self.enter("GetOutboxMail", request).await?.mail;
        self.outbox_mail(&id, |_| {})
    }

    async fn get_outbox_raw(&self, request: Request<v1::GetOutboxRawRequest>) -> Answer<Self::GetOutboxRawStream> {
        self.enter("GetOutboxRaw", request).await?;
        let chunk = |data: &&'static [u8]| Ok(v1::RawMessageChunk { data: bytes::Bytes::from_static(data) });
        let chunks: Vec<_> = self.0.lock().unwrap().raw.iter().map(chunk).collect();
        Ok(Response::new(tokio_stream::iter(chunks)))
    }

    async fn retry_outbox_mail(&self, request: Request<v1::RetryOutboxMailRequest>) -> Answer<v1::OutboxMail> {
        let request = self.enter("RetryOutboxMail", request).await?;
        self.outbox_mail(&request.mail, |mail| {
            mail.set_state(v1::OutboxState::Queued);
            mail.problem = None;
        })
    }

    async fn cancel_outbox_mail(&self, request: Request<v1::CancelOutboxMailRequest>) -> Answer<v1::OutboxMail> {
        let id = self.enter("CancelOutboxMail", request).await?.mail;
        self.outbox_mail(&id, |mail| mail.set_state(v1::OutboxState::Failed))
    }

    async fn confirm_outbox_mail(&self, request: Request<v1::ConfirmOutboxMailRequest>) -> Answer<v1::OutboxMail> {
        let id = self.enter("ConfirmOutboxMail", request).await?.mail;
        self.outbox_mail(&id, |mail| {
            mail.set_state(v1::OutboxState::Sent);
            mail.problem = None;
        })
    }

    async fn watch_outbox(&self, request: Request<v1::WatchOutboxRequest>) -> Answer<Self::WatchOutboxStream> {
        self.enter("WatchOutbox", request).await?;
        let told =
            |mail: &v1::OutboxMail| v1::WatchOutboxResponse { revision: 8, mail: Some(mail.clone()), snapshot: false };
        let events: Vec<_> = self.0.lock().unwrap().mails.iter().map(|mail| Ok(told(mail))).collect();
        Ok(Response::new(tokio_stream::iter(events)))
    }
}

/// One mail that was sent, one whose outcome is unknown, and one that came back.
pub(super) fn mails() -> Vec<v1::OutboxMail> {
    use super::fixture::at;
    let address = |name: &str, address: &str| v1::EmailAddress { name: name.into(), address: address.into() };
    let recipient = |state: v1::RecipientState, status: &str, diagnostic: &str| v1::OutboxRecipient {
        address: Some(address("Zoë", "zoe@fabrikam.example")),
        kind: v1::RecipientKind::To.into(),
        state: state.into(),
        status: status.into(),
        diagnostic: diagnostic.into(),
    };
    let sent = v1::OutboxMail {
        id: "0198c0ffee0198c0ffee0198c0ffee31".into(),
        instance: "core1".into(),
        queue: "Billing".into(),
        contact: "0198c0ffee0198c0ffee0198c0ffee01".into(),
        request_id: "6f1e0f6a-5b0a-4a53-9d0c-3a1a5a0f6a11".into(),
        state: v1::OutboxState::Sent.into(),
        from: Some(address("Contoso Billing", "billing@contoso.example")),
        recipients: vec![recipient(v1::RecipientState::Accepted, "", "")],
        recipient_count: 1,
        subject: "Re: Invoice 4711".into(),
        message_id: "0198c0ffee31@contoso.example".into(),
        size_bytes: 2048,
        automatic: false,
        created_time: at(-120),
        attempt_count: 1,
        next_attempt_time: None,
        sent_time: at(-118),
        problem: None,
        outgoing_server: "Office 365".into(),
        worker: String::new(),
        response: "250 2.0.0 OK".into(),
        changed_time: at(-118),
    };
    let problem = |code: &str, cause: &str, remedy: &str| v1::Problem {
        kind: v1::ProblemKind::Mailbox.into(),
        code: code.into(),
        cause: cause.into(),
        remedy: remedy.into(),
        since_time: at(-60),
        next_attempt_time: None,
    };
    let unknown = v1::OutboxMail {
        id: "0198c0ffee0198c0ffee0198c0ffee32".into(),
        state: v1::OutboxState::Unknown.into(),
        recipients: vec![recipient(v1::RecipientState::Pending, "", "")],
        sent_time: None,
        response: String::new(),
        problem: Some(problem(
            "OUTCOME_UNKNOWN",
            "the connection broke after the mail was handed over",
            "ask the recipient, then confirm it or send it again",
        )),
        ..sent.clone()
    };
    let bounced = v1::OutboxMail {
        id: "0198c0ffee0198c0ffee0198c0ffee33".into(),
        state: v1::OutboxState::Bounced.into(),
        recipients: vec![recipient(v1::RecipientState::Bounced, "5.1.1", "550 5.1.1 no such user")],
        problem: Some(problem("BOUNCED", "550 5.1.1 no such user", "correct the address")),
        ..sent.clone()
    };
    vec![bounced, unknown, sent]
}
