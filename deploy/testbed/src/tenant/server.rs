//! The HTTP side: routes, decoding, and the order in which a request meets faults, decisions and counters.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Fault, Shared, token,
    users::{Directory, Request},
};
use crate::{authority::Authority, error::Result, tenant::Refusal, web};

pub(super) fn run(
    listener: TcpListener,
    authority: &Authority,
    shared: Arc<Shared>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<()> {
    let router = Router::new()
        .route("/{tenant}/oauth2/v2.0/token", post(answer_token))
        .route("/{tenant}/v2.0/.well-known/openid-configuration", get(answer_discovery))
        .with_state(shared);
    web::run(listener, authority, router, stop, tasks)
}

async fn answer_token(
    State(shared): State<Arc<Shared>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let now = Timestamp::now();
    let correlation_id = headers.get("client-request-id").and_then(|value| value.to_str().ok());
    let fields = fields(&headers, &body);
    let answer = {
        let mut state = shared.state();
        let answer = match state.faults.pop_front() {
            Some(Fault::Refuse(code)) => Answer::Refused(Refusal::new(code, "Refused on demand of the testbed.")),
            Some(fault) => Answer::Faulty(fault),
            None => match state.directory.decide(&Request { tenant: &tenant, fields: &fields }) {
                Ok(grant) => Answer::Granted(grant, state.lifetime, state.directory.id.clone()),
                Err(refusal) => Answer::Refused(refusal),
            },
        };
        let client = fields.get("client_id");
        for who in client.into_iter().chain(fields.get("username")) {
            let count = state.sign_ins.entry(who.to_lowercase()).or_default();
            match &answer {
                Answer::Granted(..) => count.issued += 1,
                Answer::Faulty(_) => count.refused += 1,
                Answer::Refused(refusal) => {
                    count.refused += 1;
                    count.last_code = refusal.code;
                }
            }
        }
        answer
    };
    match answer {
        Answer::Granted(grant, lifetime, id) => {
            match token::sign(&shared.key, &shared.base, &id, &grant, now, lifetime) {
                Ok(token) => no_store(Json(json!({
                    "token_type": "Bearer",
                    "expires_in": lifetime.as_secs(),
                    "ext_expires_in": lifetime.as_secs(),
                    "access_token": token,
                }))),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
            }
        }
        Answer::Refused(refusal) => {
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
            no_store((status, Json(refusal.body(&shared.base, correlation_id, now))))
        }
        Answer::Faulty(fault) => answer_fault(&shared, fault).await,
    }
}

async fn answer_discovery(State(shared): State<Arc<Shared>>, Path(tenant): Path<String>) -> Response {
    let id = Some(shared.state()).filter(|state| state.directory.is_called(&tenant)).map(|s| s.directory.id.clone());
    let base = &shared.base;
    match id {
        Some(id) => Json(json!({
            "issuer": format!("{base}/{id}/v2.0"),
            "token_endpoint": format!("{base}/{tenant}/oauth2/v2.0/token"),
            "authorization_endpoint": format!("{base}/{tenant}/oauth2/v2.0/authorize"),
            "device_authorization_endpoint": format!("{base}/{tenant}/oauth2/v2.0/devicecode"),
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        }))
        .into_response(),
        None => {
            let body = Directory::not_found(&tenant).body(base, None, Timestamp::now());
            (StatusCode::BAD_REQUEST, Json(body)).into_response()
        }
    }
}

async fn answer_fault(shared: &Shared, fault: Fault) -> Response {
    match fault {
        Fault::Status(status, retry_after) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            let mut response = (status, "a fault of the testbed").into_response();
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
        Fault::Cut => {
            let start = Ok(Bytes::from_static(b"{\"token_type\":\"Bearer\","));
            let parts = [start, Err(std::io::Error::other("cut off by the testbed"))];
            let body = Body::from_stream(futures::stream::iter(parts));
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Fault::Hang | Fault::Refuse(_) => {
            shared.stop.cancelled().await;
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

enum Answer {
    Granted(super::users::Grant, std::time::Duration, String),
    Refused(Refusal),
    Faulty(Fault),
}

fn no_store(response: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")], response).into_response()
}

/// The fields of the form; client id and secret may come by HTTP Basic instead (RFC 6749 section 2.3.1).
fn fields(headers: &HeaderMap, body: &[u8]) -> HashMap<String, String> {
    let mut fields: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
    if let Some((id, secret)) = basic(headers) {
        fields.insert("client_id".to_owned(), id);
        fields.insert("client_secret".to_owned(), secret);
    }
    fields
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let encoded = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let pair = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((decoded(id), decoded(secret)))
}

/// Undoes the form encoding that both halves of HTTP Basic have in OAuth.
fn decoded(text: &str) -> String {
    url::form_urlencoded::parse(format!("={text}").as_bytes()).map(|(_, value)| value.into_owned()).collect()
}
