//! Refusals in the shape of Graph: what clients have to understand, and what operators will read.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderName, StatusCode, header};
use serde_json::json;
use uuid::Uuid;

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `error.code`.
    pub code: String,
    /// `error.message`.
    pub message: String,
    /// Header `Retry-After` in seconds.
    pub retry_after: Option<u64>,
}

impl Answer {
    /// A refusal with this code and these words.
    pub fn new(status: u16, code: &str, message: &str) -> Self {
        Self { status, code: code.to_owned(), message: message.to_owned(), retry_after: None }
    }

    /// The same, asking to stay away for so long.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// 401: the token is not taken.
    pub fn invalid_token(why: &str) -> Self {
        Self::new(401, "InvalidAuthenticationToken", why)
    }

    /// 403: the permission is missing, or a policy keeps the application from this mailbox.
    pub fn access_denied() -> Self {
        Self::new(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
    }

    /// 403: the From may not be used.
    pub fn send_as_denied() -> Self {
        let message = "The user account which was used to submit this request does not have the right to send mail on \
                       behalf of the specified sending account., Cannot submit message.";
        Self::new(403, "ErrorSendAsDenied", message)
    }

    /// 404: the user has a mailbox elsewhere, or none.
    pub fn no_mailbox() -> Self {
        let message = "The mailbox is either inactive, soft-deleted, or is hosted on-premise.";
        Self::new(404, "MailboxNotEnabledForRESTAPI", message)
    }

    /// 404: there is no such user.
    pub fn no_user(user: &str) -> Self {
        Self::new(404, "ErrorInvalidUser", &format!("The requested user '{user}' is invalid."))
    }

    /// 404: there is no such message.
    pub fn no_item() -> Self {
        Self::new(404, "ErrorItemNotFound", "The specified object was not found in the store.")
    }

    /// 413: the request is larger than 4 MB.
    pub fn request_too_large() -> Self {
        Self::new(413, "BadRequest", "Maximum request length exceeded.")
    }

    /// 413: the mail is larger than the mailbox may send.
    pub fn mail_too_large() -> Self {
        Self::new(413, "ErrorMessageSizeExceeded", "The message exceeds the maximum supported size.")
    }

    /// 400: nobody, or nobody whose address can be read, is to get it.
    pub fn no_recipients() -> Self {
        Self::new(400, "ErrorInvalidRecipients", "At least one recipient isn't valid.")
    }

    /// 429: too many requests at once, or too many mails.
    pub fn throttled(seconds: u64) -> Self {
        let message = "Application is over its MailboxConcurrency limit.";
        Self::new(429, "ApplicationThrottled", message).retry_after(seconds)
    }

    /// 503: not now.
    pub fn unavailable() -> Self {
        Self::new(503, "ServiceUnavailable", "The service is unavailable.")
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self::new(400, "BadRequest", message)
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let id = Uuid::new_v4().to_string();
        let error = json!({
            "code": self.code,
            "message": self.message,
            "innerError": {"date": jiff::Timestamp::now().to_string(), "request-id": id, "client-request-id": id},
        });
        let mut response = (status, Json(json!({"error": error}))).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Ok(id) = id.parse() {
            response.headers_mut().insert(HeaderName::from_static("request-id"), id);
        }
        response
    }
}
