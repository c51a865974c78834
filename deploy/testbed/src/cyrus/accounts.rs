//! Accounts of a Cyrus and their passwords, kept by SASL in a file of the instance.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Mutex, PoisonError},
};

use tokio::{io::AsyncWriteExt, process::Command};

use super::config::Owner;
use crate::error::{Error, Result};

/// The realm of a name without a domain: the `servername` of the instance.
const REALM: &str = "localhost";

/// Who may sign in.
pub(super) struct Accounts {
    file: PathBuf,
    program: PathBuf,
    owner: Owner,
    passwords: Mutex<HashMap<String, String>>,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Accounts {
    /// Nobody, in an instance in `dir`.
    pub(super) fn new(dir: &Path, unpacked: &Path, owner: Owner) -> Self {
        let (file, program) = (dir.join("accounts"), unpacked.join("usr/sbin/saslpasswd2"));
        Self { file, program, owner, passwords: Mutex::default() }
    }

    /// Makes an account, or gives it another password.
    pub(super) async fn set_password(&self, name: &str, password: &str) -> Result<()> {
        let (user, realm) = name.split_once('@').unwrap_or((name, REALM));
        let run = async {
            let mut child = Command::new(&self.program)
                .args(["-p", "-c", "-u", realm, "-f"])
                .args([self.file.as_os_str(), user.as_ref()])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            if let Some(mut pipe) = child.stdin.take() {
                pipe.write_all(password.as_bytes()).await?;
            }
            child.wait_with_output().await
        };
        let ended = run.await.map_err(Error::system("run saslpasswd2"))?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
            return Err(Error::Refused { protocol: "saslpasswd2", said });
        }
        self.owner.give(&self.file)?;
        let mut passwords = self.passwords.lock().unwrap_or_else(PoisonError::into_inner);
        passwords.insert(name.to_owned(), password.to_owned());
        Ok(())
    }

    /// The password of an account; none when there is no such account.
    pub(super) fn password(&self, name: &str) -> String {
        let passwords = self.passwords.lock().unwrap_or_else(PoisonError::into_inner);
        passwords.get(name).cloned().unwrap_or_default()
    }
}
