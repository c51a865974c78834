//! What it ran on: figures without that mean nothing.

use std::path::Path;
use std::process::Stdio;

use anyhow::ensure;
use serde::Serialize;
use tokio::process::Command;

/// Instances of inotify that others on the machine may have.
const SPARE_WATCHES: u64 = 100;

/// The machine, and what else it was doing.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Model of the processor.
    pub(crate) processor: String,
    /// File system that the clients write to.
    pub(crate) file_system: String,
}

impl Machine {
    /// This machine; `dir` is where the clients write.
    pub(crate) fn of(dir: &Path) -> Self {
        let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: model.map_or_else(String::new, |(_, name)| name.trim().to_owned()),
            file_system: file_system(&std::fs::read_to_string("/proc/self/mounts").unwrap_or_default(), dir),
        }
    }
}

/// Processes that ran or waited to run, mean of the last minute (proc(5), loadavg).
pub(crate) fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(f64::NAN)
}

/// Refuses a machine on which Dovecot would hear of new mail only every 30 s: each connection that idles takes one instance of
/// inotify(7).
pub(crate) fn require_watches(connections: u64) -> anyhow::Result<()> {
    const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";
    let most = std::fs::read_to_string(LIMIT).ok().and_then(|text| text.trim().parse::<u64>().ok());
    ensure!(
        most.is_none_or(|most| most > connections + SPARE_WATCHES),
        "{connections} connections are to idle and {LIMIT} is {}; as root: sysctl fs.inotify.max_user_instances={}",
        most.unwrap_or_default(),
        (connections + SPARE_WATCHES).next_power_of_two(),
    );
    Ok(())
}

/// What a program says of its version; nothing when it is not there.
pub(crate) async fn version(program: &str) -> String {
    // Servers are not in everybody's path.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    let said = Command::new(program).arg("--version").env("PATH", path).stdin(Stdio::null()).output().await;
    said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Type of the file system that holds `dir`, from a list in the form of fstab(5).
fn file_system(mounts: &str, dir: &Path) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?)).filter(|(point, _)| dir.starts_with(point))
    });
    // Of mounts at the same point the last one is seen.
    mounts.max_by_key(|(point, _)| point.len()).map_or_else(String::new, |(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmpfiles xfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/tmp/x")), "tmpfs");
        assert_eq!(file_system(mounts, Path::new("/var/tmp")), "ext4");
    }
}
