//! A private Dovecot 2.3: own folder, own loopback ports, own mail, gone with the value that stands for it.
//!
//! Dovecot notices new mail at once only by inotify, and every idling IMAP process takes one of the kernel's instances
//! (`fs.inotify.max_user_instances`, 128 by default). Past that it looks every 2 s. Thousands of idlers are cheap with
//! [`Options::hibernate_after`], which keeps them in one process.

mod admin;
mod config;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::Mutex;
use uuid::Uuid;

pub use self::admin::{Admin, Stored};
use crate::{
    authority::Authority,
    error::{Error, Result},
    imap, port,
    process::{Process, Program},
};

/// How many pairs of ports are tried before a start gives up.
const PORT_TRIES: u32 = 8;

const PROGRAM: Program = Program {
    name: "dovecot",
    command: r#"dovecot -F -c "$1/dovecot.conf""#,
    log: "dovecot.log",
    packages: "dovecot-core dovecot-imapd dovecot-lmtpd",
};
/// The folder that mail sent by a mailbox is copied to, as Exchange names it in English.
pub const SENT_ITEMS: &str = "Sent Items";

/// How the instance differs from the usual one.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The password that PLAIN and LOGIN accept for every user; a random one when absent.
    pub password: Option<String>,
    /// Idle connections move to one common process after this time (whole seconds, at least 1).
    pub hibernate_after: Option<Duration>,
}

/// A running (or, between [`stop`](Self::stop) and [`restart`](Self::restart), stopped) Dovecot.
#[derive(Debug)]
pub struct Dovecot {
    // Ordering: fields drop from top to bottom; the process ends before its folder goes.
    process: Mutex<Option<Process>>,
    dir: TempDir,
    authority: Authority,
    options: Options,
    imap_port: u16,
    lmtp_port: u16,
}

impl Dovecot {
    /// Starts an instance that accepts tokens signed with `token_key` (HS256) and waits until it greets.
    ///
    /// # Errors
    /// [`Error::Server`] with the last lines of its log when it is not installed, refuses its configuration or does
    /// not greet in time.
    pub async fn start(token_key: &[u8], options: Options) -> Result<Self> {
        let dir = short_dir()?;
        let authority = Authority::create(&dir.path().join("tls"))?;
        config::create_mail_dir(dir.path())?;
        config::write_keys(dir.path(), token_key)?;
        let password = options.password.clone().unwrap_or_else(|| Uuid::new_v4().simple().to_string());
        config::write_password(dir.path(), &password)?;
        let options = Options { password: Some(password), ..options };

        let mut tries = 0;
        loop {
            tries += 1;
            let (imap_port, lmtp_port) = (port::free()?, port::free()?);
            config::write(dir.path(), imap_port, lmtp_port, &options)?;
            match launch(dir.path(), &authority, imap_port, lmtp_port).await {
                Ok(process) => {
                    let process = Mutex::new(Some(process));
                    return Ok(Self { process, dir, authority, options, imap_port, lmtp_port });
                }
                // Another process took a port between our look and Dovecot's.
                Err(error) if port_was_taken(&error) && tries < PORT_TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where IMAP over TLS is spoken.
    pub fn imap_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.imap_port).into()
    }

    /// Where LMTP is spoken, without TLS.
    pub fn lmtp_addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.lmtp_port).into()
    }

    /// Who signed its certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What PLAIN and LOGIN accept for every user.
    pub fn password(&self) -> &str {
        self.options.password.as_deref().unwrap_or_default()
    }

    /// Changes what PLAIN and LOGIN accept. Holds for sign-ins from the next second on.
    pub fn set_password(&mut self, password: &str) -> Result<()> {
        config::write_password(self.dir.path(), password)?;
        self.options.password = Some(password.to_owned());
        Ok(())
    }

    /// The unix socket that other servers ask about sign-ins, in Dovecot's own protocol.
    pub(crate) fn sasl_socket(&self) -> PathBuf {
        self.dir.path().join("base/smtp-auth")
    }

    /// Its folder: configuration, log and mail.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Stops it as an administrator would; its mail stays. Does nothing when it is stopped.
    pub async fn stop(&self) -> Result<()> {
        match self.process.lock().await.take() {
            Some(process) => process.stop("TERM").await,
            None => Ok(()),
        }
    }

    /// Stops it when it runs, and starts it with the mail and ports that it had.
    pub async fn restart(&self) -> Result<()> {
        let mut running = self.process.lock().await;
        if let Some(process) = running.take() {
            process.stop("TERM").await?;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match launch(self.dir.path(), &self.authority, self.imap_port, self.lmtp_port).await {
                Ok(process) => {
                    *running = Some(process);
                    return Ok(());
                }
                // The last processes of the former life may hold the ports for a moment.
                Err(error) if port_was_taken(&error) && tries < PORT_TRIES => {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

async fn launch(dir: &Path, authority: &Authority, imap_port: u16, lmtp_port: u16) -> Result<Process> {
    // A socket that a former life left behind makes one login in many wait for seconds.
    let base = dir.join("base");
    if base.exists() {
        std::fs::remove_dir_all(&base).map_err(Error::file("remove", &base))?;
    }
    Process::start(&PROGRAM, dir)?.until(async || greets(authority, imap_port, lmtp_port).await).await
}

/// True when a mail server speaks IMAP over TLS and LMTP.
pub(crate) async fn greets(authority: &Authority, imap_port: u16, lmtp_port: u16) -> bool {
    let lmtp = (Ipv4Addr::LOCALHOST, lmtp_port).into();
    let imap = (Ipv4Addr::LOCALHOST, imap_port).into();
    crate::lmtp::Client::connect(lmtp).await.is_ok() && imap::Client::connect(imap, authority).await.is_ok()
}

fn port_was_taken(error: &Error) -> bool {
    matches!(error, Error::Server { log, .. } if log.contains("Address already in use"))
}

/// A folder with a short path: a server's unix sockets lie below it, and the path of one ends at 108 bytes.
pub(crate) fn short_dir() -> Result<TempDir> {
    const LONGEST: usize = 40;
    let parent = Some(std::env::temp_dir()).filter(|path| path.as_os_str().len() <= LONGEST);
    let parent = parent.unwrap_or_else(|| PathBuf::from("/tmp"));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    let dir = tempfile::Builder::new().prefix("prt").permissions(mode).tempdir_in(&parent);
    dir.map_err(Error::file("create a folder in", &parent))
}
