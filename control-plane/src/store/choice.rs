//! Which store an installation uses, and how that is written in one line:
//!
//! ```text
//! sqlite
//! etcd://host:port
//! etcds://user@one:2379,two:2379,three:2379/prefix
//! ```
//!
//! `etcds` is etcd over TLS. What does not belong on a command line, passwords and the names of certificate files, has
//! settings of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use secrecy::SecretString;

/// Port of etcd where none is named.
const PORT: u16 = 2379;
/// Prefix where none is named.
const PREFIX: &str = "/postroom/";
/// Longest prefix: it stands before every key of a commit, which etcd limits as a whole.
const LONGEST_PREFIX: usize = 100;

/// Which store an installation uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StoreChoice {
    /// A file in the data folder.
    #[default]
    Sqlite,
    /// etcd.
    Etcd(Box<EtcdSettings>),
}

/// How etcd is reached.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// `host:port` of its members.
    pub endpoints: Vec<String>,
    /// What every key begins with. Begins and ends with `/`.
    pub prefix: String,
    /// TLS to etcd.
    pub tls: bool,
    /// PEM file of the certificate authorities to trust; without one those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM files of a client certificate and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Name to sign in by.
    pub user: Option<String>,
    /// Password of the user.
    pub password: Option<SecretString>,
}

impl PartialEq for EtcdSettings {
    /// Passwords are not looked at.
    fn eq(&self, other: &Self) -> bool {
        let parts = |it: &Self| (it.endpoints.clone(), it.prefix.clone(), it.tls, it.user.clone());
        let files = |it: &Self| (it.ca_file.clone(), it.client_certificate.clone());
        parts(self) == parts(other) && files(self) == files(other)
    }
}

impl Eq for EtcdSettings {}

/// Why the line that names a store is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It names no store that is known.
    #[error("{0:?} names no store; write sqlite, or etcd://host:port[,host:port…][/prefix], with etcds:// for TLS")]
    Unknown(String),
    /// A password on a command line can be read by everybody on the machine.
    #[error("a password does not belong into the address of the store; name its file by {PASSWORD_FILE}")]
    Password,
    /// No member of etcd is named.
    #[error("no member of etcd is named; write etcd://host:port, and further members behind a comma")]
    NoEndpoint,
    /// A member is named in a way that is not understood.
    #[error("{0:?} is no host:port")]
    Endpoint(String),
    /// A member is named twice.
    #[error("{0} is named twice")]
    Twice(String),
    /// The prefix has something in it that invites mistakes.
    #[error("prefix {0:?}: at most {LONGEST_PREFIX} letters, digits, and . _ - / are allowed")]
    Prefix(String),
    /// Settings for TLS, without TLS.
    #[error("{0} is for TLS; write etcds:// to use it")]
    WithoutTls(&'static str),
    /// A password without a name.
    #[error("there is a password for etcd and no user; write etcd://USER@host:port")]
    NoUser,
    /// A user without a password.
    #[error("there is no password for user {0:?} of etcd; name its file by {PASSWORD_FILE}")]
    NoPassword(String),
}

/// Longest file of a password.
const LONGEST_PASSWORD: usize = 4096;

/// The password that stands in a file as its only line, or what is wrong with the file.
pub fn password_in(file: &Path) -> Result<SecretString, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    match line.is_empty() || line.len() > LONGEST_PASSWORD || line.contains('\n') {
        false => Ok(line.into()),
        true => Err("it is empty, too long, or has several lines".to_owned()),
    }
}

/// How people name the file of the password.
const PASSWORD_FILE: &str = "--store-password-file or POSTROOM_STORE_PASSWORD_FILE";

impl FromStr for StoreChoice {
    type Err = Invalid;

    fn from_str(line: &str) -> Result<Self, Invalid> {
        let line = line.trim();
        if line == "sqlite" {
            return Ok(Self::Sqlite);
        }
        let (tls, rest) = match (line.strip_prefix("etcd://"), line.strip_prefix("etcds://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => {
                // What is not understood may hold a password.
                let shown = if line.contains('@') { "…" } else { line };
                return Err(Invalid::Unknown(shown.to_owned()));
            }
        };
        let (authority, prefix) = rest.split_once('/').map_or((rest, ""), |(authority, prefix)| (authority, prefix));
        let (user, hosts) = authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        if user.is_some_and(|user| user.contains(':')) {
            return Err(Invalid::Password);
        }
        let endpoints =
            hosts.split(',').filter(|host| !host.is_empty()).map(endpoint).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(Invalid::NoEndpoint);
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = endpoints.iter().find(|endpoint| !seen.insert(*endpoint)) {
            return Err(Invalid::Twice(twice.clone()));
        }
        Ok(Self::Etcd(Box::new(EtcdSettings {
            endpoints,
            prefix: self::prefix(prefix)?,
            tls,
            ca_file: None,
            client_certificate: None,
            user: user.filter(|user| !user.is_empty()).map(str::to_owned),
            password: None,
        })))
    }
}

impl std::fmt::Display for StoreChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite => f.write_str("sqlite"),
            Self::Etcd(etcd) => {
                let user = etcd.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
                let (scheme, hosts) = (if etcd.tls { "etcds" } else { "etcd" }, etcd.endpoints.join(","));
                write!(f, "{scheme}://{user}{hosts}{}", etcd.prefix.trim_end_matches('/'))
            }
        }
    }
}

impl StoreChoice {
    /// Refuses settings that do not fit together.
    pub fn check(&self) -> Result<(), Invalid> {
        let Self::Etcd(etcd) = self else { return Ok(()) };
        if !etcd.tls && etcd.ca_file.is_some() {
            return Err(Invalid::WithoutTls("a CA file"));
        }
        if !etcd.tls && etcd.client_certificate.is_some() {
            return Err(Invalid::WithoutTls("a client certificate"));
        }
        match (&etcd.user, &etcd.password) {
            (None, Some(_)) => Err(Invalid::NoUser),
            (Some(user), None) => Err(Invalid::NoPassword(user.clone())),
            _ => Ok(()),
        }
    }
}

/// `host:port`, with etcd's port where none is named.
fn endpoint(text: &str) -> Result<String, Invalid> {
    let refused = || Invalid::Endpoint(text.to_owned());
    // An IPv6 address stands in brackets, so that its colons are no port's.
    let after_host = text.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match text[after_host..].rfind(':') {
        Some(colon) => (&text[..after_host + colon], text[after_host + colon + 1..].parse().map_err(|_| refused())?),
        None => (text, PORT),
    };
    let well_formed = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b)),
    };
    if well_formed && port != 0 { Ok(format!("{host}:{port}")) } else { Err(refused()) }
}

/// The prefix with a `/` on both sides.
fn prefix(text: &str) -> Result<String, Invalid> {
    let inner = text.trim_matches('/');
    if inner.is_empty() {
        return Ok(PREFIX.to_owned());
    }
    let harmless = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    if inner.len() + 2 > LONGEST_PREFIX || !inner.bytes().all(harmless) {
        return Err(Invalid::Prefix(text.to_owned()));
    }
    Ok(format!("/{inner}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etcd(line: &str) -> EtcdSettings {
        match line.parse() {
            Ok(StoreChoice::Etcd(etcd)) => *etcd,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_line_names_a_store() {
        assert_eq!("sqlite".parse(), Ok(StoreChoice::Sqlite));
        let one = etcd("etcd://localhost:1234");
        assert_eq!((one.endpoints.as_slice(), one.prefix.as_str()), (&["localhost:1234".to_owned()][..], "/postroom/"));
        assert!(!one.tls && one.user.is_none());
        let many = etcd("etcds://post@a:1,b,[::1]:3/teams/one/");
        assert_eq!(many.endpoints, ["a:1", "b:2379", "[::1]:3"]);
        assert_eq!((many.prefix.as_str(), many.tls, many.user.as_deref()), ("/teams/one/", true, Some("post")));
        assert_eq!(etcd("etcd://a/").prefix, "/postroom/");
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        for line in ["sqlite", "etcd://a:2379/postroom", "etcds://post@a:1,[::1]:3/teams/one"] {
            assert_eq!(line.parse::<StoreChoice>().unwrap().to_string(), line);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_and_no_password_repeated() {
        for (line, refusal) in [
            ("postgres", Invalid::Unknown("postgres".into())),
            ("http://post:geheim@a:1", Invalid::Unknown("…".into())),
            ("etcd://post:geheim@a:1", Invalid::Password),
            ("etcd://", Invalid::NoEndpoint),
            ("etcd:///x", Invalid::NoEndpoint),
            ("etcd://a:x", Invalid::Endpoint("a:x".into())),
            ("etcd://a:0", Invalid::Endpoint("a:0".into())),
            ("etcd://::1", Invalid::Endpoint("::1".into())),
            ("etcd://a b:1", Invalid::Endpoint("a b:1".into())),
            ("etcd://a:1,a:1", Invalid::Twice("a:1".into())),
            ("etcd://a:1/x?y", Invalid::Prefix("x?y".into())),
        ] {
            assert_eq!(line.parse::<StoreChoice>(), Err(refusal), "{line}");
        }
        let long = format!("etcd://a/{}", "x".repeat(99));
        assert!(matches!(long.parse::<StoreChoice>(), Err(Invalid::Prefix(_))));
    }

    #[test]
    fn settings_that_do_not_fit_together_are_refused() {
        let choice = |settings| StoreChoice::Etcd(Box::new(settings));
        let plain = etcd("etcd://a");
        assert_eq!(choice(plain.clone()).check(), Ok(()));
        let ca = EtcdSettings { ca_file: Some("ca.pem".into()), ..plain.clone() };
        assert!(matches!(choice(ca.clone()).check(), Err(Invalid::WithoutTls(_))));
        assert_eq!(choice(EtcdSettings { tls: true, ..ca }).check(), Ok(()));
        let certificate = Some(("a.pem".into(), "a.key".into()));
        let certified = EtcdSettings { client_certificate: certificate, ..plain.clone() };
        assert!(matches!(choice(certified).check(), Err(Invalid::WithoutTls(_))));
        let nobody = EtcdSettings { password: Some("x".into()), ..plain };
        assert_eq!(choice(nobody.clone()).check(), Err(Invalid::NoUser));
        let user = EtcdSettings { user: Some("post".into()), ..nobody };
        assert_eq!(choice(user.clone()).check(), Ok(()));
        assert!(matches!(choice(EtcdSettings { password: None, ..user }).check(), Err(Invalid::NoPassword(_))));
    }

    #[test]
    fn a_password_is_not_shown() {
        let settings = EtcdSettings { password: Some("geheim".into()), ..etcd("etcd://post@a") };
        assert!(!format!("{settings:?} {}", StoreChoice::Etcd(Box::new(settings.clone()))).contains("geheim"));
    }
}
