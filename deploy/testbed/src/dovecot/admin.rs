//! What an administrator sees and does: `doveadm` with the configuration of this instance.

use std::{path::PathBuf, process::Stdio, time::Duration};

use super::Dovecot;
use crate::error::{Error, Result};

const COMMAND_SECONDS: u64 = 60;
/// A flag of the session that looks, not of the message.
const RECENT: &str = "\\Recent";

/// Runs `doveadm` with the configuration of one instance.
#[derive(Clone, Debug)]
pub struct Admin {
    config: PathBuf,
}

/// A message as it lies in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its UID in the folder.
    pub uid: u32,
    /// Its flags, for example `\Seen`; `\Recent` is left out.
    pub flags: Vec<String>,
    /// Its header `Message-ID`, or nothing.
    pub message_id: String,
    /// Its header `Subject`, or nothing.
    pub subject: String,
}

impl Stored {
    /// Whether the message has the flag `\Seen`.
    pub fn is_seen(&self) -> bool {
        self.flags.iter().any(|flag| flag == "\\Seen")
    }
}

impl Dovecot {
    /// Number of messages in a folder of a user.
    pub async fn count(&self, user: &str, folder: &str) -> Result<usize> {
        self.number("messages", user, folder).await
    }

    /// Number of messages without `\Seen` in a folder of a user.
    pub async fn count_unseen(&self, user: &str, folder: &str) -> Result<usize> {
        self.number("unseen", user, folder).await
    }

    /// The messages of a folder of a user, in the order of their UIDs.
    pub async fn messages(&self, user: &str, folder: &str) -> Result<Vec<Stored>> {
        let fields = "uid flags hdr.message-id hdr.subject";
        let said = self.doveadm(&["-f", "tab", "fetch", "-u", user, fields, "mailbox", folder, "all"]).await?;
        Ok(said.lines().skip(1).filter_map(stored).collect())
    }

    /// How many messages of a folder have this Message-ID, without its brackets. None when there is no such folder.
    pub async fn count_by_id(&self, user: &str, folder: &str, message_id: &str) -> Result<usize> {
        self.admin().find_by_id(user, folder, message_id).await.map(|found| found.len())
    }

    /// Creates a folder.
    pub async fn create_folder(&self, user: &str, folder: &str) -> Result<()> {
        self.doveadm(&["mailbox", "create", "-u", user, folder]).await.map(drop)
    }

    /// Deletes a folder with all its messages. Created again it has another UIDVALIDITY; INBOX does so by itself.
    pub async fn delete_folder(&self, user: &str, folder: &str) -> Result<()> {
        self.doveadm(&["mailbox", "delete", "-u", user, folder]).await.map(drop)
    }

    /// Gives a folder of a user another UIDVALIDITY. Whoever reads it has to connect again, and is made to.
    pub async fn number_folder(&self, user: &str, folder: &str, uid_validity: u32) -> Result<()> {
        let uid_validity = uid_validity.to_string();
        self.doveadm(&["mailbox", "update", "-u", user, "--uid-validity", &uid_validity, folder]).await?;
        self.kick(user).await
    }

    /// Number of connections that a user is signed in on.
    pub async fn sessions(&self, user: &str) -> Result<usize> {
        let said = self.doveadm(&["-f", "tab", "who", "-1", user]).await?;
        Ok(said.lines().skip(1).filter(|line| line.split('\t').next() == Some(user)).count())
    }

    /// Ends all connections of a user, as Exchange does when a token expires. Dovecot itself looks at a token only at
    /// sign-in. Does nothing when there are none.
    pub async fn kick(&self, user: &str) -> Result<()> {
        match self.doveadm(&["kick", user]).await {
            Err(Error::Doveadm { said, .. }) if said.contains("no users kicked") => Ok(()),
            other => other.map(drop),
        }
    }

    /// Runs a `doveadm` command and returns its output.
    pub async fn doveadm(&self, args: &[&str]) -> Result<String> {
        self.admin().run(args).await
    }

    /// What runs `doveadm`, for somebody who cannot borrow the server.
    pub fn admin(&self) -> Admin {
        Admin { config: self.dir().join("dovecot.conf") }
    }

    async fn number(&self, what: &str, user: &str, folder: &str) -> Result<usize> {
        let args = ["-f", "tab", "mailbox", "status", "-u", user, what, folder];
        let said = self.doveadm(&args).await?;
        let number = said.lines().nth(1).and_then(|line| line.split('\t').nth(1)).and_then(|text| text.parse().ok());
        number.ok_or_else(|| Error::Doveadm { command: args.join(" "), said: format!("unexpected answer: {said}") })
    }
}

impl Admin {
    /// The UIDs of the messages of a folder that have this Message-ID, without its brackets. None when there is no such
    /// folder.
    pub async fn find_by_id(&self, user: &str, folder: &str, message_id: &str) -> Result<Vec<u32>> {
        let id = format!("<{message_id}>");
        let args = ["-f", "tab", "fetch", "-u", user, "uid", "mailbox", folder, "header", "message-id", &id];
        match self.run(&args).await {
            Ok(said) => Ok(said.lines().skip(1).filter_map(|line| line.parse().ok()).collect()),
            Err(Error::Doveadm { said, .. }) if said.contains("doesn't exist") => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Runs a `doveadm` command and returns its output.
    pub async fn run(&self, args: &[&str]) -> Result<String> {
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/bin:/usr/sbin";
        let output = tokio::process::Command::new("doveadm")
            .arg("-c")
            .arg(&self.config)
            .args(args)
            .env("PATH", path)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(COMMAND_SECONDS), output)
            .await
            .map_err(|_| Error::Late { what: format!("doveadm {}", args.join(" ")), seconds: COMMAND_SECONDS })?
            .map_err(Error::system("run doveadm"))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let said = [output.stderr, output.stdout].concat();
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            Err(Error::Doveadm { command: args.join(" "), said })
        }
    }
}

/// Reads one line of `doveadm -f tab fetch`.
fn stored(line: &str) -> Option<Stored> {
    let mut fields = line.split('\t');
    Some(Stored {
        uid: fields.next()?.parse().ok()?,
        flags: fields.next()?.split_whitespace().filter(|flag| *flag != RECENT).map(str::to_owned).collect(),
        message_id: fields.next()?.to_owned(),
        subject: fields.next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_fetch_is_read() {
        let message = stored("7\t\\Seen \\Recent\t<a@b>\tA subject").unwrap();
        assert_eq!(message.flags, ["\\Seen"]);
        assert_eq!((message.uid, message.is_seen(), message.subject.as_str()), (7, true, "A subject"));
        assert_eq!(stored("7\t\t\t").unwrap().flags, Vec::<String>::new());
        assert_eq!(stored("nonsense"), None);
    }
}
