//! How an installation describes itself in its data folder: where it is, and with which token it is administered. And
//! the tokens that it makes for itself at its first start.

use std::fs;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::token;

/// Name of the file in the data folder.
pub const FILE_NAME: &str = "context.toml";

/// How to reach a control plane.
#[derive(Debug, Clone)]
pub struct Context {
    /// `https://host:port`, or `http://` for plaintext.
    pub endpoint: String,
    /// PEM file with the CA certificates to trust; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// Bearer token.
    pub token: SecretString,
}

/// Why a token or a context cannot be had. Never contains a token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("there is no installation in {0} ({FILE_NAME} is missing)")]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {what}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {source}")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No token can be made.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// The file's own form. It holds the token in clear and therefore never leaves this module.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    token: String,
}

impl Context {
    /// Reads `context.toml` of a data folder. A relative `ca_file` is meant relative to that folder.
    pub fn read(data: &Path) -> Result<Self, Error> {
        let path = data.join(FILE_NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing(data.into())),
            Err(source) => return Err(Error::Unreadable { path, source }),
        };
        // `message` and not the error itself: that one quotes the line, and the line may hold the token.
        let file: File =
            toml::from_str(&text).map_err(|error| Error::Broken { path, what: error.message().trim_end().into() })?;
        Ok(Self {
            endpoint: file.endpoint,
            ca_file: file.ca_file.map(|ca_file| data.join(ca_file)),
            token: file.token.into(),
        })
    }

    /// Writes `context.toml` into a data folder, readable by its owner only. A reader sees the old file or the new one,
    /// never a half of it.
    pub fn write(&self, data: &Path) -> io::Result<()> {
        let file = File {
            endpoint: self.endpoint.clone(),
            ca_file: self.ca_file.clone(),
            token: self.token.expose_secret().into(),
        };
        write_private(&data.join(FILE_NAME), &toml::to_string(&file).map_err(io::Error::other)?)
    }
}

/// The token by which an installation is administered: the one that stands in its context, or a new one.
pub fn admin_token(data: &Path) -> Result<SecretString, Error> {
    match Context::read(data) {
        Ok(context) => Ok(context.token),
        Err(Error::Missing(_)) => Ok(token::mint()?),
        Err(error) => Err(error),
    }
}

/// The token of a file, which is made, readable by its owner only, when it is missing.
pub fn token_in(path: &Path) -> Result<SecretString, Error> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Err(Error::Broken { path: path.into(), what: "holds no token".into() }),
        Ok(text) => Ok(text.trim().into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = token::mint()?;
            let text = format!("{}\n", token.expose_secret());
            write_private(path, &text).map_err(|source| Error::Unwritable { path: path.into(), source })?;
            Ok(token)
        }
        Err(source) => Err(Error::Unreadable { path: path.into(), source }),
    }
}

/// The URL by which a server that listens on `address` is called from this machine: over TLS by a name of its certificate.
pub fn endpoint(address: SocketAddr, tls: bool, names: &[String]) -> String {
    let reachable = reachable(address);
    if !tls {
        return format!("http://{reachable}");
    }
    let own = reachable.ip().to_string();
    let named = names.iter().find(|name| !name.starts_with('*') && name.parse::<IpAddr>().is_err());
    match named.filter(|_| !names.contains(&own)) {
        Some(name) => format!("https://{name}:{}", address.port()),
        None => format!("https://{reachable}"),
    }
}

/// Writes a file that everybody may read, as a whole or not at all.
pub fn write_public(path: &Path, text: &str) -> io::Result<()> {
    write_private(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// The address by which this machine reaches itself.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
    let draft = path.with_file_name(format!(".{}.new", name.to_string_lossy()));
    let mut written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    // A draft left behind by somebody else keeps its mode through `open`.
    written.set_permissions(fs::Permissions::from_mode(0o600))?;
    written.write_all(text.as_bytes())?;
    written.sync_all()?;
    fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_written_is_read_by_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let context =
            Context { endpoint: "https://a:1".into(), ca_file: Some("ca.pem".into()), token: "planted".into() };
        context.write(dir.path()).unwrap();
        let context = Context::read(dir.path()).unwrap();
        assert_eq!(context.endpoint, "https://a:1");
        assert_eq!(context.ca_file, Some(dir.path().join("ca.pem")));
        assert_eq!(context.token.expose_secret(), "planted");
        assert_eq!(mode(&dir.path().join(FILE_NAME)), 0o600);
        assert!(!format!("{context:?}").contains("planted"), "{context:?}");
    }

    #[test]
    fn a_broken_file_does_not_show_the_token() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["endpoint = \"x\"\ntoken = \"planted", "endpoint = \"x\"\ntoken = [\"planted\"]", "planted"] {
            fs::write(dir.path().join(FILE_NAME), text).unwrap();
            let error = admin_token(dir.path()).unwrap_err();
            assert!(
                matches!(error, Error::Broken { .. }) && !format!("{error:?}{error}").contains("planted"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_server_with_a_certificate_is_called_by_a_name_of_it() {
        let everywhere = "0.0.0.0:7430".parse().unwrap();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(endpoint(everywhere, false, &[]), "http://127.0.0.1:7430");
        assert_eq!(endpoint(everywhere, true, &names(&["cp.example", "127.0.0.1"])), "https://127.0.0.1:7430");
        assert_eq!(
            endpoint(everywhere, true, &names(&["*.example", "192.0.2.1", "cp.example"])),
            "https://cp.example:7430"
        );
        assert_eq!(endpoint("[::]:1".parse().unwrap(), true, &names(&["::1"])), "https://[::1]:1");
    }

    #[test]
    fn tokens_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.token");
        let made = token_in(&path).unwrap();
        assert_eq!(token_in(&path).unwrap().expose_secret(), made.expose_secret());
        assert_eq!(mode(&path), 0o600);
        fs::write(&path, "\n").unwrap();
        assert!(matches!(token_in(&path), Err(Error::Broken { .. })), "an empty file is not replaced");
    }
}
