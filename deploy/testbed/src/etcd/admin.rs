//! What an administrator does with `etcdctl`.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use super::{Etcd, Member, USER_PREFIX, member};
use crate::error::{Error, Result};

/// How often a leader is looked for before there is none.
const LOOKS: usize = 100;

impl Etcd {
    /// The newest revision.
    pub async fn revision(&self) -> Result<u64> {
        let said = self.ctl(&["get", "no such key", "--write-out", "json"]).await?;
        number(&said, "/header/revision")
    }

    /// Cuts off all history before the newest revision, which it returns.
    pub async fn compact(&self) -> Result<u64> {
        let revision = self.revision().await?;
        self.ctl(&["compact", &revision.to_string()]).await?;
        Ok(revision)
    }

    /// Every key with its value, for a look from outside.
    pub async fn dump(&self, prefix: &str) -> Result<String> {
        self.ctl(&["get", "--prefix", prefix]).await
    }

    /// Removes every key with this prefix; the revision goes on.
    pub async fn clear(&self, prefix: &str) -> Result<()> {
        self.ctl(&["del", "--prefix", prefix]).await.map(drop)
    }

    /// Which member leads. Waits while there is an election.
    pub async fn leader(&self) -> Result<usize> {
        for _ in 0..LOOKS {
            for number in 0..self.members.len() {
                let Ok(status) = self.status(number).await else { continue };
                if status.member == status.leader {
                    return Ok(number);
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(member::error(&self.log(0), "has no leader".to_owned()))
    }

    /// Hands leadership to the next member that answers, which it returns.
    pub async fn move_leader(&self) -> Result<usize> {
        let leader = self.leader().await?;
        for step in 1..self.members.len() {
            let next = (leader + step) % self.members.len();
            let Ok(status) = self.status(next).await else { continue };
            self.ctl_of(&self.endpoint(leader), &["move-leader", &format!("{:x}", status.member)]).await?;
            return Ok(next);
        }
        Err(member::error(&self.log(leader), "is the only member that answers".to_owned()))
    }

    /// Saves everything into a file, from the first member.
    pub async fn save(&self, path: &Path) -> Result<()> {
        self.ctl_of(&self.endpoint(0), &[OsStr::new("snapshot"), OsStr::new("save"), path.as_os_str()]).await.map(drop)
    }

    /// Makes the data folder of a member out of what was saved.
    pub(super) async fn unpack(&self, number: usize, saved: &Path) -> Result<()> {
        let folder = Member::data_in(self.folder.path(), number);
        let own = &self.members[number];
        let (name, cluster, peer) = (member::name(number), member::cluster(&self.members), own.peer_url());
        let mut command = command();
        command.args(["snapshot", "restore"]).arg(saved).arg("--data-dir").arg(folder);
        command.args(["--name", &name, "--initial-cluster", &cluster, "--initial-advertise-peer-urls", &peer]);
        run(command, "snapshot restore").await.map(drop)
    }

    /// Makes the user of the options and demands that everybody signs in. Does nothing when the options name none.
    pub(super) async fn enable_auth(&self) -> Result<()> {
        let Some((name, password)) = &self.options.user else { return Ok(()) };
        for arguments in [
            &["user", "add", "root", "--new-user-password", &self.root][..],
            &["user", "grant-role", "root", "root"],
            &["user", "add", name, "--new-user-password", password],
            &["role", "add", "postroom"],
            &["role", "grant-permission", "--prefix", "postroom", "readwrite", USER_PREFIX],
            &["user", "grant-role", name, "postroom"],
            &["auth", "enable"],
        ] {
            let mut command = self.command(&self.endpoint(0));
            command.args(arguments);
            run(command, &arguments[..2].join(" ")).await?;
        }
        Ok(())
    }

    async fn status(&self, number: usize) -> Result<Status> {
        let arguments = ["--command-timeout", "2s", "endpoint", "status", "--write-out", "json"];
        let said = self.ctl_of(&self.endpoint(number), &arguments).await?;
        let member = self::number(&said, "/0/Status/header/member_id")?;
        Ok(Status { member, leader: self::number(&said, "/0/Status/leader")? })
    }

    /// Runs a command against any member.
    async fn ctl(&self, arguments: &[&str]) -> Result<String> {
        self.ctl_of(&self.endpoints().join(","), arguments).await
    }

    async fn ctl_of(&self, endpoint: &str, arguments: &[impl AsRef<OsStr>]) -> Result<String> {
        let mut command = self.command(endpoint);
        if self.options.user.is_some() {
            command.args(["--user", &format!("root:{}", self.root)]);
        }
        command.args(arguments);
        let told: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
        run(command, &told.join(" ")).await
    }

    fn command(&self, endpoints: &str) -> tokio::process::Command {
        let mut command = command();
        command.args(["--endpoints", endpoints]);
        if let Some(authority) = &self.authority {
            command.arg("--cacert").arg(authority.ca_file()).arg("--insecure-transport=false");
        }
        command
    }
}

struct Status {
    member: u64,
    leader: u64,
}

fn command() -> tokio::process::Command {
    let mut command = tokio::process::Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").kill_on_drop(true);
    command
}

async fn run(mut command: tokio::process::Command, told: &str) -> Result<String> {
    let output = command.output().await.map_err(Error::system("run etcdctl"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(Error::Etcdctl { command: told.to_owned(), said: text(&output.stderr) }),
    }
}

fn number(json: &str, pointer: &str) -> Result<u64> {
    let said: Option<serde_json::Value> = serde_json::from_str(json).ok();
    let number = said.as_ref().and_then(|said| said.pointer(pointer)?.as_u64());
    number.ok_or_else(|| Error::Etcdctl { command: "--write-out json".to_owned(), said: json.to_owned() })
}
