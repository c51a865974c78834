//! Where `up` keeps large messages: flags, else environment variables, else the data directory.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "these comments are the help text, where escaped brackets would be shown"
)]

use std::path::PathBuf;

use postroom_control_plane::blob::choice::{self, Invalid};
use postroom_control_plane::config::BlobsChoice;
use postroom_control_plane::store::choice::password_in;

use crate::Environment;
use crate::error::{Error, Kind};

/// Where large messages are kept.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Large messages")]
pub struct BlobsArgs {
    /// Where messages above 1 MiB are kept: folder (in the data directory), or s3://BUCKET[/PREFIX] [env:
    /// POSTROOM_BLOBS_URL] [default: folder].
    #[arg(long, value_name = "URL")]
    pub blobs_url: Option<String>,
    /// Server of the bucket, in place of Amazon's: https://HOST[:PORT] [env: POSTROOM_BLOBS_ENDPOINT].
    #[arg(long, value_name = "URL")]
    pub blobs_endpoint: Option<String>,
    /// Region of the bucket [env: POSTROOM_BLOBS_REGION] [default: us-east-1].
    #[arg(long, value_name = "NAME")]
    pub blobs_region: Option<String>,
    /// Id of the access key, which may read and write objects in the bucket [env: POSTROOM_BLOBS_ACCESS_KEY].
    #[arg(long, value_name = "ID")]
    pub blobs_access_key: Option<String>,
    /// File that holds the secret of the access key [env: POSTROOM_BLOBS_SECRET_KEY_FILE].
    #[arg(long, value_name = "FILE")]
    pub blobs_secret_key_file: Option<PathBuf>,
    /// PEM file with further CA certificates to trust for the bucket [env: POSTROOM_BLOBS_CA_FILE].
    #[arg(long, value_name = "FILE")]
    pub blobs_ca_file: Option<PathBuf>,
    /// Mail may go to the bucket in plaintext beyond this machine, where something else protects the connection.
    #[arg(long)]
    pub blobs_insecure: bool,
}

impl BlobsArgs {
    /// The place that was asked for.
    pub fn choose(&self, environment: Environment<'_>) -> Result<BlobsChoice, Error> {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let text = |flag: &Option<String>, name: &str| {
            flag.clone().or_else(|| variable(name).map(|value| value.to_string_lossy().into_owned()))
        };
        let path = |flag: &Option<PathBuf>, name: &str| flag.clone().or_else(|| variable(name).map(PathBuf::from));
        let url = text(&self.blobs_url, "POSTROOM_BLOBS_URL");
        let mut chosen: BlobsChoice = url.as_deref().unwrap_or("folder").parse().map_err(refused)?;
        let BlobsChoice::S3(s3) = &mut chosen else { return Ok(chosen) };
        s3.endpoint = text(&self.blobs_endpoint, "POSTROOM_BLOBS_ENDPOINT")
            .map(|url| choice::endpoint(&url))
            .transpose()
            .map_err(refused)?;
        s3.region = text(&self.blobs_region, "POSTROOM_BLOBS_REGION").unwrap_or_else(|| choice::REGION.to_owned());
        s3.access_key = text(&self.blobs_access_key, "POSTROOM_BLOBS_ACCESS_KEY").unwrap_or_default();
        s3.ca_file = path(&self.blobs_ca_file, "POSTROOM_BLOBS_CA_FILE");
        s3.insecure = self.blobs_insecure;
        if let Some(file) = path(&self.blobs_secret_key_file, "POSTROOM_BLOBS_SECRET_KEY_FILE") {
            s3.secret_key = password_in(&file).map_err(|why| {
                Error::new(Kind::Usage, format!("the secret key of the bucket in {}: {why}", file.display()))
                    .help("write it into the file as its only line")
            })?;
        }
        chosen.check().map_err(refused)?;
        Ok(chosen)
    }
}

fn refused(invalid: Invalid) -> Error {
    Error::new(Kind::Usage, format!("large messages: {invalid}"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use secrecy::ExposeSecret as _;

    use super::*;

    fn choose(args: &BlobsArgs, variables: &[(&str, &str)]) -> Result<BlobsChoice, Error> {
        let variables: Vec<(String, OsString)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        args.choose(&move |name| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
    }

    #[test]
    fn flags_come_before_variables_and_the_folder_is_the_default() {
        assert_eq!(choose(&BlobsArgs::default(), &[]).unwrap(), BlobsChoice::Folder);
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "geheim\n").unwrap();
        let variables = [
            ("POSTROOM_BLOBS_URL", "s3://post/a"),
            ("POSTROOM_BLOBS_ENDPOINT", "http://127.0.0.1:9000"),
            ("POSTROOM_BLOBS_ACCESS_KEY", "id"),
            ("POSTROOM_BLOBS_SECRET_KEY_FILE", secret.path().to_str().unwrap()),
        ];
        let args = BlobsArgs { blobs_access_key: Some("other".into()), ..BlobsArgs::default() };
        let BlobsChoice::S3(s3) = choose(&args, &variables).unwrap() else { panic!("a bucket") };
        assert_eq!((s3.bucket.as_str(), s3.access_key.as_str(), s3.region.as_str()), ("post", "other", "us-east-1"));
        assert_eq!(s3.secret_key.expose_secret(), "geheim");
        let folder = BlobsArgs { blobs_url: Some("folder".into()), ..BlobsArgs::default() };
        assert_eq!(choose(&folder, &variables).unwrap(), BlobsChoice::Folder);
    }

    #[test]
    fn what_is_missing_or_unsafe_is_told_with_its_flag() {
        let url = ("POSTROOM_BLOBS_URL", "s3://post");
        let key = ("POSTROOM_BLOBS_ACCESS_KEY", "id");
        for (variables, flag) in [
            (vec![url], "--blobs-access-key"),
            (vec![url, key], "--blobs-secret-key-file"),
            (vec![url, key, ("POSTROOM_BLOBS_ENDPOINT", "http://minio:9000")], "--blobs-insecure"),
            (vec![("POSTROOM_BLOBS_URL", "s3://key:geheim@post")], "--blobs-access-key"),
        ] {
            let refused = choose(&BlobsArgs::default(), &variables).unwrap_err();
            assert_eq!(refused.kind, Kind::Usage);
            assert!(refused.to_string().contains(flag), "{refused}");
            assert!(!refused.to_string().contains("geheim"), "{refused}");
        }
    }
}
