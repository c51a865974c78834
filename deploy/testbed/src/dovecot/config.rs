//! The files that Dovecot reads.

use std::{os::unix::fs::MetadataExt, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::Options;
use crate::{
    error::{Error, Result},
    file,
};

const MAIN: &str = include_str!("../../templates/dovecot.conf.in");
const OAUTH2_USER: &str = include_str!("../../templates/oauth2-user.conf.ext.in");
const OAUTH2_APP: &str = include_str!("../../templates/oauth2-app.conf.ext.in");

/// Owner of all mail when root runs Dovecot, which refuses to keep mail as root. It needs no entry in passwd.
const MAIL_UID: u32 = 5000;

const HIBERNATE: &str = "\
imap_hibernate_timeout = @SECONDS@ secs
service imap {
  unix_listener imap-master {
    user = $default_internal_user
  }
}
service imap-hibernate {
  client_limit = 8000
  # Its client has no name that could stand here; nobody else gets into the folder above.
  unix_listener imap-hibernate {
    mode = 0666
  }
}";

/// Creates the folder of all mail, which belongs to the user that mail is kept as.
pub(super) fn create_mail_dir(dir: &Path) -> Result<()> {
    let mail = dir.join("mail");
    let (uid, gid) = Owner::of_this_process()?.mail();
    file::create_dir(&mail)?;
    std::os::unix::fs::chown(&mail, Some(uid), Some(gid)).map_err(Error::file("give away", &mail))
}

/// Writes the configuration of an instance in `dir`.
pub(super) fn write(dir: &Path, imap_port: u16, lmtp_port: u16, options: &Options) -> Result<()> {
    let base = dir.to_string_lossy();
    let owner = Owner::of_this_process()?;
    let (uid, gid) = owner.mail();
    let (uid, gid) = (uid.to_string(), gid.to_string());
    let hibernate = match options.hibernate_after {
        Some(after) => HIBERNATE.replace("@SECONDS@", &after.as_secs().max(1).to_string()),
        None => String::new(),
    };
    let main = MAIN
        .replace("@INSTANCE@", &dir.file_name().unwrap_or_default().to_string_lossy())
        .replace("@OWNER@", &owner.settings())
        .replace("@AUTH_USER@", &owner.user)
        .replace("@HIBERNATE@", &hibernate)
        .replace("@UID@", &uid)
        .replace("@GID@", &gid)
        .replace("@IMAPS@", &imap_port.to_string())
        .replace("@LMTP@", &lmtp_port.to_string())
        .replace("@BASE@", &base);
    file::write(&dir.join("dovecot.conf"), main.as_bytes())?;
    for protocol in ["imap", "smtp"] {
        for (who, template) in [("user", OAUTH2_USER), ("app", OAUTH2_APP)] {
            let text = template.replace("@BASE@", &base).replace("@PROTOCOL@", protocol);
            file::write(&dir.join(format!("oauth2-{protocol}-{who}.conf.ext")), text.as_bytes())?;
        }
    }
    Ok(())
}

/// Writes the key that tokens are checked with, where Dovecot looks for it: issuer and key id are `default`.
pub(super) fn write_keys(dir: &Path, token_key: &[u8]) -> Result<()> {
    let keys = dir.join("keys/default/HS256");
    file::create_dir(&keys)?;
    file::write_private(&keys.join("default"), STANDARD.encode(token_key).as_bytes())
}

/// Writes the password of everybody.
pub(super) fn write_password(dir: &Path, password: &str) -> Result<()> {
    // The fields of a passwd-file end at a colon; base64 has none.
    let line = format!("everybody:{{PLAIN.b64}}{}::::::\n", STANDARD.encode(password));
    file::write_private(&dir.join("password"), line.as_bytes())
}

/// Who runs Dovecot.
struct Owner {
    user: String,
    group: String,
    uid: u32,
    gid: u32,
}

impl Owner {
    fn of_this_process() -> Result<Self> {
        let this = Path::new("/proc/self");
        let meta = std::fs::metadata(this).map_err(Error::file("look at", this))?;
        let user = name_of("/etc/passwd", meta.uid())?;
        let group = name_of("/etc/group", meta.gid())?;
        Ok(Self { user, group, uid: meta.uid(), gid: meta.gid() })
    }

    /// User and group that mail is kept as.
    fn mail(&self) -> (u32, u32) {
        if self.uid == 0 { (MAIL_UID, MAIL_UID) } else { (self.uid, self.gid) }
    }

    /// Settings that let an ordinary user run Dovecot: it can neither become other users nor lock itself in.
    fn settings(&self) -> String {
        if self.uid == 0 {
            return String::new();
        }
        let mut settings = format!("default_internal_user = {0}\ndefault_login_user = {0}\n", self.user);
        settings.push_str(&format!("default_internal_group = {}\n", self.group));
        for service in ["anvil", "imap-login", "stats"] {
            settings.push_str(&format!("service {service} {{\n  chroot =\n}}\n"));
        }
        settings
    }
}

/// The name that stands with this number in a file like /etc/passwd; Dovecot takes only names.
fn name_of(file: &str, number: u32) -> Result<String> {
    let file = Path::new(file);
    let lines = std::fs::read_to_string(file).map_err(Error::file("read", file))?;
    let name = lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then(|| name.to_owned())
    });
    name.ok_or_else(|| {
        let missing = std::io::Error::other(format!("{number} has no name, which Dovecot needs"));
        Error::file("use", file)(missing)
    })
}
