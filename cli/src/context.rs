//! Where the control plane is, and with which token.
//!
//! An installation describes itself in `context.toml` in its data directory; `postroom up` and
//! `postroom-control-plane` write it. Another control
//! plane is named by endpoint, token file and CA file. [`resolve`] decides between flags, environment and default.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use postroom_control_plane::access::context as installed;
pub use postroom_control_plane::access::context::{Context, FILE_NAME};
use secrecy::SecretString;

use crate::Environment;
use crate::args::Connection;
use crate::error::{Error, Kind};

/// Reads `context.toml` of a data directory.
pub fn read(data: &Path) -> Result<Context, Error> {
    Context::read(data).map_err(|error| explained(&error))
}

/// What to do when a context cannot be had.
pub fn explained(error: &installed::Error) -> Error {
    let told = |kind| Error::new(kind, error.to_string());
    match error {
        installed::Error::Missing(_) => told(Kind::Usage).help(
            "start one with `postroom up`, or say which control plane: --data DIR, or --endpoint URL --token-file FILE",
        ),
        installed::Error::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            told(Kind::Refused).help("run the command as the user that runs the control plane")
        }
        installed::Error::Broken { .. } => {
            told(Kind::Usage).help("the control plane writes this file anew each time it starts")
        }
        _ => told(Kind::Usage).help("name another directory by --data DIR"),
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
        let mut context = read(&data_dir(flags.data.as_deref(), environment)?)?;
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

    use secrecy::ExposeSecret as _;

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
