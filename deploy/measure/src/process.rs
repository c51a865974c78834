//! A client process: how long it runs, the CPU time it takes and its largest resident memory.
//!
//! Both come from `/proc` (proc(5)), which still knows the CPU time of a process that has ended and was not waited for.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::Instant;

/// Clock ticks of a second in `/proc/PID/stat`; the same on every architecture that Linux runs on today.
const TICKS: f64 = 100.0;
/// Time between two looks at the memory of a process that will end by itself.
const LOOK: Duration = Duration::from_millis(20);
/// Longest time for one run of a client.
pub(crate) const LONGEST_RUN: Duration = Duration::from_secs(600);

/// What a process used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Usage {
    /// User and system time of its threads and of the children that it waited for.
    pub(crate) cpu_seconds: f64,
    /// Largest resident memory.
    pub(crate) peak_rss_bytes: u64,
}

/// A process that has ended well.
pub(crate) struct Finished {
    /// From just before its start to its end.
    pub(crate) seconds: f64,
    pub(crate) usage: Usage,
    /// What it wrote to standard output.
    pub(crate) output: String,
}

/// Runs a command to its end.
pub(crate) async fn measure(name: &str, mut command: Command) -> anyhow::Result<Finished> {
    let begun = Instant::now();
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{name} does not start"))?;
    let pid = child.id().context("the child has ended before it was looked at")?;
    let mut stdout = child.stdout.take().context("the child has no standard output")?;
    let mut output = Vec::new();
    let mut peak = 0;
    let watched = async {
        // Ordering: its output ends when the process does, and it is not waited for before its CPU time was read.
        let ended = stdout.read_to_end(&mut output);
        let mut ended = std::pin::pin!(ended);
        loop {
            tokio::select! {
                read = &mut ended => break read,
                () = tokio::time::sleep(LOOK) => peak = peak.max(peak_rss(pid)),
            }
        }
    };
    match tokio::time::timeout(LONGEST_RUN, watched).await {
        Ok(read) => read.with_context(|| format!("{name} cannot be read from"))?,
        Err(_) => bail!("{name} has not ended within {} s", LONGEST_RUN.as_secs()),
    };
    let seconds = begun.elapsed().as_secs_f64();
    while !has_ended(pid) && begun.elapsed() < LONGEST_RUN {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let cpu_seconds = cpu_seconds(pid)?;
    let status = child.wait().await?;
    if !status.success() {
        bail!("{name} failed ({status}): {}", String::from_utf8_lossy(&output).trim());
    }
    let usage = Usage { cpu_seconds, peak_rss_bytes: peak };
    Ok(Finished { seconds, usage, output: String::from_utf8_lossy(&output).into_owned() })
}

/// What a running process has used so far.
pub(crate) fn usage(pid: u32) -> anyhow::Result<Usage> {
    Ok(Usage { cpu_seconds: cpu_seconds(pid)?, peak_rss_bytes: peak_rss(pid) })
}

fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = stat(pid).with_context(|| format!("/proc/{pid}/stat cannot be read"))?;
    // utime, stime, cutime, cstime: fields 14 to 17, of which the third is the first here.
    let ticks: u64 = stat.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / TICKS)
}

fn has_ended(pid: u32) -> bool {
    stat(pid).is_none_or(|stat| stat.trim_start().starts_with('Z'))
}

/// The fields behind the name of the program, which may hold blanks and parentheses.
fn stat(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')').map(|(_, fields)| fields.to_owned())
}

/// Largest resident memory so far, in bytes; 0 when the process has ended.
fn peak_rss(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Counts the largest resident memory of a running process from now on (proc(5), clear_refs).
pub(crate) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    let file = format!("/proc/{pid}/clear_refs");
    std::fs::write(&file, "5").with_context(|| format!("{file} cannot be written"))
}

/// Resident memory now, in bytes; 0 when the process has ended.
pub(crate) fn rss(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The memory that a process has for itself, with its share of what others have too, in bytes (proc(5), smaps_rollup).
pub(crate) fn pss(pid: u32) -> anyhow::Result<u64> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&file).with_context(|| format!("{file} cannot be read"))?;
    kilobytes(&text, "Pss:").with_context(|| format!("{file} does not say"))
}

fn status(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kilobytes(&text, field).unwrap_or(0)
}

/// The value of a field in kB, in bytes.
fn kilobytes(text: &str, field: &str) -> Option<u64> {
    let kib: u64 =
        text.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix("kB")?.trim().parse().ok())?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_measured_after_its_end() {
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done"]);
        let finished = measure("a loop", command).await.unwrap();
        assert_eq!(finished.output, "done\n");
        assert!(finished.usage.cpu_seconds > 0.0, "{:?}", finished.usage);
        assert!(finished.usage.peak_rss_bytes > 0, "{:?}", finished.usage);
    }

    #[tokio::test]
    async fn a_failure_is_an_error() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo why; exit 3"]);
        let error = measure("it", command).await.err().unwrap().to_string();
        assert!(error.contains("why") && error.contains('3'), "{error}");
    }
}
