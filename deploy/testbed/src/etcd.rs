//! A private etcd of one or three members: own folder, own loopback ports, gone with the value that stands for it.
//!
//! Everything that happens to an etcd can be brought about: a member dies ([`Etcd::kill`]), freezes ([`Etcd::pause`]) or
//! comes back ([`Etcd::restart`]), history is cut off ([`Etcd::compact`]), another member leads ([`Etcd::move_leader`]), all
//! is lost ([`Etcd::wipe`]) or set back to what it was ([`Etcd::restore`]).

mod admin;
mod member;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Mutex;
use uuid::Uuid;

use self::member::{Member, Process};
use crate::authority::Authority;
use crate::error::{Error, Result};

/// Longest wait for the members to answer after a start.
const START_SECONDS: u64 = 60;
/// How many sets of ports are tried before a start gives up.
const PORT_TRIES: u32 = 8;

/// How the cluster differs from the usual one: one member, no TLS, no users, in a folder that goes with it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Number of members; 0 means 1.
    pub members: usize,
    /// Clients must speak TLS. The certificates are those of [`Etcd::authority`].
    pub tls: bool,
    /// Clients must sign in by this name and password. They may read and write below [`USER_PREFIX`].
    pub user: Option<(String, String)>,
    /// How long the token of a client that signed in stays good without a call; 300 s when absent. Whole seconds.
    pub token_lifetime: Option<Duration>,
    /// Size of the database above which nothing more is written; etcd's 2 GiB when absent.
    pub quota_bytes: Option<u64>,
    /// Where the members keep their data. It stays there, and a later start over the same folder goes on with it.
    pub folder: Option<PathBuf>,
}

/// Keys that the user of [`Options::user`] may read and write.
pub const USER_PREFIX: &str = "/postroom";

/// A running etcd.
#[derive(Debug)]
pub struct Etcd {
    // Ordering: fields drop from top to bottom; the processes end before their folder goes.
    processes: Vec<Mutex<Option<Process>>>,
    members: Vec<Member>,
    folder: Folder,
    authority: Option<Authority>,
    options: Options,
    root: String,
}

#[derive(Debug)]
enum Folder {
    Temporary(TempDir),
    Named(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Named(path) => path,
        }
    }
}

impl Etcd {
    /// Starts the members on free loopback ports and waits until all of them answer.
    ///
    /// # Errors
    /// [`Error::Etcd`] with the last lines of a member's log when it is not installed or does not answer in time.
    pub async fn start(options: Options) -> Result<Self> {
        let folder = match &options.folder {
            Some(path) => {
                crate::file::create_dir(path)?;
                Folder::Named(path.clone())
            }
            None => {
                let dir = tempfile::Builder::new().prefix("prt-etcd").tempdir();
                Folder::Temporary(dir.map_err(Error::system("create a folder"))?)
            }
        };
        let authority = options.tls.then(|| Authority::create(&folder.path().join("tls"))).transpose()?;
        let is_new = !Member::data_in(folder.path(), 0).exists();
        let root = root_password(folder.path())?;
        let mut etcd = Self { processes: Vec::new(), members: Vec::new(), folder, authority, options, root };
        let mut tries = 0;
        loop {
            tries += 1;
            etcd.members = (0..etcd.options.members.max(1)).map(|_| Member::new()).collect::<Result<_>>()?;
            etcd.processes = etcd.members.iter().map(|_| Mutex::new(None)).collect();
            match etcd.start_all().await {
                Ok(()) => break,
                // Another process took a port between our look and etcd's.
                Err(Error::Etcd { log, .. })
                    if is_new && log.contains("address already in use") && tries < PORT_TRIES =>
                {
                    etcd.erase().await?;
                }
                Err(error) => return Err(error),
            }
        }
        if is_new {
            etcd.enable_auth().await?;
        }
        Ok(etcd)
    }

    /// A single member without TLS and users.
    pub async fn single() -> Result<Self> {
        Self::start(Options::default()).await
    }

    /// `host:port` of every member.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::endpoint).collect()
    }

    /// `host:port` of a member, counted from 0.
    pub fn endpoint(&self, member: usize) -> String {
        self.members[member].endpoint()
    }

    /// The setting that makes Postroom use it, with this prefix (which begins with `/`).
    pub fn url(&self, prefix: &str) -> String {
        let scheme = if self.options.tls { "etcds" } else { "etcd" };
        let user = self.options.user.as_ref().map(|(name, _)| format!("{name}@")).unwrap_or_default();
        format!("{scheme}://{user}{}{prefix}", self.endpoints().join(","))
    }

    /// Who signed the certificates; absent without TLS.
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// Folder of the members' data and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The log of a member.
    pub fn log(&self, member: usize) -> PathBuf {
        Member::log_in(self.folder.path(), member)
    }

    /// kill -9.
    pub async fn kill(&self, member: usize) -> Result<()> {
        self.end(member, "KILL").await
    }

    /// Stops a member as an administrator would.
    pub async fn stop(&self, member: usize) -> Result<()> {
        self.end(member, "TERM").await
    }

    /// Starts a member with the data and ports that it had, after killing it when it runs, and waits until it answers.
    pub async fn restart(&self, member: usize) -> Result<()> {
        self.kill(member).await?;
        self.launch(member).await?;
        self.wait_for(member).await
    }

    /// Freezes a member (SIGSTOP): its connections stay, and nothing answers.
    pub async fn pause(&self, member: usize) -> Result<()> {
        self.signal(member, "STOP").await
    }

    /// Lets a frozen member go on (SIGCONT).
    pub async fn resume(&self, member: usize) -> Result<()> {
        self.signal(member, "CONT").await
    }

    /// Loses all data: the members start anew, on the same ports, with the users they had.
    pub async fn wipe(&self) -> Result<()> {
        self.erase().await?;
        self.start_all().await?;
        self.enable_auth().await
    }

    /// Goes back to what was saved by [`save`](Self::save), revisions included, on the same ports.
    pub async fn restore(&self, saved: &Path) -> Result<()> {
        self.erase().await?;
        for number in 0..self.members.len() {
            self.unpack(number, saved).await?;
        }
        self.start_all().await
    }

    /// Ends all members and removes their data.
    async fn erase(&self) -> Result<()> {
        for number in 0..self.members.len() {
            self.kill(number).await?;
            let data = Member::data_in(self.folder.path(), number);
            if data.exists() {
                std::fs::remove_dir_all(&data).map_err(Error::file("remove", &data))?;
            }
        }
        Ok(())
    }

    async fn start_all(&self) -> Result<()> {
        for number in 0..self.members.len() {
            self.launch(number).await?;
        }
        for number in 0..self.members.len() {
            self.wait_for(number).await?;
        }
        Ok(())
    }

    async fn launch(&self, number: usize) -> Result<()> {
        let arguments = member::arguments(self.folder.path(), number, &self.members, &self.options, self.authority());
        let temporary = matches!(self.folder, Folder::Temporary(_)).then(|| self.folder.path());
        *self.processes[number].lock().await = Some(Process::start(&self.log(number), temporary, &arguments)?);
        Ok(())
    }

    /// Waits until a member knows a leader and answers reads.
    async fn wait_for(&self, number: usize) -> Result<()> {
        let ready = tokio::time::timeout(Duration::from_secs(START_SECONDS), async {
            loop {
                if let Some(process) = self.processes[number].lock().await.as_mut() {
                    process.check()?;
                }
                if self.members[number].is_healthy().await {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        match ready.await {
            Ok(answer) => answer,
            Err(_) => {
                let what = format!("did not answer within {START_SECONDS} s");
                Err(member::error(&self.log(number), what))
            }
        }
    }

    async fn end(&self, member: usize, signal: &str) -> Result<()> {
        match self.processes[member].lock().await.take() {
            Some(process) => process.end(signal).await,
            None => Ok(()),
        }
    }

    async fn signal(&self, member: usize, signal: &str) -> Result<()> {
        match self.processes[member].lock().await.as_ref() {
            Some(process) => process.signal(signal),
            None => Err(member::error(&self.log(member), format!("does not run; no {signal} for it"))),
        }
    }
}

/// A single member that all tests of a process share, each below a prefix of its own. It ends with the process.
///
/// # Panics
/// When it does not start.
pub async fn shared() -> &'static Etcd {
    static SHARED: tokio::sync::OnceCell<Etcd> = tokio::sync::OnceCell::const_new();
    SHARED.get_or_init(async || Etcd::single().await.unwrap_or_else(|error| panic!("{error}"))).await
}

/// The password of etcd's own administrator, kept so that a named folder can be gone on with.
fn root_password(folder: &Path) -> Result<String> {
    let file = folder.join("root");
    if let Ok(password) = std::fs::read_to_string(&file) {
        return Ok(password);
    }
    let password = Uuid::new_v4().simple().to_string();
    crate::file::write_private(&file, password.as_bytes())?;
    Ok(password)
}
