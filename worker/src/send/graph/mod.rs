//! Hands mail to Microsoft Graph, as MIME, so that its Message-ID and its threading stay as they were stored.
//!
//! A mail that fits into one request goes by `sendMail`. A larger one, one that is for some of those only who stand in its
//! header, and one from another address than the mailbox's, is made a draft first, its large attachments uploaded beside
//! it, and the draft sent: nobody is sent anything before that.
//!
//! Graph ignores From in MIME and sends as the mailbox of the path. So where `user` is another address than the sender, the
//! draft is told whom it is from, and Graph looks whether that is allowed (ErrorSendAsDenied). Where `user` is a GUID, nobody
//! knows its address before there is a draft: then it is compared only if one is made anyway, and by `sendMail` the mail is
//! from the mailbox's own address, whatever the sender's is. None of this was run against Microsoft; the stand-ins of the
//! tests follow its documentation.

mod api;
mod mime;
pub(crate) mod probe;

use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http::Method;
use postroom_proto::catalogue::send;
use postroom_proto::v1::{Attachment, ClaimedMail, EmailAddress, OutgoingDefinition};
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
/// How Graph refuses to upload what it takes in one request.
const TOO_SMALL_TO_UPLOAD: &str = "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize";
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
    let addressed = addressed(raw, &mail.recipients);
    let whole = with_hidden(raw, &addressed.hidden);
    if whole.len() > sending.graph.request || addressed.names_others || is_another(&definition.user, &mail.sender) {
        return by_draft(&mut api, mail, &definition.user, raw, &addressed, under_way, sending.graph).await;
    }
    under_way.mark().await?;
    let deadline = under_way.handing_over()?;
    let sent = api.hand_over(Step::Send, &["sendMail"], Body::Mime(whole), deadline).await?;
    Ok(Verdict::sent(sent.response, Vec::new()))
}

/// True where `user` is an address, and another one.
pub(crate) fn is_another(user: &str, sender: &str) -> bool {
    user.contains('@') && !user.eq_ignore_ascii_case(sender)
}

async fn by_draft(
    api: &mut Api,
    mail: &ClaimedMail,
    user: &str,
    raw: &Bytes,
    addressed: &Addressed,
    under_way: &UnderWay,
    limits: Limits,
) -> Result<Verdict, Broken> {
    let whole = raw.clone();
    let parted = tokio::task::spawn_blocking(move || apart(&whole, limits.request)).await;
    let parted = parted.map_err(|_| Fault::of(diagnosis::defect("the reading of a mail panicked"), Fate::Again))?;
    let Some(Apart { rest, attachments }) = parted else { return Err(too_large().into()) };
    // What an attempt that was given up left behind. It is in nobody's way, so nothing hangs on it.
    if let Ok(found) = find(api, &mail.message_id).await {
        take_back(api, &found.drafts).await;
    }
    let made = api.ask(Step::Prepare, Method::POST, &["messages"], &[], Body::Mime(rest)).await?;
    let id = text(&made.body, "id")?;
    let change = change(addressed, user, &mail.sender, &made.body);
    let draft = Draft { id: &id, raw, attachments: &attachments, change, limits };
    match draft.send(api, under_way).await {
        // It may be on its way: nobody touches it.
        end @ (Ok(_) | Err(Broken::Lost(_))) => end,
        Err(broken) => {
            take_back(api, &[id]).await;
            Err(broken)
        }
    }
}

/// What of a draft that was made of MIME has to be another; `null`: nothing.
fn change(addressed: &Addressed, user: &str, sender: &str, made: &Value) -> Value {
    let mut change = serde_json::Map::new();
    let named = |all: &[EmailAddress]| -> Value { all.iter().map(|one| recipient(&one.name, &one.address)).collect() };
    if addressed.names_others {
        change.insert("toRecipients".into(), named(&addressed.to));
        change.insert("ccRecipients".into(), named(&addressed.cc));
    }
    if addressed.names_others || !addressed.hidden.is_empty() {
        let hidden = addressed.hidden.iter().map(|address| recipient("", address)).collect();
        change.insert("bccRecipients".into(), hidden);
    }
    let from = made.pointer("/from/emailAddress/address").and_then(Value::as_str);
    if is_another(user, sender) || from.is_some_and(|from| is_another(from, sender)) {
        change.insert("from".into(), recipient("", sender));
    }
    if change.is_empty() { Value::Null } else { Value::Object(change) }
}

fn recipient(name: &str, address: &str) -> Value {
    match name {
        "" => json!({"emailAddress": {"address": address}}),
        name => json!({"emailAddress": {"name": name, "address": address}}),
    }
}

/// What a mailbox has with a Message-ID.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// There is one that is no draft.
    pub(super) is_sent: bool,
    /// Drafts, by their ids.
    pub(super) drafts: Vec<String>,
}

/// In whatever folder: what was sent may have been moved since.
pub(super) async fn find(api: &mut Api, message_id: &str) -> Result<Found, Broken> {
    // OData: a quote inside a text is written twice.
    let filter = format!("internetMessageId eq '<{}>'", message_id.replace('\'', "''"));
    let query = [("$filter", filter.as_str()), ("$select", "id,isDraft")];
    let answer = api.ask(Step::Look, Method::GET, &["messages"], &query, Body::None).await?;
    let Some(messages) = answer.body.get("value").and_then(Value::as_array) else {
        let found = Diagnosis::of(&send::SUBMISSION_ANSWER_STRANGE, "Microsoft Graph answered a search without a list");
        return Err(Fault::of(found, Fate::Again).into());
    };
    let mut found = Found::default();
    for message in messages {
        if message.get("isDraft").and_then(Value::as_bool).unwrap_or(false) {
            found.drafts.extend(text(message, "id").ok());
        } else {
            found.is_sent = true;
        }
    }
    Ok(found)
}

/// Deletes drafts that are not to be sent. Where that fails they stay, and nobody is sent them.
pub(super) async fn take_back(api: &mut Api, drafts: &[String]) {
    for id in drafts {
        let path = ["messages", id.as_str()];
        let back = api.ask(Step::Draft, Method::DELETE, &path, &[], Body::None);
        if !matches!(tokio::time::timeout(TAKING_BACK, back).await, Ok(Ok(_))) {
            tracing::info!("a draft that was not sent stays in the folder of drafts");
        }
    }
}

/// A draft that is to be completed and sent.
struct Draft<'d> {
    id: &'d str,
    raw: &'d Bytes,
    attachments: &'d [Attachment],
    change: Value,
    limits: Limits,
}

impl Draft<'_> {
    async fn send(&self, api: &mut Api, under_way: &UnderWay) -> Result<Verdict, Broken> {
        if !self.change.is_null() {
            let change = Body::Json(self.change.clone());
            api.ask(Step::Draft, Method::PATCH, &["messages", self.id], &[], change).await?;
        }
        for attachment in self.attachments {
            self.attach(api, attachment).await?;
        }
        under_way.mark().await?;
        let deadline = under_way.handing_over()?;
        let sent = api.hand_over(Step::SendDraft, &["messages", self.id, "send"], Body::None, deadline).await?;
        Ok(Verdict::sent(sent.response, Vec::new()))
    }

    async fn attach(&self, api: &mut Api, attachment: &Attachment) -> Result<(), Broken> {
        if attachment.size_bytes < self.limits.uploaded_from {
            return self.attach_whole(api, attachment).await;
        }
        match self.upload(api, attachment).await {
            // Between what one request carries and what an upload takes there are a few hundred bytes.
            Err(Broken::Fault(fault, _)) if fault.response.contains(TOO_SMALL_TO_UPLOAD) => {
                self.attach_whole(api, attachment).await
            }
            end => end,
        }
    }

    async fn attach_whole(&self, api: &mut Api, attachment: &Attachment) -> Result<(), Broken> {
        let bytes: Vec<u8> = self.pieces(attachment)?.flatten().collect();
        expect(attachment, bytes.len() as u64)?;
        let item = json!({
            "@odata.type": "#microsoft.graph.fileAttachment",
            "name": attachment.name,
            "contentType": attachment.media_type,
            "contentBytes": BASE64.encode(&bytes),
            "isInline": !attachment.content_id.is_empty(),
            "contentId": attachment.content_id,
        });
        let path = ["messages", self.id, "attachments"];
        api.ask(Step::Draft, Method::POST, &path, &[], Body::Json(item)).await?;
        Ok(())
    }

    async fn upload(&self, api: &mut Api, attachment: &Attachment) -> Result<(), Broken> {
        let item = json!({"AttachmentItem": {
            "attachmentType": "file",
            "name": attachment.name,
            "size": attachment.size_bytes,
            "contentType": attachment.media_type,
            "isInline": !attachment.content_id.is_empty(),
            "contentId": attachment.content_id,
        }});
        let path = ["messages", self.id, "attachments", "createUploadSession"];
        let session = api.ask(Step::Draft, Method::POST, &path, &[], Body::Json(item)).await?;
        let url = text(&session.body, "uploadUrl")?;
        let mut from = 0;
        for piece in self.pieces(attachment)? {
            let length = piece.len() as u64;
            upload(api, &url, piece, from, attachment.size_bytes).await?;
            from += length;
        }
        Ok(expect(attachment, from)?)
    }

    fn pieces(&self, attachment: &Attachment) -> Result<Decoded, Fault> {
        let beyond = || Fault::of(diagnosis::defect("an attachment stands beyond the mail"), Fate::Again);
        Decoded::of(self.raw, attachment, self.limits.range).ok_or_else(beyond)
    }
}

/// What is no base64 after all has fewer bytes than were counted.
fn expect(attachment: &Attachment, length: u64) -> Result<(), Fault> {
    if length == attachment.size_bytes {
        return Ok(());
    }
    Err(Fault::of(diagnosis::defect("an attachment has another length than was read"), Fate::Again))
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
