//! Which store `up` uses: flags, else environment variables, else SQLite in the data directory.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "these comments are the help text, where escaped brackets would be shown"
)]

use std::path::{Path, PathBuf};

use postroom_control_plane::config::StoreChoice;
use postroom_control_plane::store::choice::{Invalid, password_in};
use secrecy::SecretString;

use crate::Environment;
use crate::error::{Error, Kind};

/// Where definitions, sessions, assignments and leadership are kept.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// Where definitions and leases are kept: sqlite (in the data directory), or
    /// etcd://[USER@]HOST:PORT[,HOST:PORT...][/PREFIX], with etcds:// for TLS [env: POSTROOM_STORE]
    /// [default: sqlite].
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// File that holds the password of the etcd user [env: POSTROOM_STORE_PASSWORD_FILE].
    #[arg(long, value_name = "FILE")]
    pub store_password_file: Option<PathBuf>,
    /// PEM file with the CA certificates to trust for etcd, in place of the system's [env:
    /// POSTROOM_STORE_CA_FILE].
    #[arg(long, value_name = "FILE")]
    pub store_ca_file: Option<PathBuf>,
    /// PEM file with a client certificate for etcd [env: POSTROOM_STORE_CERTIFICATE_FILE].
    #[arg(long, value_name = "FILE")]
    pub store_certificate_file: Option<PathBuf>,
    /// PEM file with the key of the client certificate [env: POSTROOM_STORE_KEY_FILE].
    #[arg(long, value_name = "FILE")]
    pub store_key_file: Option<PathBuf>,
}

impl StoreArgs {
    /// The store that was asked for.
    pub fn choose(&self, environment: Environment<'_>) -> Result<StoreChoice, Error> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let path = |flag: &Option<PathBuf>, name: &str| flag.clone().or_else(|| variable(name).map(PathBuf::from));
        let url = self.store.clone().or_else(|| variable("POSTROOM_STORE").map(|it| it.to_string_lossy().into_owned()));
        let mut choice: StoreChoice = url.as_deref().unwrap_or("sqlite").parse().map_err(refused)?;
        let StoreChoice::Etcd(etcd) = &mut choice else { return Ok(choice) };
        etcd.ca_file = path(&self.store_ca_file, "POSTROOM_STORE_CA_FILE");
        etcd.password = path(&self.store_password_file, "POSTROOM_STORE_PASSWORD_FILE")
            .as_deref()
            .map(read_password)
            .transpose()?;
        let certificate = path(&self.store_certificate_file, "POSTROOM_STORE_CERTIFICATE_FILE");
        etcd.client_certificate = match (certificate, path(&self.store_key_file, "POSTROOM_STORE_KEY_FILE")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => {
                return Err(Error::new(Kind::Usage, "a client certificate for etcd is of no use without its key")
                    .help("name both, by --store-certificate-file and --store-key-file"));
            }
        };
        choice.check().map_err(refused)?;
        Ok(choice)
    }
}

fn refused(invalid: Invalid) -> Error {
    Error::new(Kind::Usage, format!("the store: {invalid}"))
}

fn read_password(file: &Path) -> Result<SecretString, Error> {
    password_in(file).map_err(|why| {
        Error::new(Kind::Usage, format!("the password of the store in {}: {why}", file.display()))
            .help("write it into the file as its only line")
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn choose(args: StoreArgs, variables: &[(&str, &Path)]) -> Result<StoreChoice, Error> {
        let variables: Vec<(String, OsString)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), value.as_os_str().to_owned())).collect();
        args.choose(&move |name| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
    }

    #[test]
    fn flags_come_before_variables_and_sqlite_is_the_default() {
        assert_eq!(choose(StoreArgs::default(), &[]).unwrap(), StoreChoice::Sqlite);
        let variable = [("POSTROOM_STORE", Path::new("etcd://a:1"))];
        assert_eq!(choose(StoreArgs::default(), &variable).unwrap().to_string(), "etcd://a:1/postroom");
        let args = StoreArgs { store: Some("sqlite".into()), ..StoreArgs::default() };
        assert_eq!(choose(args, &variable).unwrap(), StoreChoice::Sqlite);
    }

    #[test]
    fn a_password_comes_from_a_file_of_one_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let url = [("POSTROOM_STORE", Path::new("etcds://post@a:1"))];
        let args = StoreArgs { store_password_file: Some(file.path().into()), ..StoreArgs::default() };
        for (content, good) in [("geheim\n", true), ("geheim", true), ("", false), ("\n", false), ("a\nb\n", false)] {
            std::fs::write(file.path(), content).unwrap();
            match choose(args.clone(), &url) {
                Ok(StoreChoice::Etcd(etcd)) => {
                    assert!(good, "{content:?}");
                    let password = etcd.password.unwrap();
                    assert_eq!(secrecy::ExposeSecret::expose_secret(&password), "geheim");
                }
                other => assert!(!good, "{content:?}: {other:?}"),
            }
        }
        let missing = choose(StoreArgs::default(), &url).unwrap_err();
        assert!(missing.to_string().contains("--store-password-file"), "{missing}");
    }

    #[test]
    fn half_of_a_client_certificate_is_refused() {
        let args =
            StoreArgs { store: Some("etcds://a".into()), store_key_file: Some("a.key".into()), ..StoreArgs::default() };
        assert_eq!(choose(args.clone(), &[]).unwrap_err().kind, Kind::Usage);
        let whole = choose(args, &[("POSTROOM_STORE_CERTIFICATE_FILE", Path::new("a.pem"))]).unwrap();
        assert!(matches!(whole, StoreChoice::Etcd(etcd) if etcd.client_certificate.is_some()));
    }
}
