//! A private Postfix: own folder, own loopback ports, gone with the value that stands for it. It signs clients in as
//! Dovecot does and delivers everything into Dovecot. It runs as root only, since it becomes other users.
//!
//! What a recipient's address can bring about:
//!
//! | address | what happens |
//! |---|---|
//! | `reply-450-4.2.1@…`, `reply-550-5.1.1@…`, … | refused with that reply (classes 4 and 5) |
//! | `bounce-5.1.1@…`, also 5.2.1, 5.2.2, 5.4.1, 5.7.1, 5.7.133 | taken, and sent back to the sender (RFC 3464) |
//! | any other | delivered |

mod config;
mod log;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    sync::Mutex,
};

use self::config::Owner;
pub use self::log::Taken;
use crate::{
    dovecot::{self, Dovecot},
    error::{Error, Result},
    port,
    process::{Process, Program, START_SECONDS},
};

/// Largest mail when nothing else was set: that of Exchange Online.
pub const LARGEST_MAIL: u64 = 150 << 20;

/// How many sets of ports are tried before a start gives up.
const PORT_TRIES: u32 = 8;

const PROGRAM: Program = Program {
    name: "postfix",
    // In a session of its own, as it wants it: it ends its processes by their group.
    command: r#"setsid "$(postconf -dh daemon_directory)/master" -c "$1/config" -d"#,
    log: "postfix.log",
    packages: "postfix",
};

/// How the instance differs from the usual one.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Largest mail in bytes; [`LARGEST_MAIL`] when absent.
    pub largest_mail: Option<u64>,
    /// Nothing is copied into the sender's [`SENT_ITEMS`](dovecot::SENT_ITEMS), as it is by Exchange.
    pub keeps_no_copy: bool,
}

/// A running (or stopped) Postfix.
#[derive(Debug)]
pub struct Postfix {
    // Ordering: fields drop from top to bottom; the process ends before its folder goes.
    process: Mutex<Option<Process>>,
    dir: TempDir,
    ports: Ports,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    submission: u16,
    submissions: u16,
    open: u16,
}

impl Postfix {
    /// Starts an instance before `dovecot`, with its certificate, and waits until it greets.
    ///
    /// # Errors
    /// [`Error::NotRoot`]; [`Error::Server`] with the last lines of its log when it is not installed, refuses its
    /// configuration or does not greet in time.
    pub async fn start(dovecot: &Dovecot, options: &Options) -> Result<Self> {
        let owner = Owner::find()?;
        let dir = dovecot::short_dir()?;
        config::create_dirs(dir.path(), &owner)?;
        let mut tries = 0;
        loop {
            tries += 1;
            let ports = Ports { submission: port::free()?, submissions: port::free()?, open: port::free()? };
            config::write(dir.path(), &ports, options, dovecot)?;
            match launch(dir.path(), &ports).await {
                Ok(process) => return Ok(Self { process: Mutex::new(Some(process)), dir, ports }),
                // Another process took a port between our look and Postfix's.
                Err(Error::Server { log, .. }) if log.contains("Address already in use") && tries < PORT_TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where mail is submitted after STARTTLS (RFC 6409).
    pub fn submission_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.submission).into()
    }

    /// Where mail is submitted over TLS from the first byte (RFC 8314).
    pub fn submissions_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.submissions).into()
    }

    /// Where mail is taken without TLS and without a sign-in.
    pub fn open_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.open).into()
    }

    /// Most connections that were open at once for a user who had signed in. Behind by what Postfix has not logged yet.
    pub fn most_at_once(&self, user: &str) -> Result<usize> {
        Ok(log::most_at_once(&self.log()?, user))
    }

    /// The mails that it took, in order. Behind by what Postfix has not logged yet.
    pub fn taken(&self) -> Result<Vec<Taken>> {
        Ok(log::taken(&self.log()?))
    }

    /// What it has logged since it was started the last time.
    pub fn log(&self) -> Result<String> {
        let path = self.dir.path().join(PROGRAM.log);
        let bytes = std::fs::read(&path).map_err(Error::file("read", &path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Its folder: configuration, log and queue.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Stops it as an administrator would; its queue stays. Does nothing when it is stopped.
    pub async fn stop(&self) -> Result<()> {
        match self.process.lock().await.take() {
            Some(process) => process.stop("TERM").await,
            None => Ok(()),
        }
    }

    /// Stops it when it runs, and starts it with the queue and ports that it had.
    pub async fn restart(&self) -> Result<()> {
        let mut running = self.process.lock().await;
        if let Some(process) = running.take() {
            process.stop("TERM").await?;
        }
        *running = Some(relaunch(self.dir.path(), &self.ports).await?);
        Ok(())
    }
}

/// Starts it where another has just ended: the processes that served its clients were killed, and until the kernel is
/// through with them they hold its ports and its lock, and the new one ends at once.
async fn relaunch(dir: &Path, ports: &Ports) -> Result<Process> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(START_SECONDS);
    for port in [ports.submission, ports.submissions, ports.open] {
        // A greeting of those that are left would be taken for one of the new.
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    loop {
        match launch(dir, ports).await {
            Err(Error::Server { what, .. }) if what.starts_with("ended") && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => return other,
        }
    }
}

async fn launch(dir: &Path, ports: &Ports) -> Result<Process> {
    Process::start(&PROGRAM, dir)?.until(async || greets(ports.submission).await && greets(ports.open).await).await
}

async fn greets(port: u16) -> bool {
    let greeting = async {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await?;
        std::io::Result::Ok(line)
    };
    greeting.await.is_ok_and(|line| line.starts_with("220 "))
}
