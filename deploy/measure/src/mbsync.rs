//! mbsync (isync): the whole mailbox into a fresh Maildir.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use crate::figures::Lap;
use crate::mailbox::Stage;
use crate::process;

/// Pulls everything from its start to its end; `fsync`: whether each message is made durable.
pub(crate) async fn measure(stage: &Stage, fsync: bool) -> anyhow::Result<Lap> {
    let dir = stage.fresh_dir("mbsync")?;
    let config = dir.join("mbsyncrc");
    fs::write(&config, configuration(stage, &dir, fsync))?;
    // It holds the password.
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
    fs::create_dir(dir.join("mail"))?;
    let mut command = Command::new("mbsync");
    command.arg("-q").arg("-c").arg(&config).arg("bench").env("HOME", &dir).stdin(Stdio::null());
    let finished = process::measure("mbsync (Debian package isync)", command).await?;
    let count = |folder: &str| fs::read_dir(dir.join("mail/INBOX").join(folder)).map(Iterator::count);
    let got = count("new").and_then(|new| Ok(new + count("cur")?)).context("mbsync left no Maildir")?;
    ensure!(got as u64 == stage.messages, "mbsync has {got} messages instead of {}", stage.messages);
    Ok(Lap { seconds: finished.seconds, messages: stage.messages, usage: finished.usage })
}

/// Pull only: nothing is changed on the server, flags neither.
fn configuration(stage: &Stage, dir: &Path, fsync: bool) -> String {
    format!(
        "FSync {fsync}\n\n\
         IMAPAccount bench\nHost {host}\nPort {port}\nUser {user}\nPass \"{password}\"\nAuthMechs PLAIN\n\
         SSLType IMAPS\nSystemCertificates no\nCertificateFile \"{ca}\"\n\n\
         IMAPStore far\nAccount bench\n\n\
         MaildirStore near\nPath \"{dir}/mail/\"\nInbox \"{dir}/mail/INBOX\"\nSubFolders Verbatim\n\n\
         Channel bench\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync Pull\nSyncState *\n",
        fsync = if fsync { "yes" } else { "no" },
        host = stage.testbed.host(),
        port = stage.testbed.imap_port(),
        user = stage.mailbox,
        password = stage.testbed.dovecot.password(),
        ca = stage.testbed.ca_file().display(),
        dir = dir.display(),
    )
}
