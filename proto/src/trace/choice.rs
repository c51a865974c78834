//! What an operator may set of traces, the same in every process.

use std::path::PathBuf;

use crate::settings::{Default, Setting, Settings, form};

/// Which part of all is told, unless it is said.
pub const SHARE: &str = "0.01";

/// `trace.endpoint`.
pub const ENDPOINT_SETTING: Setting = Setting {
    name: "trace.endpoint",
    value: "URL",
    default: Default::Nothing("no traces"),
    help: "Collector that takes traces over OTLP/gRPC: http://HOST:4317 or https://HOST:4317",
};

/// `trace.share`.
pub const SHARE_SETTING: Setting = Setting {
    name: "trace.share",
    value: "SHARE",
    default: Default::Is(SHARE),
    help: "Which part of all contacts and calls is traced, from 0 to 1; the same in every process",
};

/// `trace.ca-file`.
pub const CA_FILE_SETTING: Setting = Setting {
    name: "trace.ca-file",
    value: "FILE",
    default: Default::Nothing("the CA certificates of the system"),
    help: "PEM file with the CA certificates to trust for the collector",
};

/// Where traces go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// URL of the collector.
    pub endpoint: String,
    /// Which part of all contacts and calls is told, from 0 to 1.
    pub share: f64,
    /// CA certificates to trust for it. `None`: those of the system.
    pub ca_file: Option<PathBuf>,
}

/// What the three settings make. `None`: no traces.
pub fn read(settings: &mut Settings) -> Option<Choice> {
    let endpoint = settings.optional(ENDPOINT_SETTING.name, endpoint);
    let share = settings.value(SHARE_SETTING.name, form::share);
    let ca_file = settings.path(CA_FILE_SETTING.name);
    endpoint.map(|endpoint| Choice { endpoint, share, ca_file })
}

/// The URL of a collector.
pub fn endpoint(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is no URL of a collector; write one such as http://127.0.0.1:4317");
    let uri = text.parse::<tonic::codegen::http::Uri>().map_err(|_| wrong())?;
    let fits = matches!(uri.scheme_str(), Some("http" | "https")) && matches!(uri.path(), "/" | "");
    if fits && uri.host().is_some_and(|host| !host.is_empty()) { Ok(text.into()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_are_named_by_http_urls() {
        for good in ["http://127.0.0.1:4317", "https://otel.example.org:4317/", "http://[::1]:4317"] {
            assert_eq!(endpoint(good).as_deref(), Ok(good));
        }
        for wrong in ["", "otel:4317", "grpc://otel:4317", "http://", "http://otel:4317/v1/traces"] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
