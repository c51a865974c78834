//! `contact attachment`: list, save one, or write one to standard output.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use postroom_proto::v1;

use super::super::Session;
use crate::args::{Attachments, Output};
use crate::error::{Error, Kind};
use crate::render::{table, time};

pub(super) async fn run(session: &mut Session<'_, '_>, args: Attachments) -> Result<(), Error> {
    let Some(index) = args.index else { return list(session, args.id).await };
    match args.output_dir {
        Some(folder) if folder == Path::new("-") => write_out(session, args.id, index).await,
        folder => save(session, args.id, index, folder.unwrap_or_default()).await,
    }
}

async fn list(session: &mut Session<'_, '_>, id: String) -> Result<(), Error> {
    let contact = session.client()?.get_contact(id).await?;
    let attachments = contact.content.unwrap_or_default().attachments;
    session.show(&v1::ContactContent { attachments, ..Default::default() }, |content| {
        let row = |it: &v1::Attachment| {
            [it.index.to_string(), it.file_name.clone(), it.media_type.clone(), time::size(it.size_bytes)]
        };
        table::rows(["INDEX", "FILE NAME", "TYPE", "SIZE"], content.attachments.iter().map(row))
    })
}

async fn write_out(session: &mut Session<'_, '_>, id: String, index: u32) -> Result<(), Error> {
    session.only_bytes("`contact attachment ID -o json` lists what there is")?;
    let mut pieces = session.client()?.get_attachment(id, index).await?;
    while let Some(piece) = pieces.next().await? {
        session.write(&piece.data)?;
    }
    Ok(())
}

async fn save(session: &mut Session<'_, '_>, id: String, index: u32, folder: PathBuf) -> Result<(), Error> {
    let client = session.client()?;
    let contact = client.get_contact(id.clone()).await?;
    let attachments = contact.content.unwrap_or_default().attachments;
    let attachment = attachments.iter().find(|it| it.index == index).ok_or_else(|| {
        Error::new(
            Kind::NotFound,
            format!("contact {id} has {} attachments and none of index {index}", attachments.len()),
        )
        .help("without an index they are listed")
    })?;
    let path = folder.join(name(attachment));
    // Ordering: asked for before the file is made, so that what cannot be had leaves nothing behind.
    let mut pieces = client.get_attachment(id, index).await?;
    let mut file = std::fs::File::create_new(&path).map_err(|error| cannot_write(&path, &error))?;
    let saved = async {
        while let Some(piece) = pieces.next().await? {
            file.write_all(&piece.data).map_err(|error| cannot_write(&path, &error))?;
        }
        file.sync_all().map_err(|error| cannot_write(&path, &error))
    };
    if let Err(error) = saved.await {
        // Half a file would look like a whole one. Where even this fails, the first failure is the one to tell.
        let _ = std::fs::remove_file(&path);
        return Err(error);
    }
    let path = path.display().to_string();
    let told = match session.output {
        Output::Table => path,
        Output::Json | Output::Yaml => serde_json::json!({ "path": path }).to_string(),
    };
    session.write(format!("{told}\n").as_bytes())
}

/// The name that the control plane made safe. It is looked at once more: the folder of whoever runs this is at stake.
fn name(attachment: &v1::Attachment) -> String {
    let name = &attachment.file_name;
    let safe = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
    if safe { name.clone() } else { format!("attachment-{}", attachment.index) }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Error {
    let shown = path.display();
    match error.kind() {
        ErrorKind::AlreadyExists => Error::new(Kind::Conflict, format!("{shown} is there already"))
            .help("move it away, or name another folder by --output-dir DIR"),
        _ => Error::new(Kind::Invalid, format!("cannot write {shown}: {error}"))
            .help("name a folder that can be written by --output-dir DIR"),
    }
}
