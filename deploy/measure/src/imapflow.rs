//! imapflow, the client library under EmailEngine: every message of every mailbox fetched, and nothing kept.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use crate::figures::Lap;
use crate::process;
use crate::reading::Stage;

/// Reads as its manual shows: a connection a mailbox, all at once.
const SCRIPT: &str = include_str!("../peers/imapflow.mjs");

/// Starts Node and measures it from its start to its end.
pub(crate) async fn measure(stage: &Stage) -> anyhow::Result<Lap> {
    let installed = stage.imapflow.as_deref().unwrap_or(Path::new("."));
    // Node looks for packages beside the script.
    let script = installed.join("postroom-bench.mjs");
    std::fs::write(&script, SCRIPT).with_context(|| format!("{} cannot be written", script.display()))?;
    let mut command = Command::new("node");
    command
        .arg(&script)
        .arg(stage.testbed.host())
        .arg(stage.testbed.imap_port().to_string())
        .args(&stage.mailboxes)
        .env("POSTROOM_BENCH_PASSWORD", stage.testbed.dovecot.password())
        .env("NODE_EXTRA_CA_CERTS", stage.testbed.ca_file())
        .stdin(Stdio::null());
    let finished = process::measure("imapflow", command).await?;
    let read: Vec<u64> = finished.output.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    ensure!(
        read == [stage.messages, stage.bytes],
        "imapflow says {:?} instead of {} messages of {} bytes",
        finished.output.trim(),
        stage.messages,
        stage.bytes
    );
    Ok(Lap { seconds: finished.seconds, messages: stage.messages, usage: finished.usage })
}
