//! Asks a token endpoint, and keeps what it says when it refuses.
//!
//! The `oauth2` crate builds the requests. Its own HTTP client, error type and token type are replaced: they lose the
//! AADSTS numbers, the HTTP status and `Retry-After`, and stumble over `expires_in` written as text.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use oauth2::basic::{BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType};
use oauth2::{
    AccessToken, AsyncHttpClient, AuthType, Client, ClientId, ClientSecret, ErrorResponse, HttpRequest, HttpResponse,
    RefreshToken, RequestTokenError, ResourceOwnerPassword, ResourceOwnerUsername, Scope, StandardRevocableToken,
    TokenUrl,
};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Credential, CredentialDigest, Grant, Token};
use crate::diagnosis::entra::{self, Refusal};
use crate::diagnosis::{self, Diagnosis};
use crate::http_client::{self, Content};

/// Life of a token whose endpoint does not say how long it lives.
const DEFAULT_LIFE: Duration = Duration::from_secs(3600);

/// A fresh token and how long it lives.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The token.
    pub token: Token,
    /// Life from now on.
    pub life: Duration,
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The endpoint refused.
    #[error("the token endpoint refused: {}", .0.error)]
    Refused(Box<Refusal>),
    /// Something else, already understood.
    #[error("{}", .0.cause)]
    Failed(Box<Diagnosis>),
}

impl Error {
    /// Cause and remedy.
    pub fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Refused(refusal) => entra::diagnose(refusal),
            Self::Failed(found) => found.as_ref().clone(),
        }
    }

    /// True when another try with the same password could lock the account.
    pub fn is_refused_password(&self) -> bool {
        matches!(self, Self::Refused(refusal) if entra::is_refused_password(refusal))
    }

    fn failed(found: Diagnosis) -> Self {
        Self::Failed(Box::new(found))
    }
}

/// Asks for one token.
///
/// `plain` allows an endpoint without TLS, for tests against a scripted one.
pub async fn request(
    credential: &Credential,
    tls: Arc<rustls::ClientConfig>,
    deadline: Duration,
    plain: bool,
) -> Result<Granted, Error> {
    let url = token_url(&credential.authority, plain)?;
    let host = url.url().host_str().unwrap_or_default().to_owned();
    let client = http_client::Client::new(&tls, &host, &credential.proxy, deadline, plain).map_err(Error::failed)?;
    let http = Http { client, deadline };
    ask(credential, url, &http).await
}

/// What is made of an answer, whatever asked for it: `status`, `Retry-After` in seconds, and the body.
pub async fn understand(status: u16, retry_after: Option<u64>, body: &[u8]) -> Result<Granted, Error> {
    const HOST: &str = "login.microsoftonline.com";
    let url = token_url(&format!("https://{HOST}/tenant"), false)?;
    let credential = Credential {
        authority: format!("https://{HOST}/tenant"),
        client_id: "client".into(),
        client_secret: "secret".to_owned().into(),
        scope: "scope".into(),
        grant: Grant::Service,
        ca_file: String::new(),
        proxy: String::new(),
        digest: CredentialDigest([0; 32]),
    };
    ask(&credential, url, &Answered { host: HOST, status, retry_after, body }).await
}

async fn ask<H>(credential: &Credential, url: TokenUrl, http: &H) -> Result<Granted, Error>
where
    H: for<'c> AsyncHttpClient<'c, Error = HttpError> + Sync,
{
    let host = url.url().host_str().unwrap_or_default().to_owned();
    let mut client: TokenClient = Client::new(ClientId::new(credential.client_id.clone()));
    let secret = credential.client_secret.expose_secret();
    if !secret.is_empty() {
        client = client.set_client_secret(ClientSecret::new(secret.to_owned()));
    }
    // Basic authentication would send id and secret form-encoded, which not every provider decodes.
    let client = client.set_auth_type(AuthType::RequestBody).set_token_uri(url);
    let scopes: Vec<Scope> = credential.scope.split_whitespace().map(|scope| Scope::new(scope.into())).collect();
    let answer = match &credential.grant {
        Grant::Service => client.exchange_client_credentials().add_scopes(scopes).request_async(http).await,
        Grant::User { account, password } => {
            let user = ResourceOwnerUsername::new(account.clone());
            let password = ResourceOwnerPassword::new(password.expose_secret().to_owned());
            client.exchange_password(&user, &password).add_scopes(scopes).request_async(http).await
        }
    };
    match answer {
        Ok(answer) => {
            let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
            Ok(Granted { token: Token::new(answer.access_token.into_secret()), life })
        }
        Err(RequestTokenError::ServerResponse(refusal)) => Err(Error::Refused(Box::new(refusal.into()))),
        Err(RequestTokenError::Request(HttpError(found))) => Err(Error::Failed(found)),
        // Neither the body nor the parser's text is passed on: both may hold a token.
        Err(RequestTokenError::Parse(..) | RequestTokenError::Other(_)) => {
            Err(Error::failed(diagnosis::strange_token_answer(&host)))
        }
    }
}

fn token_url(authority: &str, plain: bool) -> Result<TokenUrl, Error> {
    let text = format!("{}/oauth2/v2.0/token", authority.trim_end_matches('/'));
    let bad = |detail: &str| Error::failed(diagnosis::address_invalid(detail));
    let url = TokenUrl::new(text).map_err(|_| bad("is not a URL"))?;
    match url.url().scheme() {
        "https" => Ok(url),
        "http" if plain => Ok(url),
        _ => Err(bad("does not begin with https://")),
    }
}

type TokenClient<HasTokenUrl = oauth2::EndpointNotSet> = Client<
    RefusalBody,
    TokenBody,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    oauth2::EndpointNotSet,
    HasTokenUrl,
>;

/// RFC 6749 section 5.1, read leniently. `Serialize` is demanded by the crate and writes no secret.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct TokenBody {
    #[serde(skip_serializing)]
    access_token: AccessToken,
    #[serde(default, deserialize_with = "lenient_seconds")]
    expires_in: Option<u64>,
    #[serde(skip, default = "bearer")]
    token_type: BasicTokenType,
}

fn bearer() -> BasicTokenType {
    BasicTokenType::Bearer
}

impl oauth2::TokenResponse for TokenBody {
    type TokenType = BasicTokenType;

    fn access_token(&self) -> &AccessToken {
        &self.access_token
    }

    fn token_type(&self) -> &BasicTokenType {
        &self.token_type
    }

    fn expires_in(&self) -> Option<Duration> {
        self.expires_in.map(Duration::from_secs)
    }

    fn refresh_token(&self) -> Option<&RefreshToken> {
        None
    }

    fn scopes(&self) -> Option<&Vec<Scope>> {
        None
    }
}

/// Seconds as a number, a fraction or text. What makes no sense counts as not said.
fn lenient_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let seconds = match &value {
        serde_json::Value::Number(number) => number.as_f64(),
        serde_json::Value::String(text) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    // Ten years is longer than any token lives and far from overflow.
    Ok(seconds.filter(|s| s.is_finite()).map(|s| s.clamp(0.0, 315_360_000.0) as u64))
}

/// RFC 6749 section 5.2 with what Entra adds, and with the HTTP status that [`Http`] writes into the body.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct RefusalBody {
    error: serde_json::Value,
    error_description: serde_json::Value,
    error_codes: Vec<serde_json::Value>,
    suberror: serde_json::Value,
    trace_id: serde_json::Value,
    correlation_id: serde_json::Value,
    postroom_status: u16,
    postroom_retry_after: Option<u64>,
}

impl fmt::Display for RefusalBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)
    }
}

impl ErrorResponse for RefusalBody {}

impl From<RefusalBody> for Refusal {
    fn from(body: RefusalBody) -> Self {
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => text.clone(),
            // Some providers answer with an object: {"error": {"status": "…", "message": "…"}}
            serde_json::Value::Object(fields) => {
                let name = fields.get("status").or_else(|| fields.get("code")).or_else(|| fields.get("message"));
                name.and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
            }
            _ => String::new(),
        };
        let mut codes: Vec<u64> = body.error_codes.iter().filter_map(serde_json::Value::as_u64).collect();
        let description = text(&body.error_description);
        if codes.is_empty() {
            codes.extend(aadsts(&description));
        }
        Self {
            error: text(&body.error),
            description,
            codes,
            suberror: text(&body.suberror),
            trace_id: text(&body.trace_id),
            correlation_id: text(&body.correlation_id),
            status: body.postroom_status,
            retry_after: body.postroom_retry_after.map(Duration::from_secs),
        }
    }
}

/// The number of a text that begins with `AADSTS50126:`.
fn aadsts(description: &str) -> Option<u64> {
    let rest = description.strip_prefix("AADSTS")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What answers under the `oauth2` crate.
struct Http {
    client: http_client::Client,
    deadline: Duration,
}

/// What went wrong below the answer.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.cause)]
struct HttpError(Box<Diagnosis>);

impl Http {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = request.map(Content::from);
        let answer = self.client.exchange(request, self.deadline, "give a token").await;
        let answer = answer.map_err(|failed| HttpError(Box::new(failed.found)))?;
        if let Some(found) = answer.cut {
            return Err(HttpError(found));
        }
        let retry_after = answer.header("retry-after").and_then(|value| value.trim().parse::<u64>().ok());
        normalise(self.client.host(), answer.status, retry_after, &answer.body)
    }
}

/// Makes of any answer one that the crate reads as it should: 200 for a token, else 400, and never a media type.
fn normalise(host: &str, status: u16, retry_after: Option<u64>, body: &[u8]) -> Result<HttpResponse, HttpError> {
    let parsed: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(body).ok();
    let retry_after = retry_after.map(|seconds| seconds.min(3600));
    let Some(mut fields) = parsed else {
        let wait = retry_after.map(Duration::from_secs);
        return Err(HttpError(Box::new(match status {
            429 | 500.. => entra::of_status(host, status).after(wait),
            _ => diagnosis::strange_token_answer(host),
        })));
    };
    let granted = (200..300).contains(&status) && fields.contains_key("access_token");
    if !granted {
        fields.insert("postroom_status".into(), status.into());
        fields.insert("postroom_retry_after".into(), retry_after.into());
    }
    let body = serde_json::to_vec(&fields).unwrap_or_default();
    let mut answer = http::Response::new(body);
    *answer.status_mut() = if granted { http::StatusCode::OK } else { http::StatusCode::BAD_REQUEST };
    Ok(answer)
}

/// An answer that has come already.
struct Answered<'a> {
    host: &'a str,
    status: u16,
    retry_after: Option<u64>,
    body: &'a [u8],
}

impl<'c> AsyncHttpClient<'c> for Answered<'_> {
    type Error = HttpError;
    type Future = std::future::Ready<Result<HttpResponse, HttpError>>;

    fn call(&'c self, _request: HttpRequest) -> Self::Future {
        std::future::ready(normalise(self.host, self.status, self.retry_after, self.body))
    }
}

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_read_however_they_are_written() {
        for (text, want) in [
            (r#"{"access_token":"t","expires_in":3599}"#, Some(3599)),
            (r#"{"access_token":"t","expires_in":"3599"}"#, Some(3599)),
            (r#"{"access_token":"t","expires_in":3599.7}"#, Some(3599)),
            (r#"{"access_token":"t","expires_in":-5}"#, Some(0)),
            (r#"{"access_token":"t","expires_in":null,"scope":["a"]}"#, None),
            (r#"{"access_token":"t"}"#, None),
        ] {
            let body: TokenBody = serde_json::from_str(text).expect(text);
            assert_eq!(body.expires_in, want, "{text}");
        }
    }

    #[test]
    fn the_address_must_be_https() {
        assert!(token_url("https://login.contoso.example/t/", false).is_ok());
        for bad in ["http://login.contoso.example/t", "login.contoso.example", ""] {
            assert_eq!(token_url(bad, false).expect_err(bad).diagnosis().code, "ADDRESS_INVALID");
        }
    }

    #[test]
    fn numbers_are_found_in_the_text_when_nowhere_else() {
        assert_eq!(aadsts("AADSTS50126: Error validating credentials"), Some(50_126));
        assert_eq!(aadsts("invalid"), None);
    }
}
