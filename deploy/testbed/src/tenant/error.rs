//! Refusals in the shape of Entra's token endpoint: what clients have to understand, and what operators will read.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

/// One refusal. Its number is the one that Entra gives it (`AADSTS` codes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The number behind `AADSTS`.
    pub code: u32,
    /// What is wrong, naming what the request named; never a secret.
    pub what: String,
}

/// Body of a refusal (RFC 6749 section 5.2 with Entra's additions).
#[derive(Debug, Serialize)]
pub(super) struct Body {
    error: &'static str,
    error_description: String,
    error_codes: [u32; 1],
    timestamp: String,
    trace_id: String,
    correlation_id: String,
    error_uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    suberror: Option<&'static str>,
}

impl Refusal {
    /// The refusal with this number and these details.
    pub fn new(code: u32, what: impl Into<String>) -> Self {
        Self { code, what: what.into() }
    }

    /// The OAuth error that this number comes with.
    pub fn error(&self) -> &'static str {
        match self.code {
            7_000_215 | 7_000_218 | 7_000_222 | 700_025 | 700_027 => "invalid_client",
            700_016 | 700_011 | 7_000_112 => "unauthorized_client",
            70_011 | 1_002_012 => "invalid_scope",
            500_011 => "invalid_resource",
            70_003 => "unsupported_grant_type",
            53_003 => "interaction_required",
            90_002 | 900_023 | 900_144 | 9_001_023 => "invalid_request",
            90_024 | 90_033 | 90_055 | 50_033 => "temporarily_unavailable",
            _ => "invalid_grant",
        }
    }

    /// The HTTP status that this number comes with.
    pub fn status(&self) -> u16 {
        match self.error() {
            "invalid_client" => 401,
            "temporarily_unavailable" => 503,
            _ => 400,
        }
    }

    fn suberror(&self) -> Option<&'static str> {
        match self.code {
            50_072 | 50_076 | 50_079 => Some("basic_action"),
            53_003 => Some("message_only"),
            65_001 => Some("consent_required"),
            _ => None,
        }
    }

    /// The body that says so at `now`; `correlation_id` is the client's, when it sent one.
    pub(super) fn body(&self, base: &str, correlation_id: Option<&str>, now: Timestamp) -> Body {
        let timestamp = now.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let trace_id = Uuid::new_v4().to_string();
        let correlation_id = correlation_id.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
        Body {
            error: self.error(),
            error_description: format!(
                "AADSTS{}: {} Trace ID: {trace_id} Correlation ID: {correlation_id} Timestamp: {timestamp}",
                self.code, self.what
            ),
            error_codes: [self.code],
            error_uri: format!("{base}/error?code={}", self.code),
            suberror: self.suberror(),
            timestamp,
            trace_id,
            correlation_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_the_shape_of_entra() {
        let refusal = Refusal::new(7_000_215, "The client secret is not the one of application 'a'.");
        let now: Timestamp = "2026-03-04T05:06:07Z".parse().unwrap();
        let body = serde_json::to_value(refusal.body("https://h:1", Some("c"), now)).unwrap();
        assert_eq!(body["error"], "invalid_client");
        assert_eq!(body["error_codes"], serde_json::json!([7_000_215]));
        assert_eq!(body["timestamp"], "2026-03-04 05:06:07Z");
        assert_eq!(body["correlation_id"], "c");
        assert_eq!(body["error_uri"], "https://h:1/error?code=7000215");
        let description = body["error_description"].as_str().unwrap();
        assert!(description.starts_with("AADSTS7000215: The client"), "{description}");
        let trace_id = body["trace_id"].as_str().unwrap();
        let end = format!(" Trace ID: {trace_id} Correlation ID: c Timestamp: 2026-03-04 05:06:07Z");
        assert!(description.ends_with(&end), "{description}");
        assert_eq!(body.get("suberror"), None);
        assert_eq!(refusal.status(), 401);
    }
}
