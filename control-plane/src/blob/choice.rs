//! Where large bodies are kept, and how that is written in one line:
//!
//! ```text
//! folder
//! s3://bucket
//! s3://bucket/prefix
//! ```
//!
//! Where the bucket is, and who may write to it, has settings of its own; the secret key comes from a file.

use std::path::PathBuf;
use std::str::FromStr;

use secrecy::{ExposeSecret as _, SecretString};
use url::{Host, Url};

/// Region where none is named. Most servers other than Amazon's take any.
pub const REGION: &str = "us-east-1";
/// Longest prefix.
const LONGEST_PREFIX: usize = 200;

/// Where large bodies are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BlobsChoice {
    /// In the data folder.
    #[default]
    Folder,
    /// In a bucket.
    S3(Box<S3Settings>),
}

/// A bucket of a server that speaks S3, and who writes to it.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// Name of the bucket. It has to be there.
    pub bucket: String,
    /// What every name begins with, without a `/` at either end. May be empty.
    pub prefix: String,
    /// URL of the server; that of Amazon in the region where it is absent.
    pub endpoint: Option<Url>,
    /// Region of the bucket.
    pub region: String,
    /// Id of the access key.
    pub access_key: String,
    /// The secret of the access key.
    pub secret_key: SecretString,
    /// PEM file with further certificate authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// Plaintext beyond this machine is allowed.
    pub insecure: bool,
}

impl PartialEq for S3Settings {
    /// Secrets are not looked at.
    fn eq(&self, other: &Self) -> bool {
        let names = |it: &Self| (it.bucket.clone(), it.prefix.clone(), it.endpoint.clone(), it.region.clone());
        let rest = |it: &Self| (it.access_key.clone(), it.ca_file.clone(), it.insecure);
        names(self) == names(other) && rest(self) == rest(other)
    }
}

impl Eq for S3Settings {}

/// Why settings of a blob store are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It names no place that is known.
    #[error("{0:?} names no place for large bodies; write folder, or s3://BUCKET[/PREFIX]")]
    Unknown(String),
    /// A key in an address can be read by everybody on the machine.
    #[error("a key does not belong into the address of a bucket; name it by {ACCESS_KEY} and {SECRET_KEY_FILE}")]
    Key,
    /// The name is none that a bucket can have.
    #[error("{0:?} is no name of a bucket: 3 to 63 lower-case letters, digits, and . - between them")]
    Bucket(String),
    /// The prefix has something in it that invites mistakes.
    #[error(
        "prefix {0:?}: at most {LONGEST_PREFIX} letters, digits, and . _ - / are allowed, no empty parts, and no . or .."
    )]
    Prefix(String),
    /// The URL is none of a server.
    #[error("{0:?} is no https://HOST[:PORT]")]
    Endpoint(String),
    /// Mail would cross the network in the clear.
    #[error(
        "mail would go to {0} in the clear; use https, or say {INSECURE} where something else protects the connection"
    )]
    Exposed(Url),
    /// Nobody is named who may write.
    #[error("there is no access key for the bucket; name its id by {ACCESS_KEY}")]
    NoAccessKey,
    /// The secret is missing.
    #[error("there is no secret for access key {0:?}; name its file by {SECRET_KEY_FILE}")]
    NoSecretKey(String),
}

/// How people name what a bucket needs: flags of both programs.
const ACCESS_KEY: &str = "--blobs-access-key";
const SECRET_KEY_FILE: &str = "--blobs-secret-key-file";
const INSECURE: &str = "--blobs-insecure";

impl FromStr for BlobsChoice {
    type Err = Invalid;

    fn from_str(line: &str) -> Result<Self, Invalid> {
        let line = line.trim();
        if line == "folder" {
            return Ok(Self::Folder);
        }
        let Some(rest) = line.strip_prefix("s3://") else {
            // What is not understood may hold a key.
            let shown = if line.contains('@') { "…" } else { line };
            return Err(Invalid::Unknown(shown.to_owned()));
        };
        if rest.contains('@') {
            return Err(Invalid::Key);
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        Ok(Self::S3(Box::new(S3Settings {
            bucket: self::bucket(bucket)?,
            prefix: self::prefix(prefix)?,
            endpoint: None,
            region: REGION.to_owned(),
            access_key: String::new(),
            secret_key: SecretString::default(),
            ca_file: None,
            insecure: false,
        })))
    }
}

impl std::fmt::Display for BlobsChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder => f.write_str("folder"),
            Self::S3(s3) => f.write_str(&s3.url()),
        }
    }
}

impl S3Settings {
    /// The line that names the bucket.
    pub fn url(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("s3://{}{slash}{}", self.bucket, self.prefix)
    }
}

impl BlobsChoice {
    /// Refuses settings that do not fit together, or would be unsafe.
    pub fn check(&self) -> Result<(), Invalid> {
        let Self::S3(s3) = self else { return Ok(()) };
        if let Some(endpoint) = &s3.endpoint
            && endpoint.scheme() == "http"
            && !is_loopback(endpoint)
            && !s3.insecure
        {
            return Err(Invalid::Exposed(endpoint.clone()));
        }
        if s3.access_key.is_empty() {
            return Err(Invalid::NoAccessKey);
        }
        if s3.secret_key.expose_secret().is_empty() {
            return Err(Invalid::NoSecretKey(s3.access_key.clone()));
        }
        Ok(())
    }
}

/// The URL of a server: scheme, host and port, and nothing else.
pub fn endpoint(text: &str) -> Result<Url, Invalid> {
    let refused = || Invalid::Endpoint(if text.contains('@') { "…".to_owned() } else { text.to_owned() });
    let url: Url = text.trim().parse().map_err(|_| refused())?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let nameless = url.username().is_empty() && url.password().is_none();
    let known = matches!(url.scheme(), "http" | "https") && url.host().is_some();
    if bare && nameless && known { Ok(url) } else { Err(refused()) }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn bucket(text: &str) -> Result<String, Invalid> {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let inner = |b: u8| letter(b) || b == b'.' || b == b'-';
    let ends = |b: Option<&u8>| b.is_some_and(|b| letter(*b));
    let bytes = text.as_bytes();
    let good = (3..=63).contains(&bytes.len()) && bytes.iter().all(|b| inner(*b));
    match good && ends(bytes.first()) && ends(bytes.last()) && !text.contains("..") {
        true => Ok(text.to_owned()),
        false => Err(Invalid::Bucket(text.to_owned())),
    }
}

/// The prefix without a `/` at its ends.
fn prefix(text: &str) -> Result<String, Invalid> {
    let inner = text.strip_suffix('/').unwrap_or(text);
    let harmless = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    let part = |part: &str| !matches!(part, "" | "." | "..");
    let good = inner.is_empty() || (inner.bytes().all(harmless) && inner.split('/').all(part));
    match good && inner.len() <= LONGEST_PREFIX {
        true => Ok(inner.to_owned()),
        false => Err(Invalid::Prefix(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(line: &str) -> S3Settings {
        match line.parse() {
            Ok(BlobsChoice::S3(s3)) => *s3,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_line_names_a_place_and_is_written_as_it_is_read() {
        assert_eq!("folder".parse(), Ok(BlobsChoice::Folder));
        let whole = s3("s3://post.room-1/teams/one/");
        assert_eq!((whole.bucket.as_str(), whole.prefix.as_str()), ("post.room-1", "teams/one"));
        assert_eq!(s3("s3://postroom/").prefix, "");
        for line in ["folder", "s3://postroom", "s3://postroom/a/b"] {
            assert_eq!(line.parse::<BlobsChoice>().unwrap().to_string(), line);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_and_no_key_repeated() {
        for (line, refusal) in [
            ("gs://bucket", Invalid::Unknown("gs://bucket".into())),
            ("https://key:geheim@host", Invalid::Unknown("…".into())),
            ("s3://key:geheim@bucket", Invalid::Key),
            ("s3://", Invalid::Bucket("".into())),
            ("s3://ab", Invalid::Bucket("ab".into())),
            ("s3://Bucket", Invalid::Bucket("Bucket".into())),
            ("s3://-bucket", Invalid::Bucket("-bucket".into())),
            ("s3://bu..cket", Invalid::Bucket("bu..cket".into())),
            ("s3://bucket/a//b", Invalid::Prefix("a//b".into())),
            ("s3://bucket/../b", Invalid::Prefix("../b".into())),
            ("s3://bucket/a?b", Invalid::Prefix("a?b".into())),
        ] {
            assert_eq!(line.parse::<BlobsChoice>(), Err(refusal), "{line}");
        }
    }

    #[test]
    fn an_endpoint_is_a_server_and_nothing_else() {
        for good in ["https://minio.example", "http://127.0.0.1:9000", "https://[::1]:9000/"] {
            endpoint(good).unwrap();
        }
        for bad in ["minio:9000", "ftp://host", "https://host/bucket", "https://host?x", "https://a:geheim@host", ""] {
            let refused = endpoint(bad).unwrap_err();
            assert!(!refused.to_string().contains("geheim"), "{refused}");
        }
    }

    #[test]
    fn settings_that_do_not_fit_together_are_refused() {
        let check = |s3: S3Settings| BlobsChoice::S3(Box::new(s3)).check();
        let whole = S3Settings { access_key: "id".into(), secret_key: "secret".into(), ..s3("s3://bucket") };
        assert_eq!(check(whole.clone()), Ok(()));
        assert_eq!(check(s3("s3://bucket")), Err(Invalid::NoAccessKey));
        let half = S3Settings { secret_key: SecretString::default(), ..whole.clone() };
        assert_eq!(check(half), Err(Invalid::NoSecretKey("id".into())));
        for (url, safe) in [
            ("http://minio:9000", false),
            ("http://10.0.0.1", false),
            ("http://127.0.0.1:9000", true),
            ("http://localhost", true),
            ("http://[::1]:9000", true),
            ("https://minio", true),
        ] {
            let there = S3Settings { endpoint: Some(endpoint(url).unwrap()), ..whole.clone() };
            assert_eq!(check(there.clone()).is_ok(), safe, "{url}");
            assert_eq!(check(S3Settings { insecure: true, ..there }), Ok(()), "{url}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let settings = S3Settings { secret_key: "geheim".into(), ..s3("s3://bucket") };
        assert!(!format!("{settings:?} {}", BlobsChoice::S3(Box::new(settings.clone()))).contains("geheim"));
    }
}
