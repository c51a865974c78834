//! `backup`: create, restore, verify.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use postroom_control_plane::backup::restoring::{self, Error as Failed, Keys};
use postroom_control_plane::backup::unpacking::Refused;
use postroom_proto::v1;
use postroom_proto::v1::create_backup_response::Event;

use super::Session;
use crate::args::{Backup, CreateBackup, RestoreBackup};
use crate::client::BackupStream;
use crate::context;
use crate::error::{Error, Kind, chain};
use crate::progress::Progress;
use crate::render::{table, time};

pub(super) async fn run(session: &mut Session<'_, '_>, verb: Backup) -> Result<(), Error> {
    match verb {
        Backup::Create(args) => create(session, &args).await,
        Backup::Restore(args) => restore(session, &args).await,
        Backup::Verify { file } => verify(session, &file).await,
    }
}

/// True for `-`, which means a standard stream.
fn is_stream(path: &Path) -> bool {
    path == Path::new("-")
}

async fn create(session: &mut Session<'_, '_>, args: &CreateBackup) -> Result<(), Error> {
    let progress = session.progress("making a backup: bytes");
    let backup = if is_stream(&args.file) {
        if session.streams.terminal.is_process && io::stdout().is_terminal() {
            let message = "a backup is no text for a terminal";
            return Err(Error::new(Kind::Usage, message).help("name a file, or pipe it on"));
        }
        session.only_bytes("what the backup holds is told by `postroom backup verify`")?;
        let stream = session.client()?.create_backup(args.include_key).await?;
        let backup = progress.during(receive(stream, &progress, &mut session.streams.out)).await?;
        session.streams.out.flush()?;
        session.note(&shown(&backup));
        backup
    } else {
        // Ordering: before anything is asked for, so that nobody waits for a backup that cannot be written.
        let draft = Draft::create(&args.file, args.force)?;
        let mut file = draft.open()?;
        let stream = session.client()?.create_backup(args.include_key).await?;
        let backup =
            progress.during(receive(stream, &progress, &mut file)).await.map_err(|error| draft.explain(error))?;
        draft.put_in_place(file, args.force)?;
        session.show(&backup, shown)?;
        backup
    };
    if backup.lost_body_count > 0 {
        session.note(&format!(
            "warning: {} messages had no readable body on the disk; their contacts are in the backup, their raw messages are \
             not. The control plane's log names them.",
            backup.lost_body_count
        ));
    }
    session.note(match backup.key_included {
        true => {
            "warning: the key is in this backup. Whoever has the file has every stored password and client secret: keep it \
             as you keep those."
        }
        false => {
            "warning: the key is not in this backup. Without it the stored passwords and client secrets cannot be read: keep \
             a copy of secret.key, from the data directory, in another place."
        }
    });
    Ok(())
}

/// Writes the archive as it comes; returns what it holds once it is whole.
async fn receive(
    mut stream: BackupStream,
    progress: &Progress,
    out: &mut (dyn Write + Send),
) -> Result<v1::Backup, Error> {
    while let Some(event) = stream.next().await? {
        match event {
            Event::Progress(at) => progress.at(at.done_bytes, at.total_bytes),
            Event::Chunk(chunk) => out.write_all(&chunk)?,
            Event::Backup(backup) => return Ok(backup),
        }
    }
    Err(Error::new(Kind::Unavailable, "the backup ended before it was whole")
        .help("see the control plane's log, then make it again"))
}

/// A file under another name until it is whole; removed when it never is.
struct Draft {
    target: PathBuf,
    path: PathBuf,
}

impl Draft {
    fn create(target: &Path, force: bool) -> Result<Self, Error> {
        let name = target.file_name().ok_or_else(|| {
            Error::new(Kind::Usage, format!("{} names no file", target.display())).help("name the file to write")
        })?;
        refuse_existing(target, force)?;
        let path = target.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        Ok(Self { target: target.into(), path })
    }

    fn open(&self) -> Result<File, Error> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path).map_err(|error| {
            Error::new(Kind::Usage, format!("cannot write {}: {error}", self.path.display()))
                .help("name a file in a directory that can be written to")
        })
    }

    /// A failure to write is about this file, not about the command's output.
    fn explain(&self, error: Error) -> Error {
        match &error.source {
            Some(source) => Error::new(Kind::Internal, format!("cannot write {}: {source}", self.path.display()))
                .help("make room there, or name a file elsewhere"),
            None => error,
        }
    }

    /// Ordering: whole and on the disk, then under its name, then the name on the disk.
    fn put_in_place(self, file: File, force: bool) -> Result<(), Error> {
        refuse_existing(&self.target, force)?;
        let folder = match self.target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let placed = file.sync_all().and_then(|()| fs::rename(&self.path, &self.target));
        placed.and_then(|()| File::open(folder)?.sync_all()).map_err(|source| self.explain(source.into()))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is not there when it was put in place or never made.
        let _ = fs::remove_file(&self.path);
    }
}

fn refuse_existing(target: &Path, force: bool) -> Result<(), Error> {
    if force || !target.exists() {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, format!("{} is there already", target.display()))
        .help("name another file, or replace it by --force"))
}

async fn restore(session: &mut Session<'_, '_>, args: &RestoreBackup) -> Result<(), Error> {
    let data = context::data_dir(session.connection.data.as_deref(), session.environment)?;
    let keys = args.key_file.as_deref().map(|path| {
        fs::read_to_string(path).map(Into::into).map_err(|error| {
            Error::new(Kind::Usage, format!("cannot read the key file {}: {error}", path.display()))
                .help("name the secret.key of the installation that the backup was made of")
        })
    });
    let keys = keys.transpose()?;
    let progress = session.progress("restoring: bytes read");
    let input = Input::open(&args.file, progress.clone())?;
    let restoring = restoring::restore(input, &data, keys, args.force);
    let restored = progress.during(restoring).await.map_err(|error| failed(error, &args.file))?;
    session.show(&restored.backup, shown)?;

    let created = time::time(restored.backup.created_time.as_ref());
    session.note(&format!("Restored into {}, as of {created}.", data.display()));
    if restored.mails > 0 {
        let text = "mails may have been sent since; see `postroom outbox list --state unknown`.";
        session.note(&format!("{} {text}", restored.mails));
    }
    if let Some(aside) = &restored.aside {
        session.note(&format!("What was there before is now in {}.", aside.display()));
    }
    if restored.backup.lost_body_count > 0 {
        session.note(&format!("warning: {} raw messages are not in the backup.", restored.backup.lost_body_count));
    }
    session.note(match restored.keys {
        Keys::Included => "The key was in the backup: stored passwords and client secrets work.",
        Keys::Given => "The key file fits: stored passwords and client secrets work.",
        Keys::None => {
            "warning: there is no key, so stored passwords and client secrets cannot be read. Restore again with --key-file \
             and --force, or set them anew: apply a model file that holds them all."
        }
    });
    let data = data.display().to_string();
    let up = crate::render::text::shell(&data);
    session.note(&format!(
        "
Mail that was taken in after {created} is read again when the installation starts, and becomes contacts
again, also where somebody had accepted it already: nothing is lost, some of it comes twice.
Messages that had been moved out of the folder since then (afterIntake: move) must be moved back to be read.

Next:
  make sure that the lost installation does not run any more: two would read the same mail
  postroom up --data {up}
  postroom --data {up} mailbox list      # a new admin token was made; other programs need it too"
    ));
    Ok(())
}

async fn verify(session: &mut Session<'_, '_>, file: &Path) -> Result<(), Error> {
    let progress = session.progress("verifying: bytes read");
    let input = Input::open(file, progress.clone())?;
    let scratch = (session.environment)("TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let verifying = restoring::verify(input, &scratch);
    let backup = progress.during(verifying).await.map_err(|error| failed(error, file))?;
    session.show(&backup, shown)?;
    session.note("The backup is whole.");
    Ok(())
}

/// A backup that is being read, and the progress of that.
struct Input {
    source: Box<dyn Read + Send>,
    progress: Progress,
    done: u64,
    total: u64,
}

impl Input {
    fn open(path: &Path, progress: Progress) -> Result<Self, Error> {
        let (source, total): (Box<dyn Read + Send>, _) = if is_stream(path) {
            (Box::new(io::stdin()), 0)
        } else {
            let opened = File::open(path).and_then(|file| file.metadata().map(|found| (file, found.len())));
            let (file, size) = opened.map_err(|error| {
                let kind = if error.kind() == io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Usage };
                Error::new(kind, format!("cannot read {}: {error}", path.display())).help("name a backup")
            })?;
            (Box::new(file), size)
        };
        Ok(Self { source, progress, done: 0, total })
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.done += count as u64;
        self.progress.at(self.done, self.total);
        Ok(count)
    }
}

/// What a backup holds.
fn shown(backup: &v1::Backup) -> String {
    table::pairs([
        ("as of", time::time(backup.created_time.as_ref())),
        ("made by", format!("Postroom {}, format {}", backup.version, backup.format)),
        ("messages", backup.message_count.to_string()),
        ("contacts", backup.contact_count.to_string()),
        ("large messages", format!("{} ({})", backup.body_count, time::size(backup.body_bytes))),
        ("lost messages", backup.lost_body_count.to_string()),
        ("revision", backup.revision.to_string()),
        ("ledger", backup.ledger_id.clone()),
        ("store", backup.store_id.clone()),
        ("key", format!("{} ({})", backup.key_id, if backup.key_included { "included" } else { "not included" })),
    ])
}

fn failed(error: Failed, file: &Path) -> Error {
    let (kind, help) = match &error {
        Failed::Refused(refused) => match refused {
            Refused::NoBackup(_) => (Kind::Invalid, "name a file that `postroom backup create` has written"),
            Refused::NewerFormat { .. } => {
                (Kind::Invalid, "install the version of Postroom that made it, or a newer one")
            }
            Refused::Incomplete | Refused::Damaged(_) => (Kind::Invalid, "look for an older or another copy of it"),
            Refused::Database { .. } => {
                (Kind::Invalid, "install a newer version of Postroom if it says so, else use another backup")
            }
            Refused::Read(_) => (Kind::Internal, "see whether its disk is well"),
            Refused::Write { .. } => (Kind::Internal, "make room on that disk, or use another one"),
        },
        Failed::NotEmpty(_) => {
            (Kind::Usage, "name an empty directory by --data, or say --force: what is in it then moves aside")
        }
        Failed::Folder(_) => (Kind::Usage, "stop what uses the directory, or name another one by --data"),
        Failed::Key(_) => (Kind::Invalid, "name the secret.key of the installation that the backup was made of"),
        Failed::OtherKey { .. } => (
            Kind::Invalid,
            "name the secret.key of that installation; without --key-file the rest is restored, and secrets are set anew",
        ),
    };
    let message = match &error {
        Failed::Refused(_) if !is_stream(file) => format!("{}: {}", file.display(), chain(&error)),
        _ => chain(&error),
    };
    Error::new(kind, message).help(help)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use postroom_proto::convert;

    use super::*;

    #[test]
    fn what_a_backup_holds_is_a_line_each() {
        let backup = v1::Backup {
            format: 1,
            version: "0.1.0".into(),
            created_time: Some(convert::to_timestamp(1_772_366_400_000_000)),
            ledger_id: "a".repeat(32),
            store_id: "b".repeat(32),
            revision: 42,
            message_count: 1200,
            contact_count: 1190,
            body_count: 3,
            body_bytes: 5 << 20,
            lost_body_count: 0,
            key_id: "0123456789ab".into(),
            key_included: false,
        };
        insta::assert_snapshot!(shown(&backup));
    }

    #[test]
    fn a_file_appears_whole_and_replaces_none_unless_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x.tar.gz");
        let names = || fs::read_dir(folder.path()).unwrap().count();

        let draft = Draft::create(&target, false).unwrap();
        drop(draft.open().unwrap());
        assert!(!target.exists());
        drop(draft);
        assert_eq!(names(), 0, "what never became whole is removed");

        let draft = Draft::create(&target, false).unwrap();
        let mut file = draft.open().unwrap();
        file.write_all(b"whole").unwrap();
        draft.put_in_place(file, false).unwrap();
        assert_eq!((names(), fs::read(&target).unwrap()), (1, b"whole".to_vec()));
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);

        let refused = Draft::create(&target, false).err().unwrap();
        assert!(refused.kind == Kind::Usage && refused.help.unwrap().contains("--force"));
        let draft = Draft::create(&target, true).unwrap();
        let file = draft.open().unwrap();
        draft.put_in_place(file, true).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"");
    }
}
