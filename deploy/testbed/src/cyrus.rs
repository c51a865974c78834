//! A private Cyrus IMAP 3.6: own folder, own loopback ports, own mail, gone with the value that stands for it. It has no
//! sign-in by token; accounts have a password each.
//!
//! Its package cannot be installed beside Dovecot's, so `deploy/testbed/cyrus/setup` unpacks it. It writes no log of its
//! own but to syslog, so an error has only what its master says.

mod accounts;
mod config;
mod mailbox;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tokio::sync::Mutex;
use uuid::Uuid;

use self::accounts::Accounts;
use crate::{
    authority::Authority,
    dovecot,
    error::{Error, Result},
    imap,
    lmtp::{self, Delivery},
    port,
    process::{Process, Program},
};

/// Who makes mailboxes.
const ADMIN: &str = "admin";

const PROGRAM: Program =
    Program { name: "cyrus", command: r#"sh "$1/run""#, log: "master.log", packages: "(see deploy/lib/common.sh)" };

/// A running (or, between [`stop`](Self::stop) and [`restart`](Self::restart), stopped) Cyrus.
#[derive(Debug)]
pub struct Cyrus {
    // Ordering: fields drop from top to bottom; the process ends before its folder goes.
    process: Mutex<Option<Process>>,
    dir: TempDir,
    authority: Authority,
    accounts: Accounts,
    admin_password: String,
    imap_port: u16,
    lmtp_port: u16,
}

impl Cyrus {
    /// Starts an instance without a mailbox and waits until it greets.
    ///
    /// # Errors
    /// [`Error::Server`] when it is not installed or does not greet in time.
    pub async fn start() -> Result<Self> {
        let unpacked = installed()?;
        let dir = dovecot::short_dir()?;
        let authority = Authority::create(&dir.path().join("tls"))?;
        let owner = config::Owner::of_this_process()?;
        let (imap_port, lmtp_port) = (port::free()?, port::free()?);
        config::prepare(dir.path(), &unpacked, &authority, &owner)?;
        config::write(dir.path(), imap_port, lmtp_port, &owner)?;
        let accounts = Accounts::new(dir.path(), &unpacked, owner);
        let admin_password = Uuid::new_v4().simple().to_string();
        accounts.set_password(ADMIN, &admin_password).await?;
        let process = Mutex::new(Some(launch(dir.path(), &authority, imap_port, lmtp_port).await?));
        Ok(Self { process, dir, authority, accounts, admin_password, imap_port, lmtp_port })
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

    /// Its folder: configuration, log and, in `state` and `mail`, everything that it keeps.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a mailbox, and an account that opens it.
    pub async fn create_mailbox(&self, email: &str, password: &str) -> Result<()> {
        self.accounts.set_password(email, password).await?;
        let mut admin = imap::Client::connect(self.imap_addr(), &self.authority).await?;
        admin.sign_in_with_password(ADMIN, &self.admin_password).await?;
        admin.command(&format!("CREATE user/{email}")).await.map(drop)
    }

    /// Changes the password of an account. Holds from the next sign-in on.
    pub async fn set_password(&self, email: &str, password: &str) -> Result<()> {
        self.accounts.set_password(email, password).await
    }

    /// Signs in to a mailbox.
    pub async fn open(&self, email: &str) -> Result<imap::Client> {
        let mut client = imap::Client::connect(self.imap_addr(), &self.authority).await?;
        client.sign_in_with_password(email, &self.accounts.password(email)).await?;
        Ok(client)
    }

    /// Delivers messages one after the other: they lie in the mailbox in this order.
    pub async fn deliver(&self, deliveries: impl IntoIterator<Item = Delivery>) -> Result<()> {
        lmtp::Client::connect(self.lmtp_addr()).await?.deliver(deliveries).await
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
        *running = Some(launch(self.dir.path(), &self.authority, self.imap_port, self.lmtp_port).await?);
        Ok(())
    }
}

async fn launch(dir: &Path, authority: &Authority, imap_port: u16, lmtp_port: u16) -> Result<Process> {
    Process::start(&PROGRAM, dir)?.until(async || dovecot::greets(authority, imap_port, lmtp_port).await).await
}

/// Where `deploy/testbed/cyrus/setup` has put it: into a folder beside those of the build, from which we run.
fn installed() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(Error::system("learn where this program is"))?;
    let mut places = own.ancestors().take(5).map(|folder| folder.join("cyrus"));
    places.find(|place| place.join("unpacked.txt").exists()).ok_or_else(|| Error::Server {
        server: PROGRAM.name,
        what: "is not installed".to_owned(),
        log: "unpack it: deploy/testbed/cyrus/setup target/cyrus".to_owned(),
    })
}
