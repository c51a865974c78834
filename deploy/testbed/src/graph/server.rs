//! Routes, and the order in which a request meets tokens, permissions, limits, orders and the work itself.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Accepted, LARGEST_REQUEST, Shared, Step,
    answer::Answer,
    drafts::{Draft, Progress},
    mime::{self, Attachment},
};
use crate::{
    script::Met,
    tenant::{GRAPH, Permission, Unfit},
    web::CutOff,
};

type Served = std::result::Result<Response, Answer>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1.0/users/{user}/sendMail", post(send_mail))
        .route("/v1.0/users/{user}/messages", post(create_draft).get(search))
        .route("/v1.0/users/{user}/mailFolders/{folder}/messages", get(search_folder))
        .route("/v1.0/users/{user}/messages/{id}", get(show).delete(remove_draft).patch(change_draft))
        .route("/v1.0/users/{user}/messages/{id}/send", post(send_draft))
        .route("/v1.0/users/{user}/messages/{id}/attachments", post(attach))
        .route("/v1.0/users/{user}/messages/{id}/attachments/createUploadSession", post(begin_upload))
        .route("/upload/{session}", put(upload).get(upload_state))
        // Read whole, so that a client hears that its request was too large, and is not just hung up on.
        .layer(DefaultBodyLimit::max(LARGEST_REQUEST * 16))
        .with_state(shared)
}

/// A request that was let in. Dropping it ends its part of the limits.
struct Entered {
    shared: Arc<Shared>,
    app: String,
    mailbox: String,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.shared.state().limits.end(&self.app, &self.mailbox);
    }
}

impl Entered {
    /// Lets a request in that has a token for this permission and this mailbox.
    fn enter(
        shared: &Arc<Shared>,
        user: &str,
        headers: &HeaderMap,
        needs: Permission,
        body: usize,
    ) -> Result<Self, Answer> {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer "));
        let token = token.ok_or_else(|| Answer::invalid_token("Access token is empty."))?;
        let bearer = shared.judge.bearer(token, GRAPH).map_err(|unfit| {
            Answer::invalid_token(match unfit {
                Unfit::Expired => "Lifetime validation failed, the token is expired.",
                Unfit::Audience => "Access token validation failure. Invalid audience.",
                Unfit::Forged => "Invalid access token.",
            })
        })?;
        let mailbox = shared.judge.mailbox(user).ok_or_else(|| Answer::no_user(user))?;
        let is_own = bearer.upn.as_deref().is_none_or(|upn| bearer.full_access || upn == mailbox);
        if !is_own || !(bearer.may(needs.role()) || bearer.may(needs.scope())) {
            return Err(Answer::access_denied());
        }
        if body > LARGEST_REQUEST {
            return Err(Answer::request_too_large());
        }
        if !shared.state().limits.begin(&bearer.appid, &mailbox) {
            return Err(Answer::throttled(1));
        }
        Ok(Self { shared: Arc::clone(shared), app: bearer.appid, mailbox })
    }

    async fn step(&self, step: Step) -> Result<(), Stopped> {
        match self.shared.script.meet(step, &self.mailbox).await {
            Met::Nothing => Ok(()),
            Met::Answer(answer) => Err(Stopped::Answer(answer)),
            Met::Cut => Err(Stopped::Cut),
        }
    }

    /// Sends a mail, and answers 202.
    async fn send(&self, mail: &[u8], from: &str, was_draft: bool) -> Result<Response, Stopped> {
        self.step(Step::Send).await?;
        let as_another = (self.mailbox.to_lowercase(), from.to_lowercase());
        if as_another.0 != as_another.1 && !self.shared.state().send_as.contains(&as_another) {
            return Err(Answer::send_as_denied().into());
        }
        let mime::Head { message_id, recipients, .. } = mime::head(mail);
        if recipients.is_empty() || recipients.iter().any(|recipient| !recipient.contains('@')) {
            return Err(Answer::no_recipients().into());
        }
        let keeps_copy = {
            let mut state = self.shared.state();
            if mail.len() > state.largest_mail {
                return Err(Answer::mail_too_large().into());
            }
            let taken = state.limits.take(&self.mailbox, Instant::now());
            // Whole seconds, and enough of them.
            taken.map_err(|left| Answer::throttled((left + Duration::from_millis(999)).as_secs().max(1)))?;
            state.keeps_copy
        };
        let delivered = self.shared.deliverer.deliver(&self.mailbox, from, mail, &recipients, keeps_copy).await;
        delivered.map_err(|error| Answer::new(500, "ErrorInternalServerError", &error.to_string()))?;
        let (mailbox, from, at) = (self.mailbox.clone(), from.to_owned(), Instant::now());
        self.shared.state().accepted.push(Accepted { mailbox, from, message_id, recipients, was_draft, at });
        self.step(Step::Accepted).await?;
        Ok(StatusCode::ACCEPTED.into_response())
    }
}

/// Why a request ends before its work is done.
enum Stopped {
    Answer(Answer),
    Cut,
}

impl From<Answer> for Stopped {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

fn end(outcome: Result<Response, Stopped>) -> Response {
    match outcome {
        Ok(response) => response,
        Err(Stopped::Answer(answer)) => answer.into_response(),
        Err(Stopped::Cut) => {
            let mut response = StatusCode::SERVICE_UNAVAILABLE.into_response();
            response.extensions_mut().insert(CutOff);
            response
        }
    }
}

/// Does the work as a task of its own: a client that goes away does not end it.
async fn apart(
    shared: &Arc<Shared>,
    work: impl Future<Output = Result<Response, Stopped>> + Send + 'static,
) -> Response {
    match shared.tasks.spawn(work).await {
        Ok(outcome) => end(outcome),
        Err(error) => Answer::new(500, "ErrorInternalServerError", &error.to_string()).into_response(),
    }
}

async fn send_mail(
    State(shared): State<Arc<Shared>>,
    Path(user): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let entered = match Entered::enter(&shared, &user, &headers, Permission::GraphSend, body.len()) {
        Ok(entered) => entered,
        Err(answer) => return answer.into_response(),
    };
    apart(&shared, async move {
        let mail = match content_type(&headers).as_str() {
            "text/plain" => from_base64(&body)?,
            "application/json" => from_json(&body)?,
            _ => return Err(Answer::new(415, "UnsupportedMediaType", "Write text/plain or application/json.").into()),
        };
        entered.send(&mail, &entered.mailbox, false).await
    })
    .await
}

async fn create_draft(
    State(shared): State<Arc<Shared>>,
    Path(user): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let made = async {
        let entered = Entered::enter(&shared, &user, &headers, Permission::GraphReadWrite, body.len())?;
        entered.step(Step::Draft).await?;
        if content_type(&headers) != "text/plain" {
            return Err(Answer::new(501, "NotImplemented", "The testbed takes drafts as MIME only.").into());
        }
        let mail = from_base64(&body)?;
        let mime::Head { message_id, .. } = mime::head(&mail);
        let mailbox = entered.mailbox.clone();
        let from = mailbox.clone();
        let draft = Draft { mailbox, message_id, mail, from, attachments: Vec::new(), is_sent: false };
        let (id, shown) = {
            let mut state = shared.state();
            let id = state.drafts.add(draft);
            let shown = state.drafts.get(&entered.mailbox, &id).map(|draft| shown(&id, draft))?;
            (id, shown)
        };
        let location = format!("{}/v1.0/users/{user}/messages/{id}", shared.base);
        Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(shown)).into_response())
    };
    end(made.await)
}

async fn send_draft(
    State(shared): State<Arc<Shared>>,
    Path((user, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let entered = match Entered::enter(&shared, &user, &headers, Permission::GraphSend, 0) {
        Ok(entered) => entered,
        Err(answer) => return answer.into_response(),
    };
    apart(&shared, async move {
        let draft = entered.shared.state().drafts.unsent(&entered.mailbox, &id)?.clone();
        let mail = mime::with_attachments(&draft.mail, &draft.attachments);
        let outcome = entered.send(&mail, &draft.from, true).await;
        let is_taken =
            entered.shared.state().accepted.iter().any(|one| one.was_draft && one.message_id == draft.message_id);
        if is_taken {
            entered.shared.state().drafts.unsent(&entered.mailbox, &id)?.is_sent = true;
        }
        outcome
    })
    .await
}

/// Recipients and From of a draft.
async fn change_draft(
    State(shared): State<Arc<Shared>>,
    Path((user, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Served {
    let entered = Entered::enter(&shared, &user, &headers, Permission::GraphReadWrite, body.len())?;
    let change = read_json::<Value>(&headers, &body)?;
    let address = |one: &Value| one["emailAddress"]["address"].as_str().map(str::to_owned);
    let mut state = shared.state();
    let draft = state.drafts.unsent(&entered.mailbox, &id)?;
    for (field, name) in [("toRecipients", "To"), ("ccRecipients", "Cc"), ("bccRecipients", "Bcc")] {
        let Some(all) = change[field].as_array() else { continue };
        let all: Option<Vec<String>> = all.iter().map(|one| address(one).map(|it| format!("<{it}>"))).collect();
        draft.mail = mime::addressed(&draft.mail, name, &all.ok_or_else(Answer::no_recipients)?);
    }
    if let Some(from) = address(&change["from"]) {
        draft.from = from;
    }
    let shown = shown(&id, draft);
    Ok(Json(shown).into_response())
}

async fn remove_draft(
    State(shared): State<Arc<Shared>>,
    Path((user, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Served {
    let entered = Entered::enter(&shared, &user, &headers, Permission::GraphReadWrite, 0)?;
    shared.state().drafts.remove(&entered.mailbox, &id)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn show(
    State(shared): State<Arc<Shared>>,
    Path((user, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Served {
    let entered = Entered::enter(&shared, &user, &headers, Permission::GraphReadWrite, 0)?;
    let state = shared.state();
    Ok(Json(shown(&id, state.drafts.get(&entered.mailbox, &id)?)).into_response())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileAttachment {
    name: String,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    content_id: Option<String>,
    #[serde(default)]
    is_inline: Option<bool>,
    /// Of an attachment that comes with its bytes.
    #[serde(default)]
    content_bytes: Option<String>,
    /// Of one that is to be uploaded.
    #[serde(default)]
    size: usize,
}

#[derive(Deserialize)]
struct UploadRequest {
    #[serde(rename = "AttachmentItem")]
    item: FileAttachment,
}

impl FileAttachment {
    fn attachment(&self) -> Result<Attachment, Answer> {
        let content = match &self.content_bytes {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| Answer::bad_request("contentBytes is no base64."))?,
            None => Vec::new(),
        };
        Ok(Attachment {
            name: self.name.clone(),
            media_type: self.content_type.clone().unwrap_or_default(),
            content_id: self.content_id.clone().unwrap_or_default(),
            is_inline: self.is_inline.unwrap_or_default(),
            content,
        })
    }
}

async fn attach(
    State(shared): State<Arc<Shared>>,
    Path((user, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let attached = async {
        let entered = Entered::enter(&shared, &user, &headers, Permission::GraphReadWrite, body.len())?;
        entered.step(Step::Attach).await?;
        let attachment = read_json::<FileAttachment>(&headers, &body)?.attachment()?;
        if attachment.content.len() > super::UPLOAD_FROM {
            return Err(Answer::new(413, "ErrorAttachmentSizeLimitExceeded", "The attachment is too large.").into());
        }
        let name = attachment.name.clone();
        shared.state().drafts.unsent(&entered.mailbox, &id)?.attachments.push(attachment);
        Ok((StatusCode::CREATED, Json(json!({"name": name}))).into_response())
    };
    end(attached.await)
}

async fn begin_upload(
    State(shared): State<Arc<Shared>>,
    Path((user, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let begun = async {
        let entered = Entered::enter(&shared, &user, &headers, Permission::GraphReadWrite, body.len())?;
        entered.step(Step::Attach).await?;
        let item = read_json::<UploadRequest>(&headers, &body)?.item;
        let session = shared.state().drafts.begin(&entered.mailbox, &id, item.size, item.attachment()?)?;
        let url = format!("{}/upload/{session}?authtoken={session}", shared.base);
        Ok((StatusCode::CREATED, Json(json!({"uploadUrl": url, "nextExpectedRanges": ["0-"]}))).into_response())
    };
    end(begun.await)
}

async fn upload(
    State(shared): State<Arc<Shared>>,
    Path(session): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let uploaded = async {
        if headers.contains_key(header::AUTHORIZATION) {
            return Err(Answer::new(401, "Unauthorized", "The upload URL is authorized: send no Authorization.").into());
        }
        match shared.script.meet(Step::Upload, "").await {
            Met::Nothing => {}
            Met::Answer(answer) => return Err(answer.into()),
            Met::Cut => return Err(Stopped::Cut),
        }
        let range = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match shared.state().drafts.put(&session, range, &body)? {
            Progress::Next(byte) => Ok(Json(json!({"nextExpectedRanges": [byte.to_string()]})).into_response()),
            Progress::Done => Ok(StatusCode::CREATED.into_response()),
        }
    };
    end(uploaded.await)
}

async fn upload_state(State(shared): State<Arc<Shared>>, Path(session): Path<String>) -> Served {
    let next = shared.state().drafts.next(&session)?;
    Ok(Json(json!({"nextExpectedRanges": [next.to_string()]})).into_response())
}

#[derive(Deserialize)]
struct Filter {
    #[serde(rename = "$filter", default)]
    filter: String,
}

async fn search(
    State(shared): State<Arc<Shared>>,
    Path(user): Path<String>,
    Query(query): Query<Filter>,
    headers: HeaderMap,
) -> Response {
    end(find(&shared, &user, &query, &headers, true).await)
}

async fn search_folder(
    State(shared): State<Arc<Shared>>,
    Path((user, folder)): Path<(String, String)>,
    Query(query): Query<Filter>,
    headers: HeaderMap,
) -> Response {
    if !folder.eq_ignore_ascii_case("sentitems") {
        return Answer::no_item().into_response();
    }
    end(find(&shared, &user, &query, &headers, false).await)
}

/// The messages with the Message-ID of the filter: in Sent Items, and among the drafts.
async fn find(
    shared: &Arc<Shared>,
    user: &str,
    query: &Filter,
    headers: &HeaderMap,
    with_drafts: bool,
) -> Result<Response, Stopped> {
    let entered = Entered::enter(shared, user, headers, Permission::GraphReadWrite, 0)?;
    entered.step(Step::Search).await?;
    let id = wanted_id(&query.filter)
        .ok_or_else(|| Answer::new(400, "ErrorInvalidUrlQueryFilter", "Filter by internetMessageId eq '…'."))?;
    let found = shared.deliverer.sent(&entered.mailbox, &id).await;
    let found = found.map_err(|error| Answer::new(500, "ErrorInternalServerError", &error.to_string()))?;
    let message = |item: String, is_draft: bool| {
        json!({"id": item, "internetMessageId": format!("<{id}>"), "isDraft": is_draft,
               "parentFolderId": if is_draft { "drafts" } else { "sentitems" }})
    };
    let mut value: Vec<Value> = found.into_iter().map(|uid| message(format!("sent-{uid}"), false)).collect();
    if with_drafts {
        let drafts = shared.state().drafts.find(&entered.mailbox, &id);
        value.extend(drafts.into_iter().map(|draft| message(draft, true)));
    }
    Ok(Json(json!({"value": value})).into_response())
}

/// The Message-ID, without brackets, in `internetMessageId eq '<…>'`.
fn wanted_id(filter: &str) -> Option<String> {
    let quoted = filter.trim().strip_prefix("internetMessageId")?.trim_start().strip_prefix("eq")?.trim();
    let id = quoted.strip_prefix('\'')?.strip_suffix('\'')?.replace("''", "'");
    Some(id.trim_start_matches('<').trim_end_matches('>').to_owned())
}

fn shown(id: &str, draft: &Draft) -> Value {
    json!({
        "id": id,
        "internetMessageId": format!("<{}>", draft.message_id),
        "isDraft": !draft.is_sent,
        "from": {"emailAddress": {"address": draft.from}},
        "parentFolderId": if draft.is_sent { "sentitems" } else { "drafts" },
        "hasAttachments": !draft.attachments.is_empty(),
    })
}

/// The media type, without its parameters.
fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn from_base64(body: &[u8]) -> Result<Vec<u8>, Answer> {
    let encoded: Vec<u8> = body.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let mail = STANDARD.decode(encoded).ok().filter(|mail| !mail.is_empty());
    mail.ok_or_else(|| {
        let message = "Invalid base64 string for MIME content.";
        Answer::new(400, "ErrorMimeContentInvalidBase64String", message)
    })
}

fn read_json<T: for<'a> Deserialize<'a>>(headers: &HeaderMap, body: &[u8]) -> Result<T, Answer> {
    if content_type(headers) != "application/json" {
        return Err(Answer::new(415, "UnsupportedMediaType", "Write application/json."));
    }
    serde_json::from_slice(body).map_err(|error| Answer::bad_request(&format!("Unable to read JSON: {error}")))
}

/// The mail that a JSON request describes. Graph gives it a Message-ID of its own.
fn from_json(body: &[u8]) -> Result<Vec<u8>, Answer> {
    let request: Value =
        serde_json::from_slice(body).map_err(|error| Answer::bad_request(&format!("Unable to read JSON: {error}")))?;
    let message = &request["message"];
    let content = message["body"]["content"].as_str();
    let (Some(recipients), Some(content)) = (message["toRecipients"].as_array(), content) else {
        return Err(Answer::bad_request("The property 'message' is not as it must be."));
    };
    let addresses: Option<Vec<String>> = recipients
        .iter()
        .map(|it| it["emailAddress"]["address"].as_str().map(|address| format!("<{address}>")))
        .collect();
    let to = addresses.ok_or_else(Answer::no_recipients)?.join(", ");
    let subject = message["subject"].as_str().unwrap_or_default();
    let (id, kind) = (uuid::Uuid::new_v4(), message["body"]["contentType"].as_str().unwrap_or("text"));
    let kind = if kind.eq_ignore_ascii_case("html") { "html" } else { "plain" };
    let encoded = STANDARD.encode(content);
    Ok(format!(
        "To: {to}\r\nSubject: {subject}\r\nMessage-ID: <{id}@testbed.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n{encoded}\r\n"
    )
    .into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_a_message_id() {
        assert_eq!(wanted_id("internetMessageId eq '<a''b@x>'").as_deref(), Some("a'b@x"));
        assert_eq!(wanted_id("internetMessageId eq 'c@x'").as_deref(), Some("c@x"));
        assert_eq!(wanted_id("subject eq 'c'"), None);
        assert_eq!(wanted_id(""), None);
    }

    #[test]
    fn only_base64_is_mime() {
        assert_eq!(from_base64(b"QQ==\r\n").unwrap(), b"A");
        for wrong in [&b"\"QQ==\""[..], b"From: a", b""] {
            assert_eq!(from_base64(wrong).unwrap_err().code, "ErrorMimeContentInvalidBase64String");
        }
    }

    #[test]
    fn json_is_taken_when_it_says_enough() {
        let good = br#"{"message": {"subject": "S", "body": {"content": "Hi"},
            "toRecipients": [{"emailAddress": {"address": "a@b.example"}}]}}"#;
        assert_eq!(mime::head(&from_json(good).unwrap()).recipients, ["a@b.example"]);
        for wrong in [&b"{"[..], br#""TUlNRQ==""#, br#"{"message": {"toRecipients": []}}"#] {
            assert_eq!(from_json(wrong).unwrap_err().status, 400);
        }
    }
}
