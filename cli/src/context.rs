//! Where the control plane is, and with which token.
//!
//! An installation describes itself in `context.toml` in its data directory; `postroom up` writes it. Another control
//! plane is named by endpoint, token file and CA file. [`resolve`] decides between flags, environment and default.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::Environment;
use crate::args::Connection;
use crate::error::{Error, Kind};

/// Name of the file in the data directory.
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
    /// Reads `context.toml` of a data directory. A relative `ca_file` is meant relative to that directory.
    pub fn read(data: &Path) -> Result<Self, Error> {
        let path = data.join(FILE_NAME);
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::new(Kind::Usage, format!("there is no installation in {} ({FILE_NAME} is missing)", data.display()))
                    .help("start one with `postroom up`, or say which control plane: --data DIR, or --endpoint URL --token-file FILE")
            }
            io::ErrorKind::PermissionDenied => {
                Error::new(Kind::Refused, format!("cannot read {}: {error}", path.display()))
                    .help("run the command as the user that runs `postroom up`")
            }
            _ => Error::new(Kind::Usage, format!("cannot read {}: {error}", path.display()))
                .help("name another directory by --data DIR"),
        })?;
        // `message` and not the error itself: that one quotes the line, and the line may hold the token.
        let file: File = toml::from_str(&text).map_err(|error| {
            Error::new(Kind::Usage, format!("{}: {}", path.display(), error.message()))
                .help("`postroom up` writes this file anew each time it starts")
        })?;
        Ok(Self {
            endpoint: file.endpoint,
            ca_file: file.ca_file.map(|ca_file| data.join(ca_file)),
            token: file.token.into(),
        })
    }

    /// Writes `context.toml` into a data directory, readable by its owner only. A reader sees the old file or the
    /// new one, never a half of it.
    pub fn write(&self, data: &Path) -> io::Result<()> {
        let file = File {
            endpoint: self.endpoint.clone(),
            ca_file: self.ca_file.clone(),
            token: self.token.expose_secret().into(),
        };
        let text = toml::to_string(&file).map_err(io::Error::other)?;
        let draft = data.join(format!(".{FILE_NAME}.new"));
        let mut written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        // A draft left behind by somebody else keeps its mode through `open`.
        written.set_permissions(fs::Permissions::from_mode(0o600))?;
        written.write_all(text.as_bytes())?;
        written.sync_all()?;
        fs::rename(draft, data.join(FILE_NAME))
    }
}

/// The data directory: flag, else `POSTROOM_DATA`, else the default of this user.
pub fn data_dir(flag: Option<&Path>, environment: Environment<'_>) -> Result<PathBuf, Error> {
    if let Some(data) = flag {
        return Ok(data.into());
    }
    if let Some(data) = variable(environment, "POSTROOM_DATA") {
        return Ok(data.into());
    }
    if let Some(share) = variable(environment, "XDG_DATA_HOME") {
        return Ok(PathBuf::from(share).join("postroom"));
    }
    if is_root() {
        return Ok("/var/lib/postroom".into());
    }
    match variable(environment, "HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".local/share/postroom")),
        None => Err(Error::new(Kind::Usage, "there is no default data directory: HOME is not set")
            .help("name it by --data DIR or POSTROOM_DATA")),
    }
}

/// Finds the control plane that a command is meant for.
///
/// Flags beat the environment, which beats the default; within each an endpoint beats a data directory. A data
/// directory brings its own token and CA, which only flags replace, so that a token meant for another control plane
/// is not sent to it. Beside an endpoint they come from flags or environment.
pub fn resolve(flags: &Connection, environment: Environment<'_>) -> Result<Context, Error> {
    let endpoint = match (&flags.endpoint, &flags.data) {
        // clap sees a conflict only where both stand on the same side of the verb.
        (Some(_), Some(_)) => {
            return Err(
                Error::new(Kind::Usage, "--data and --endpoint name two control planes").help("leave out one of them")
            );
        }
        (Some(endpoint), _) => Some(endpoint.clone()),
        (None, Some(_)) => None,
        (None, None) => variable(environment, "POSTROOM_ENDPOINT").map(|value| value.to_string_lossy().into_owned()),
    };
    let Some(endpoint) = endpoint else {
        let mut context = Context::read(&data_dir(flags.data.as_deref(), environment)?)?;
        if let Some(path) = &flags.token_file {
            context.token = read_token(path)?;
        }
        if let Some(path) = &flags.ca_file {
            context.ca_file = Some(path.clone());
        }
        return Ok(context);
    };
    let path_of =
        |flag: &Option<PathBuf>, name: &str| flag.clone().or_else(|| variable(environment, name).map(Into::into));
    let token_file = path_of(&flags.token_file, "POSTROOM_TOKEN_FILE").ok_or_else(|| {
        Error::new(Kind::Usage, format!("there is no token for {endpoint}"))
            .help("name a file that holds it by --token-file FILE or POSTROOM_TOKEN_FILE")
    })?;
    let token = read_token(&token_file)?;
    Ok(Context { endpoint, ca_file: path_of(&flags.ca_file, "POSTROOM_CA_FILE"), token })
}

/// True for user 0, whatever HOME says: `sudo` may leave it as it was.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// An empty variable counts as none.
fn variable(environment: Environment<'_>, name: &str) -> Option<std::ffi::OsString> {
    environment(name).filter(|value| !value.is_empty())
}

fn read_token(path: &Path) -> Result<SecretString, Error> {
    let text = fs::read_to_string(path).map_err(|error| {
        Error::new(Kind::Usage, format!("cannot read the token file {}: {error}", path.display()))
            .help("name a readable file that holds the token and nothing else")
    })?;
    let token = text.trim();
    if token.is_empty() {
        return Err(Error::new(Kind::Usage, format!("the token file {} is empty", path.display()))
            .help("write the token into it"));
    }
    Ok(token.into())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::ffi::OsString;

    use super::*;

    fn installation(endpoint: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let context = Context {
            endpoint: endpoint.into(),
            ca_file: Some("ca.pem".into()),
            token: format!("token of {endpoint}").into(),
        };
        context.write(dir.path()).unwrap();
        dir
    }

    fn resolved(flags: &Connection, variables: &[(&str, &Path)]) -> Result<Context, Error> {
        let variables: HashMap<&str, OsString> = variables.iter().map(|(k, v)| (*k, v.as_os_str().into())).collect();
        resolve(flags, &|name| variables.get(name).cloned())
    }

    #[test]
    fn what_is_written_is_read_by_its_owner_only() {
        let dir = installation("https://a:1");
        installation("https://unused:1");
        let context = Context::read(dir.path()).unwrap();
        assert_eq!(context.endpoint, "https://a:1");
        assert_eq!(context.ca_file, Some(dir.path().join("ca.pem")));
        assert_eq!(context.token.expose_secret(), "token of https://a:1");
        let mode = fs::metadata(dir.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{context:?}").contains("token of"), "{context:?}");
    }

    #[test]
    fn a_broken_file_does_not_show_the_token() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["endpoint = \"x\"\ntoken = \"planted", "endpoint = \"x\"\ntoken = [\"planted\"]", "planted"] {
            fs::write(dir.path().join(FILE_NAME), text).unwrap();
            let error = Context::read(dir.path()).unwrap_err();
            assert!(!error.render().contains("planted"), "{}", error.render());
        }
    }

    #[test]
    fn flags_beat_the_environment_which_beats_the_default() {
        let (by_flag, by_variable, home) =
            (installation("https://flag:1"), installation("https://variable:1"), tempfile::tempdir().unwrap());
        let default = home.path().join("postroom");
        fs::create_dir_all(&default).unwrap();
        Context { endpoint: "https://default:1".into(), ca_file: None, token: "t".into() }.write(&default).unwrap();
        let token = home.path().join("token");
        fs::write(&token, "from the variable\n").unwrap();
        let url = Path::new("https://endpoint:1");

        let none = Connection::default();
        let data = Connection { data: Some(by_flag.path().into()), ..Connection::default() };
        let all = [
            ("XDG_DATA_HOME", home.path()),
            ("POSTROOM_DATA", by_variable.path()),
            ("POSTROOM_ENDPOINT", url),
            ("POSTROOM_TOKEN_FILE", token.as_path()),
        ];
        assert_eq!(resolved(&none, &all[..1]).unwrap().endpoint, "https://default:1");
        assert_eq!(resolved(&none, &all[..2]).unwrap().endpoint, "https://variable:1");
        assert_eq!(resolved(&none, &all).unwrap().endpoint, "https://endpoint:1");
        assert_eq!(resolved(&none, &all).unwrap().token.expose_secret(), "from the variable");
        let context = resolved(&data, &all).unwrap();
        assert_eq!(context.endpoint, "https://flag:1");
        assert_eq!(context.token.expose_secret(), "token of https://flag:1");
    }

    #[test]
    fn an_endpoint_without_a_token_is_refused_with_a_remedy() {
        let flags = Connection { endpoint: Some("https://a:1".into()), ..Connection::default() };
        let error = resolved(&flags, &[]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.render().contains("--token-file"), "{}", error.render());
    }
}
