//! mbsync (isync): every mailbox whole into a fresh Maildir of its own, one after the other, as it does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use crate::figures::Lap;
use crate::process;
use crate::reading::Stage;

/// Pulls everything from its start to its end; `fsync`: whether each message is made durable.
pub(crate) async fn measure(stage: &Stage, fsync: bool) -> anyhow::Result<Lap> {
    let dir = stage.fresh_dir("mbsync")?;
    let config = dir.join("mbsyncrc");
    fs::write(&config, configuration(stage, &dir, fsync))?;
    // It holds the password.
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
    for number in 0..stage.mailboxes.len() {
        fs::create_dir_all(dir.join(format!("mail/{number}")))?;
    }
    let mut command = Command::new("mbsync");
    command.arg("-q").arg("-c").arg(&config).arg("bench").env("HOME", &dir).stdin(Stdio::null());
    let finished = process::measure("mbsync (Debian package isync)", command).await?;
    let mut got = 0;
    for number in 0..stage.mailboxes.len() {
        let count = |folder: &str| fs::read_dir(dir.join(format!("mail/{number}/INBOX/{folder}"))).map(Iterator::count);
        got += count("new").and_then(|new| Ok(new + count("cur")?)).context("mbsync left no Maildir")?;
    }
    ensure!(got as u64 == stage.messages, "mbsync has {got} messages instead of {}", stage.messages);
    Ok(Lap { seconds: finished.seconds, messages: stage.messages, usage: finished.usage })
}

/// Pull only: nothing is changed on the server, flags neither.
fn configuration(stage: &Stage, dir: &Path, fsync: bool) -> String {
    let mut text = format!("FSync {}\n\n", if fsync { "yes" } else { "no" });
    for (number, user) in stage.mailboxes.iter().enumerate() {
        text.push_str(&format!(
            "IMAPAccount account{number}\nHost {host}\nPort {port}\nUser {user}\nPass \"{password}\"\nAuthMechs PLAIN\n\
             SSLType IMAPS\nSystemCertificates no\nCertificateFile \"{ca}\"\n\n\
             IMAPStore far{number}\nAccount account{number}\n\n\
             MaildirStore near{number}\nPath \"{dir}/mail/{number}/\"\nInbox \"{dir}/mail/{number}/INBOX\"\nSubFolders Verbatim\n\n\
             Channel bench{number}\nFar :far{number}:\nNear :near{number}:\nPatterns INBOX\nCreate Near\nSync Pull\nSyncState *\n\n",
            host = stage.testbed.host(),
            port = stage.testbed.imap_port(),
            password = stage.testbed.dovecot.password(),
            ca = stage.testbed.ca_file().display(),
            dir = dir.display(),
        ));
    }
    text.push_str("Group bench\n");
    for number in 0..stage.mailboxes.len() {
        text.push_str(&format!("Channel bench{number}\n"));
    }
    text
}
