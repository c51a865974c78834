//! `reply` and `send`: what was typed and the files that it names, stored as a mail to be sent.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postroom_proto::v1::{self, OutboxState};
use tokio::time::{Instant, sleep};

use super::super::Session;
use super::one;
use crate::args::{Letter, Reply, Send};
use crate::client::Composition;
use crate::error::{Error, Kind};
use crate::render::words;

/// Largest file of text: more is no letter.
const MAX_TEXT: u64 = 10 << 20;
/// How often a mail that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(250);

pub(in crate::command) async fn reply(session: &mut Session<'_, '_>, args: Reply) -> Result<(), Error> {
    let client = session.client()?;
    let instance = client.get_contact(args.contact.clone()).await?.instance;
    let draft = v1::Draft {
        instance,
        contact: args.contact,
        from: args.from,
        to: args.to,
        subject: args.subject,
        ..v1::Draft::default()
    };
    let wait = args.letter.wait;
    let composition = read(draft, args.letter)?;
    let progress = session.progress("storing the reply");
    let mail = Box::pin(progress.during(client.reply(composition))).await?;
    stored(session, mail, wait).await
}

pub(in crate::command) async fn send(session: &mut Session<'_, '_>, args: Send) -> Result<(), Error> {
    let draft = v1::Draft {
        instance: args.instance,
        from: Some(args.from),
        to: args.to,
        subject: args.subject,
        ..v1::Draft::default()
    };
    let wait = args.letter.wait;
    let composition = read(draft, args.letter)?;
    let client = session.client()?;
    let progress = session.progress("storing the mail");
    let mail = Box::pin(progress.during(client.send(composition))).await?;
    stored(session, mail, wait).await
}

/// Adds to a draft what the letter says.
fn read(draft: v1::Draft, letter: Letter) -> Result<Composition, Error> {
    let text = match (letter.text, &letter.text_file) {
        (Some(text), _) => text,
        (None, Some(file)) => text_of(file)?,
        (None, None) => String::new(),
    };
    let html = letter.html_file.as_deref().map(text_of).transpose()?.unwrap_or_default();
    if text.is_empty() && html.is_empty() {
        let help = "write it by --text, --text-file or --html-file; `--text-file -` reads standard input";
        return Err(Error::new(Kind::Usage, "nothing is written").help(help));
    }
    let inline = letter.inline.into_iter().map(|(name, file)| attachment(file, name));
    let attached = letter.attach.into_iter().map(|file| attachment(file, String::new()));
    let attachments = inline.chain(attached).collect::<Result<_, _>>()?;
    let request_id = letter.request_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let draft =
        v1::Draft { request_id, cc: letter.cc, bcc: letter.bcc, text, html, automatic: letter.automatic, ..draft };
    Ok(Composition { draft, attachments })
}

fn attachment(path: PathBuf, content_id: String) -> Result<(v1::DraftAttachment, PathBuf), Error> {
    let about = std::fs::metadata(&path).and_then(|about| std::fs::File::open(&path).map(|_| about));
    let about = about.map_err(|error| unreadable(&path, &error))?;
    if !about.is_file() {
        return Err(Error::new(Kind::Usage, format!("{} is no file", path.display())).help("attach a file"));
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let media_type = mime_guess::from_path(&path).first_raw().unwrap_or_default().to_owned();
    Ok((v1::DraftAttachment { name, media_type, content_id, size_bytes: about.len() }, path))
}

/// The text in a file, or on standard input.
fn text_of(path: &Path) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(MAX_TEXT + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_TEXT + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > MAX_TEXT {
        let message = format!("{} is larger than {} MiB", path.display(), MAX_TEXT >> 20);
        return Err(Error::new(Kind::Usage, message).help("attach it instead: --attach FILE"));
    }
    String::from_utf8(bytes).map_err(|_| {
        let message = format!("{} is not UTF-8", path.display());
        Error::new(Kind::Usage, message).help("convert it, for example by iconv -t UTF-8, or attach it: --attach FILE")
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let message = format!("cannot read {}: {error}", path.display());
    Error::new(Kind::Usage, message).help("see that the file is there and may be read")
}

/// Shows the mail once it is stored, or once it has come to an end.
async fn stored(session: &mut Session<'_, '_>, mut mail: v1::OutboxMail, wait: Option<Duration>) -> Result<(), Error> {
    let on_its_way = |mail: &v1::OutboxMail| matches!(mail.state(), OutboxState::Queued | OutboxState::Sending);
    let Some(wait) = wait else {
        session.show(&mail, one)?;
        let next = session.next_command(&["outbox", "show", &mail.id]);
        session.note(&format!("it is stored and will be sent; to see how it gets on: {next}"));
        return Ok(());
    };
    let (until, client) = (Instant::now() + wait, session.client()?);
    let progress = session.progress("waiting until it is sent");
    while on_its_way(&mail) && Instant::now() < until {
        progress.during(sleep(LOOK)).await;
        mail = client.get_outbox_mail(mail.id).await?;
    }
    session.show(&mail, one)?;
    if mail.state() == OutboxState::Sent {
        return Ok(());
    }
    let message = format!("the mail is {}", words::outbox_state(mail.state));
    let remedy = match &mail.problem {
        Some(problem) => format!("{}; {}", problem.cause, problem.remedy),
        None => "it will be sent when its turn comes; see `postroom outbox show ID`".to_owned(),
    };
    Err(Error::new(Kind::NotWell, message).help(remedy))
}
