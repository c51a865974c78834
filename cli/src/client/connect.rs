//! How a connection is made, and what its failures mean.

use std::error::Error as StdError;
use std::fs;
use std::io;
use std::time::Duration;

use data_encoding::BASE64;
use postroom_proto::reason::Failure;
use secrecy::ExposeSecret as _;
use tonic::Status;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use url::{Host, Url};

use super::{Bearer, Client, DEADLINE, Error};
use crate::context::Context;
use crate::progress::Progress;

impl Client {
    /// Prepares a connection; plaintext beyond this machine only if `insecure`. Nothing is sent yet.
    pub fn new(context: &Context, insecure: bool) -> Result<Self, Error> {
        let endpoint = context.endpoint.trim_end_matches('/');
        let setup = |message: String, help: &str| Error::Setup { message, help: help.into() };
        let wrong = |detail: &dyn std::fmt::Display| {
            setup(format!("{endpoint:?} is no endpoint: {detail}"), "write https://host:port")
        };
        let url = Url::parse(endpoint).map_err(|error| wrong(&error))?;
        let mut channel = Endpoint::from_shared(endpoint.to_owned()).map_err(|error| wrong(&error))?;
        match url.scheme() {
            "https" => channel = channel.tls_config(tls(context)?).map_err(|error| wrong(&innermost(&error)))?,
            "http" if insecure || is_loopback(&url) => {}
            "http" => {
                return Err(setup(
                    format!("{endpoint} would send the token and mail in clear over the network"),
                    "use https://, or allow it by --insecure",
                ));
            }
            _ => return Err(wrong(&"it starts neither with https:// nor http://")),
        }
        let channel = channel
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            // The only way to notice that the other side vanished without a word.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .user_agent(concat!("postroom/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| wrong(&error))?
            .connect_lazy();
        let mut bearer: tonic::metadata::MetadataValue<_> =
            format!("Bearer {}", context.token.expose_secret()).parse().map_err(|_| {
                setup(
                    "the token holds characters that no token has".into(),
                    "write the token and nothing else into its file",
                )
            })?;
        bearer.set_sensitive(true);
        Ok(Self {
            endpoint: endpoint.into(),
            channel,
            bearer: Bearer(bearer),
            deadline: DEADLINE,
            progress: Progress::none(),
        })
    }
}

/// What a status means for the caller.
pub(super) fn classify(endpoint: &str, status: &Status) -> Error {
    if let Some(failure) = Failure::from_status(status) {
        return Error::Answered { failure };
    }
    let endpoint = endpoint.to_owned();
    if let Some(tls) = tls_error(status) {
        return match tls {
            rustls::Error::InvalidCertificate(detail) => Error::Untrusted { endpoint, detail: detail.to_string() },
            // The first bytes were no TLS record: a plaintext port greets, or answers with a line of its own.
            rustls::Error::InvalidMessage(_) => Error::NoTls { endpoint },
            other => Error::Unreachable { endpoint, detail: other.to_string() },
        };
    }
    if is_transport(status) {
        return Error::Unreachable { endpoint, detail: innermost(status) };
    }
    Error::Foreign { endpoint, code: status.code(), message: status.message().into() }
}

/// True when the status was made on this side, because there was no connection or it broke.
pub(super) fn is_transport(status: &Status) -> bool {
    status.source().is_some()
}

/// True when the other side's certificate is at fault, which no second try mends.
pub(super) fn is_untrusted(status: &Status) -> bool {
    matches!(tls_error(status), Some(rustls::Error::InvalidCertificate(_)))
}

fn tls_error(status: &Status) -> Option<&rustls::Error> {
    causes(status).find_map(|cause| cause.downcast_ref())
}

/// The text of the innermost cause: the outer ones only say "transport error".
fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

/// The error and everything below it. An `io::Error` hides what it wraps from `source`.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| {
        let error: &'a (dyn StdError + 'static) = *error;
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn StdError + 'static)).or_else(|| error.source())
    })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn tls(context: &Context) -> Result<ClientTlsConfig, Error> {
    let pem = match &context.ca_file {
        Some(path) => fs::read(path).map_err(|error| Error::Setup {
            message: format!("cannot read the CA file {}: {error}", path.display()),
            help: "name a readable PEM file by --ca-file FILE".into(),
        })?,
        None => system_roots(),
    };
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
}

/// The system's CA certificates as PEM. What cannot be read is left out: an unknown CA is told when it matters.
fn system_roots() -> Vec<u8> {
    let mut pem = String::new();
    for certificate in rustls_native_certs::load_native_certs().certs {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = BASE64.encode(&certificate);
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(endpoint: &str) -> Context {
        Context { endpoint: endpoint.into(), ca_file: None, token: "planted".into() }
    }

    #[tokio::test]
    async fn the_token_goes_in_clear_only_over_loopback() {
        for endpoint in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1/"] {
            assert!(Client::new(&context(endpoint), false).is_ok(), "{endpoint}");
        }
        for endpoint in ["http://192.0.2.1:1", "http://localhost.example:1"] {
            assert!(matches!(Client::new(&context(endpoint), false), Err(Error::Setup { .. })), "{endpoint}");
            assert!(Client::new(&context(endpoint), true).is_ok(), "{endpoint}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_is_none_is_refused() {
        for endpoint in ["", "localhost:7430", "ftp://localhost", "https://"] {
            assert!(matches!(Client::new(&context(endpoint), true), Err(Error::Setup { .. })), "{endpoint}");
        }
    }

    #[tokio::test]
    async fn the_token_is_not_printed() {
        let client = Client::new(&context("http://127.0.0.1:1"), false).unwrap();
        assert!(!format!("{client:?}").contains("planted"));
    }
}
