//! The folder of a worker that was enrolled: `identity.pem`, its key and its certificate in one file, which is exchanged as
//! a whole; and `pending.key`, a key for which a certificate was asked and may have been given.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};

use super::Error;

/// Key and certificate.
const IDENTITY: &str = "identity.pem";
/// Key without certificate.
const PENDING: &str = "pending.key";

/// Key and certificate, as PEM. `None`: there is none yet.
pub async fn read(folder: &Path) -> Result<Option<Vec<u8>>, Error> {
    let path = folder.join(IDENTITY);
    match tokio::fs::read(&path).await {
        Ok(pem) => Ok(Some(pem)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::Unreadable { path, detail: error.to_string() }),
    }
}

/// The key for which a certificate was asked before, as PEM.
pub fn pending(folder: &Path) -> Option<SecretString> {
    fs::read_to_string(folder.join(PENDING)).ok().map(Into::into)
}

/// Keeps a key before a certificate is asked for it: were the answer lost, only this key would get another.
pub fn keep_pending(folder: &Path, key: &SecretString) -> Result<(), Error> {
    write(folder, PENDING, key.expose_secret())
}

/// Puts a key with its certificate in place.
pub fn keep(folder: &Path, key: &SecretString, certificate: &str) -> Result<(), Error> {
    write(folder, IDENTITY, &format!("{}{certificate}", key.expose_secret()))?;
    // Nothing is lost with it, and another renewal would overwrite it.
    let _ = fs::remove_file(folder.join(PENDING));
    Ok(())
}

/// Writes a file as a whole, for its owner alone.
fn write(folder: &Path, name: &str, text: &str) -> Result<(), Error> {
    let path = folder.join(name);
    let written = (|| {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let draft = folder.join(format!(".{name}.new"));
        let _ = fs::remove_file(&draft);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(draft, &path)?;
        fs::File::open(folder)?.sync_all()
    })();
    written.map_err(|error: io::Error| Error::Unwritable { path, detail: error.to_string() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn key_and_certificate_are_exchanged_together_and_are_their_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("identity");
        assert_eq!(read(&folder).await, Ok(None));
        keep_pending(&folder, &"KEY\n".into()).unwrap();
        assert_eq!(pending(&folder).unwrap().expose_secret(), "KEY\n");
        keep(&folder, &"KEY\n".into(), "CERTIFICATE\n").unwrap();
        assert_eq!(read(&folder).await.unwrap().unwrap(), b"KEY\nCERTIFICATE\n");
        assert!(pending(&folder).is_none());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(IDENTITY))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no draft is left behind");
    }
}
