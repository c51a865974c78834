//! A bucket of a server that speaks S3.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{Certificate, ClientOptions, HttpError};
use object_store::path::Path as Name;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, GetOptions, ObjectStore, ObjectStoreExt as _, RetryConfig};
use secrecy::ExposeSecret as _;

use super::choice::S3Settings;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest silence of the server, also while it takes in a part.
const SILENCE: Duration = Duration::from_secs(20);
/// How often a request is sent again, and for how long. Workers wait two minutes for a whole body and try again later.
const RETRIES: usize = 4;
const RETRIES_WITHIN: Duration = Duration::from_secs(20);
/// Longest look at the bucket when the control plane starts.
const LOOK: Duration = Duration::from_secs(10);
/// What is written into a bucket to see that this is allowed.
const PROBE: &str = "postroom-probe";
/// Longest text of a server that is told.
const LONGEST_WORDS: usize = 300;

/// Why a bucket is refused at the start.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The file of certificates cannot be used.
    #[error("{file} cannot be used: {why}; name a PEM file with CA certificates by --blobs-ca-file")]
    CaFile {
        /// The file.
        file: std::path::PathBuf,
        /// Why.
        why: String,
    },
    /// The settings make no client.
    #[error("the settings of bucket {bucket} cannot be used: {why}")]
    Settings {
        /// The bucket.
        bucket: String,
        /// Why.
        why: String,
    },
    /// There is no such bucket.
    #[error("there is no bucket {bucket} at {server}: create it, or name another by --blobs-url ({why})")]
    NoBucket {
        /// The bucket.
        bucket: String,
        /// Where it was looked for.
        server: String,
        /// What the server said.
        why: String,
    },
    /// The key may not write there.
    #[error(
        "bucket {bucket} at {server} refuses access key {access_key}: see that its secret is right, and that it may read \
         and write objects there ({why})"
    )]
    Access {
        /// The bucket.
        bucket: String,
        /// Where it is.
        server: String,
        /// The id of the key.
        access_key: String,
        /// What the server said.
        why: String,
    },
    /// The server does not take what is sent.
    #[error("bucket {bucket} at {server} cannot be used: {why}; see --blobs-endpoint and --blobs-region")]
    Unfit {
        /// The bucket.
        bucket: String,
        /// Where it is.
        server: String,
        /// What the server said.
        why: String,
    },
}

/// Opens the bucket; says nothing to the server yet.
pub(super) fn open(settings: &S3Settings) -> Result<Arc<dyn ObjectStore>, Refused> {
    // The client takes the provider of the process; whoever was first has installed the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut options = ClientOptions::new()
        .with_connect_timeout(CONNECT)
        .with_read_timeout(SILENCE)
        // A whole body may take longer than any fixed time; what counts is that it goes on.
        .with_timeout_disabled()
        .with_allow_http(settings.endpoint.as_ref().is_some_and(|url| url.scheme() == "http"));
    for certificate in certificates(settings)? {
        options = options.with_root_certificate(certificate);
    }
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(5),
            ..BackoffConfig::default()
        },
        max_retries: RETRIES,
        retry_timeout: RETRIES_WITHIN,
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_access_key_id(&settings.access_key)
        .with_secret_access_key(settings.secret_key.expose_secret())
        .with_client_options(options)
        .with_retry(retry);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
    }
    let bucket =
        builder.build().map_err(|error| Refused::Settings { bucket: settings.bucket.clone(), why: words(&error) })?;
    Ok(below(bucket, &settings.prefix))
}

fn below(bucket: AmazonS3, prefix: &str) -> Arc<dyn ObjectStore> {
    if prefix.is_empty() { Arc::new(bucket) } else { Arc::new(PrefixStore::new(bucket, prefix)) }
}

fn certificates(settings: &S3Settings) -> Result<Vec<Certificate>, Refused> {
    let Some(file) = &settings.ca_file else { return Ok(Vec::new()) };
    let unfit = |why: String| Refused::CaFile { file: file.clone(), why };
    let text = std::fs::read(file).map_err(|error| unfit(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&text).map_err(|error| unfit(error.to_string()))?;
    if found.is_empty() { Err(unfit("there is no certificate in it".into())) } else { Ok(found) }
}

/// Writes and reads something small, so that what somebody has to mend shows at the start. A server that is away is no
/// reason not to start: `Ok` then holds its words.
pub(super) async fn probe(store: &dyn ObjectStore, settings: &S3Settings) -> Result<Option<String>, Refused> {
    let name = Name::from(PROBE);
    let looked = tokio::time::timeout(LOOK, async {
        store.put(&name, PROBE.into()).await?;
        store.get_opts(&name, GetOptions::default()).await?.bytes().await
    });
    let error = match looked.await {
        Ok(Ok(_)) => return Ok(None),
        Ok(Err(error)) => error,
        Err(_) => return Ok(Some(format!("it has not answered within {LOOK:?}"))),
    };
    let why = words(&error);
    if is_away(&error) {
        return Ok(Some(why));
    }
    let bucket = settings.bucket.clone();
    let server = settings
        .endpoint
        .as_ref()
        .map_or_else(|| format!("Amazon in {}", settings.region), |url| url.as_str().trim_end_matches('/').to_owned());
    Err(match error {
        object_store::Error::NotFound { .. } => Refused::NoBucket { bucket, server, why },
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Refused::Access { bucket, server, access_key: settings.access_key.clone(), why }
        }
        _ => Refused::Unfit { bucket, server, why },
    })
}

/// True when the server did not answer, or said that it cannot now.
fn is_away(error: &object_store::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<HttpError>() {
            return true;
        }
        cause = error.source();
    }
    // The library keeps the status to itself.
    let text = error.to_string();
    ["status code: 5", "status code: 429", "SlowDown", "InternalError"].iter().any(|sign| text.contains(sign))
}

/// True when it is the bucket that is missing, and not what was looked for in it.
pub(super) fn is_bucket_missing(error: &object_store::Error) -> bool {
    error.to_string().contains("<Code>NoSuchBucket</Code>")
}

/// What the server said, or why it said nothing, in one line that people can read.
pub(super) fn words(error: &object_store::Error) -> String {
    let text = error.to_string();
    let code = between(&text, "<Code>", "</Code>");
    let said = match (code, between(&text, "<Message>", "</Message>")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        // The innermost cause is the one that tells: connection refused, a certificate, a time that ran out.
        (None, _) => {
            let mut innermost = text.clone();
            let mut cause = error.source();
            while let Some(error) = cause {
                innermost = error.to_string();
                cause = error.source();
            }
            innermost
        }
    };
    let line: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_WORDS).collect();
    line.trim().to_owned()
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    let (inner, _) = rest.split_once(end)?;
    Some(inner.strip_prefix("<![CDATA[").and_then(|inner| inner.strip_suffix("]]>")).unwrap_or(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn a_server_that_is_busy_is_away_and_one_that_refuses_is_not() {
        assert!(is_away(&generic("Server returned non-2xx status code: 503 Service Unavailable: ")));
        assert!(is_away(&generic("Server returned non-2xx status code: 429 Too Many Requests: ")));
        assert!(!is_away(&generic("Server returned non-2xx status code: 400 Bad Request: ")));
        assert!(!is_away(&generic("Received redirect without LOCATION")));
    }

    #[test]
    fn of_an_answer_people_see_its_code_and_message() {
        let answer = "status code: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code>\
                      <Message><![CDATA[The signature\ndoes not match]]></Message><StringToSign>…</StringToSign></Error>";
        assert_eq!(words(&generic(answer)), "SignatureDoesNotMatch: The signature does not match");
        assert_eq!(words(&generic("connection refused")), "connection refused");
        assert!(words(&generic(&"x".repeat(10_000))).len() <= LONGEST_WORDS);
    }
}
