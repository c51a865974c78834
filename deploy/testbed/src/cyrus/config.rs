//! The files that Cyrus runs and reads.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    authority::Authority,
    error::{Error, Result},
    file,
};

const IMAPD: &str = include_str!("../../templates/cyrus-imapd.conf.in");
const MASTER: &str = include_str!("../../templates/cyrus-master.conf.in");

/// Its programs, which look for each other nowhere else.
const PROGRAMS: [&str; 5] = ["master", "imapd", "lmtpd", "idled", "ctl_cyrusdb"];
/// What it keeps; each has to be there before the first start.
const FOLDERS: [&str; 6] = ["mail", "state", "state/db", "state/lock", "state/proc", "state/socket"];

/// Starts the master, which as root becomes the owner of the mail by itself. Its libraries are not the system's.
/// Ordering: in a session of its own, since at its end it ends everybody of its process group.
const RUN: &str = "\
export LD_LIBRARY_PATH='@BIN@'
exec setsid '@BIN@/master' -C '@BASE@/imapd.conf' -M '@BASE@/cyrus.conf' -p '@BASE@/master.pid' -L '@BASE@/master.log'
";

/// Whom the mail belongs to, and who runs Cyrus.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    name: String,
    uid: u32,
    gid: u32,
}

impl Owner {
    /// An ordinary user runs it as himself. Cyrus refuses to run as root, whose mail is that of the user `mail`.
    pub(super) fn of_this_process() -> Result<Self> {
        let this = Path::new("/proc/self");
        let own = std::fs::metadata(this).map_err(Error::file("look at", this))?.uid();
        let users = Path::new("/etc/passwd");
        let text = std::fs::read_to_string(users).map_err(Error::file("read", users))?;
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(Self { name, uid, gid })
        };
        let wanted = |user: &Self| if own == 0 { user.name == "mail" } else { user.uid == own };
        text.lines().filter_map(user).find(wanted).ok_or_else(|| {
            let missing = std::io::Error::other("no user that Cyrus could run as has a name there");
            Error::file("use", users)(missing)
        })
    }

    /// Gives a file or folder to the owner.
    pub(super) fn give(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).map_err(Error::file("give away", path))
    }
}

/// Lays out the folder of an instance: what Cyrus keeps, its certificate, and its programs. These are copied, since their
/// owner may be kept out of the folder of the build.
pub(super) fn prepare(dir: &Path, unpacked: &Path, authority: &Authority, owner: &Owner) -> Result<()> {
    for name in FOLDERS {
        let path = dir.join(name);
        file::create_dir(&path)?;
        owner.give(&path)?;
    }
    for (from, name) in [(authority.certificate_file(), "server.pem"), (authority.key_file(), "server.key")] {
        copy(from, &dir.join(name))?;
        owner.give(&dir.join(name))?;
    }
    let bin = dir.join("bin");
    file::create_dir(&bin)?;
    for name in PROGRAMS {
        copy(&unpacked.join("usr/lib/cyrus/bin").join(name), &bin.join(name))?;
    }
    for library in libraries(unpacked)? {
        let Some(name) = library.file_name() else { continue };
        copy(&library, &bin.join(name))?;
    }
    Ok(())
}

/// Writes the configuration of an instance in `dir`.
pub(super) fn write(dir: &Path, imap_port: u16, lmtp_port: u16, owner: &Owner) -> Result<()> {
    let base = dir.to_string_lossy();
    for (name, template) in [("imapd.conf", IMAPD), ("cyrus.conf", MASTER), ("run", RUN)] {
        let text = template
            .replace("@IMAPS@", &imap_port.to_string())
            .replace("@LMTP@", &lmtp_port.to_string())
            .replace("@USER@", &owner.name)
            .replace("@BIN@", &format!("{base}/bin"))
            .replace("@BASE@", &base);
        file::write(&dir.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Cyrus's own libraries, by the names that they are loaded by.
fn libraries(unpacked: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    // One folder for each architecture, and only one is unpacked.
    for folder in list(&unpacked.join("usr/lib"))? {
        if folder.is_dir() && folder.file_name().is_some_and(|name| name != "cyrus") {
            let named = |path: &PathBuf| path.extension().is_some_and(|end| end == "0") && path.is_symlink();
            found.extend(list(&folder)?.into_iter().filter(named));
        }
    }
    Ok(found)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = std::fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    read.map_err(Error::file("list", folder))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).map(drop).map_err(Error::file("copy", from))
}
