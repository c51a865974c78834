//! The files that Postfix reads, and the folders that it wants to find.

use std::{
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    path::Path,
};

use super::{Options, Ports};
use crate::{
    dovecot::{Dovecot, SENT_ITEMS},
    error::{Error, Result},
    file,
};

const MAIN: &str = include_str!("../../templates/postfix-main.cf.in");
const MASTER: &str = include_str!("../../templates/postfix-master.cf.in");

/// Folders of the queue that belong to Postfix's own user.
const QUEUE: [&str; 14] = [
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "maildrop", "private", "public",
    "saved", "trace", "../data",
];

/// Statuses that a recipient can name for a mail that is taken and comes back.
const COMEBACKS: [&str; 6] = ["5.1.1", "5.2.1", "5.2.2", "5.4.1", "5.7.1", "5.7.133"];

/// Whose files those of Postfix are.
pub(super) struct Owner {
    uid: u32,
}

impl Owner {
    /// Postfix's own user, when this process may give it files.
    ///
    /// # Errors
    /// [`Error::NotRoot`] when it may not; when Postfix is not installed, what to install.
    pub(super) fn find() -> Result<Self> {
        let this = Path::new("/proc/self");
        if std::fs::metadata(this).map_err(Error::file("look at", this))?.uid() != 0 {
            return Err(Error::NotRoot);
        }
        let users = Path::new("/etc/passwd");
        let text = std::fs::read_to_string(users).map_err(Error::file("read", users))?;
        let line = text.lines().find_map(|line| line.strip_prefix("postfix:"));
        let uid = line.and_then(|line| line.split(':').nth(1)).and_then(|uid| uid.parse().ok());
        let missing = || Error::Server {
            server: super::PROGRAM.name,
            what: "is not installed".to_owned(),
            log: format!("install it: apt-get install {}", super::PROGRAM.packages),
        };
        uid.map(|uid| Self { uid }).ok_or_else(missing)
    }
}

/// Creates the folders of an instance in `dir`.
pub(super) fn create_dirs(dir: &Path, owner: &Owner) -> Result<()> {
    create(&dir.join("config"), 0o755)?;
    create(&dir.join("queue"), 0o755)?;
    create(&dir.join("queue/pid"), 0o755)?;
    for name in QUEUE {
        let path = dir.join("queue").join(name);
        create(&path, 0o700)?;
        chown(&path, Some(owner.uid), None).map_err(Error::file("give away", &path))?;
    }
    Ok(())
}

/// Writes the configuration of an instance in `dir`.
pub(super) fn write(dir: &Path, ports: &Ports, options: &Options, dovecot: &Dovecot) -> Result<()> {
    let base = dir.to_string_lossy();
    let config = dir.join("config");
    let tls = dovecot.authority().certificate_file().parent().unwrap_or(Path::new("/")).to_string_lossy();
    let copies = if options.keeps_no_copy { String::new() } else { format!("regexp:{base}/config/copies") };
    let main = MAIN
        .replace("@LMTP@", &dovecot.lmtp_addr().port().to_string())
        .replace("@SASL@", &dovecot.sasl_socket().to_string_lossy())
        .replace("@TLS@", &tls)
        .replace("@SIZE@", &options.largest_mail.unwrap_or(super::LARGEST_MAIL).to_string())
        .replace("@COPIES@", &copies)
        .replace("@BASE@", &base);
    let master = MASTER
        .replace("@SUBMISSIONS@", &ports.submissions.to_string())
        .replace("@SUBMISSION@", &ports.submission.to_string())
        .replace("@OPEN@", &ports.open.to_string());
    let comebacks: String = COMEBACKS
        .iter()
        .map(|status| format!("/^bounce-{}@/ comeback:{status}\n", status.replace('.', "\\.")))
        .collect();
    let words = "${1} ${2} The testbed answers as the address says";
    for (name, text) in [
        ("main.cf", main),
        ("master.cf", master),
        ("transport", comebacks),
        ("owners", "/^(.*)$/ ${1}\n".to_owned()),
        ("replies", format!("/^reply-([45][0-9][0-9])-([45]\\.[0-9]+\\.[0-9]+)@/ {words}\n")),
        ("copies", format!("/^([^@:]+)@([^@]+)$/ ${{1}}:{SENT_ITEMS}@${{2}}\n")),
    ] {
        file::write(&config.join(name), text.as_bytes())?;
    }
    Ok(())
}

fn create(path: &Path, mode: u32) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    // Whatever umask this process has.
    made.and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
        .map_err(Error::file("create", path))
}
