//! Hands mail to Microsoft Graph, as MIME, so that its Message-ID and its threading stay as they were stored.
//!
//! A mail that fits into one request goes by `sendMail`. A larger one, and one that is for some of those only who stand in
//! its header, is made a draft first, its large attachments uploaded beside it, and the draft sent: nobody is sent anything
//! before that.
//!
//! Graph ignores From in MIME and sends as the mailbox of the path: an address that sends by it is that mailbox's. None of
//! this was run against Microsoft; the stand-ins of the tests follow its documentation.

mod api;
mod mime;
pub(crate) mod probe;

use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http::Method;
use postroom_proto::catalogue::send;
use postroom_proto::v1::{Attachment, ClaimedMail, OutgoingDefinition};
use serde_json::{Value, json};
use tokio::time::sleep;

pub(super) use self::api::{Api, Body};
use self::mime::{Addressed, Apart, Decoded, addressed, apart, with_hidden};
use super::Sending;
use super::claim::{Broken, UnderWay};
use super::verdict::graph::{self as verdict, Step};
use super::verdict::{Fate, Fault, Verdict};
use crate::diagnosis::{self, Diagnosis};

/// What Graph takes at once, in bytes before base64.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest mail that one request carries, of which 4 MB is the most.
    pub request: usize,
    /// From this size on an attachment is uploaded in ranges, which Graph allows from 3 MB on; a smaller one goes in one
    /// request.
    pub uploaded_from: u64,
    /// Largest range of an upload, of which 4 MB is the most.
    pub range: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request: 3_000_000, uploaded_from: 3_145_000, range: 3_932_160 }
    }
}

/// How often a range is tried that Graph asks to wait with.
const TRIES: u32 = 5;
/// Longest pause that is waited for in the middle of an upload.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Time to take a draft back that is not sent.
const TAKING_BACK: Duration = Duration::from_secs(5);

/// Hands over one mail.
pub(super) async fn submit(
    sending: &Sending,
    mail: &ClaimedMail,
    definition: &OutgoingDefinition,
    raw: &Bytes,
    under_way: &UnderWay,
) -> Result<Verdict, Broken> {
    let mut api = Api::open(sending, definition).await?;
    let Addressed { hidden, names_others } = addressed(raw, &mail.recipients);
    let whole = with_hidden(raw, &hidden);
    if whole.len() > sending.graph.request || names_others {
        let only = names_others.then_some(mail.recipients.as_slice());
        return by_draft(&mut api, &whole, only, under_way, sending.graph).await;
    }
    under_way.mark().await?;
    under_way.handing_over();
    let sent = api.ask(Step::Send, Method::POST, &["sendMail"], &[], Body::Mime(whole)).await?;
    Ok(Verdict::sent(sent.response, Vec::new()))
}

/// `only`: to these, whoever stands in the header.
async fn by_draft(
    api: &mut Api,
    raw: &Bytes,
    only: Option<&[String]>,
    under_way: &UnderWay,
    limits: Limits,
) -> Result<Verdict, Broken> {
    let whole = raw.clone();
    let parted = tokio::task::spawn_blocking(move || apart(&whole, limits.request)).await;
    let parted = parted.map_err(|_| Fault::of(diagnosis::defect("the reading of a mail panicked"), Fate::Again))?;
    let Some(Apart { rest, attachments }) = parted else { return Err(too_large().into()) };
    let made = api.ask(Step::Prepare, Method::POST, &["messages"], &[], Body::Mime(rest)).await?;
    let id = text(&made.body, "id")?;
    let draft = Draft { id: &id, raw, attachments: &attachments, only, limits };
    match draft.send(api, under_way).await {
        // It may be on its way: nobody touches it.
        end @ (Ok(_) | Err(Broken::Lost(_))) => end,
        Err(broken) => {
            let path = ["messages", id.as_str()];
            let back = api.ask(Step::Prepare, Method::DELETE, &path, &[], Body::None);
            if !matches!(tokio::time::timeout(TAKING_BACK, back).await, Ok(Ok(_))) {
                tracing::info!("a draft that was not sent stays in the folder of drafts");
            }
            Err(broken)
        }
    }
}

/// A draft that is to be completed and sent.
struct Draft<'d> {
    id: &'d str,
    raw: &'d Bytes,
    attachments: &'d [Attachment],
    only: Option<&'d [String]>,
    limits: Limits,
}

impl Draft<'_> {
    async fn send(&self, api: &mut Api, under_way: &UnderWay) -> Result<Verdict, Broken> {
        if let Some(only) = self.only {
            let to: Vec<Value> = only.iter().map(|address| json!({"emailAddress": {"address": address}})).collect();
            let change = json!({"toRecipients": to, "ccRecipients": [], "bccRecipients": []});
            api.ask(Step::Prepare, Method::PATCH, &["messages", self.id], &[], Body::Json(change)).await?;
        }
        for attachment in self.attachments {
            self.attach(api, attachment).await?;
        }
        under_way.mark().await?;
        under_way.handing_over();
        let sent = api.ask(Step::Send, Method::POST, &["messages", self.id, "send"], &[], Body::None).await?;
        Ok(Verdict::sent(sent.response, Vec::new()))
    }

    async fn attach(&self, api: &mut Api, attachment: &Attachment) -> Result<(), Broken> {
        let inline = !attachment.content_id.is_empty();
        if attachment.size_bytes < self.limits.uploaded_from {
            let bytes: Vec<u8> = self.pieces(attachment)?.flatten().collect();
            let item = json!({
                "@odata.type": "#microsoft.graph.fileAttachment",
                "name": attachment.name,
                "contentType": attachment.media_type,
                "contentBytes": BASE64.encode(&bytes),
                "isInline": inline,
                "contentId": attachment.content_id,
            });
            let path = ["messages", self.id, "attachments"];
            api.ask(Step::Prepare, Method::POST, &path, &[], Body::Json(item)).await?;
            return Ok(());
        }
        let item = json!({"AttachmentItem": {
            "attachmentType": "file",
            "name": attachment.name,
            "size": attachment.size_bytes,
            "contentType": attachment.media_type,
            "isInline": inline,
            "contentId": attachment.content_id,
        }});
        let path = ["messages", self.id, "attachments", "createUploadSession"];
        let session = api.ask(Step::Prepare, Method::POST, &path, &[], Body::Json(item)).await?;
        let url = text(&session.body, "uploadUrl")?;
        let mut from = 0;
        for piece in self.pieces(attachment)? {
            let length = piece.len() as u64;
            upload(api, &url, piece, from, attachment.size_bytes).await?;
            from += length;
        }
        if from != attachment.size_bytes {
            let found = diagnosis::defect("an attachment has another length than was read");
            return Err(Fault::of(found, Fate::Again).into());
        }
        Ok(())
    }

    fn pieces(&self, attachment: &Attachment) -> Result<Decoded, Fault> {
        let beyond = || Fault::of(diagnosis::defect("an attachment stands beyond the mail"), Fate::Again);
        Decoded::of(self.raw, attachment, self.limits.range).ok_or_else(beyond)
    }
}

/// One range, again where Graph asks to wait or has a fault of its own.
async fn upload(api: &Api, url: &str, piece: Bytes, from: u64, total: u64) -> Result<(), Broken> {
    for tried in 1.. {
        let (answer, _) = api.put(url, piece.clone(), from, total).await?;
        if answer.is_ok() {
            break;
        }
        let passing = answer.status == 429 || answer.status >= 500;
        let pause = answer.retry_after.unwrap_or(Duration::from_secs(1 << tried.min(5)));
        if !passing || tried >= TRIES || pause > LONGEST_PAUSE {
            return Err(verdict::fault(&answer).into());
        }
        sleep(pause).await;
    }
    Ok(())
}

fn text(body: &Value, field: &str) -> Result<String, Fault> {
    let value = body.get(field).and_then(Value::as_str).filter(|value| !value.is_empty());
    value.map(str::to_owned).ok_or_else(|| {
        let cause = format!("Microsoft Graph answered without {field}");
        Fault::of(Diagnosis::of(&send::SUBMISSION_ANSWER_STRANGE, cause), Fate::Again)
    })
}

fn too_large() -> Fault {
    let cause = "the mail without its attachments is larger than the 3 MB that Microsoft Graph takes in one request";
    Fault::of(Diagnosis::of(&send::MESSAGE_TOO_LARGE, cause), Fate::Never)
}

#[cfg(test)]
mod tests;
