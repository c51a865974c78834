//! Looks for a mail whose outcome is unknown among what its mailbox has sent, by its Message-ID: by Graph, or over IMAP.
//!
//! Invariant: a mail is said not to be there only after the places where it would be were really looked into. A folder that
//! is missing, a sign-in that is refused or an answer that breaks off is a fault, never a "no".

use postroom_proto::catalogue::mail::FOLDER_REFUSED;
use postroom_proto::catalogue::send;
use postroom_proto::v1::{ClaimedMail, MailboxDefinition, OutgoingDefinition, Transport};

use super::Sending;
use super::claim::Broken;
use super::graph::{self, Api};
use super::verdict::{Fate, Fault, Verdict};
use crate::diagnosis::Diagnosis;
use crate::mailbox::imap::guard::Limits;
use crate::mailbox::imap::line::Listed;
use crate::mailbox::imap::{connection, search};
use crate::mailbox::session::{self, Mail};

/// Nothing large is fetched.
const LARGEST: u64 = 64 * 1024;

/// FOUND or NOT_FOUND.
pub(super) async fn look_for(
    sending: &Sending,
    mail: &ClaimedMail,
    definition: &OutgoingDefinition,
) -> Result<Verdict, Broken> {
    let there = match (&definition.sent_mailbox, definition.transport()) {
        (Some(mailbox), _) => by_imap(sending, mail, mailbox, &definition.sent_folder).await?,
        (None, Transport::Graph) => by_graph(sending, mail, definition).await?,
        (None, _) => {
            let found = Diagnosis::of(&send::SENT_NOT_READABLE, "nothing says how the folder of sent mail is read");
            return Err(Fault::of(found, Fate::Again).into());
        }
    };
    Ok(if there { Verdict::found() } else { Verdict::not_found() })
}

/// The folder of sent mail that Exchange has, and that a definition has unless it says otherwise.
const USUAL: &str = "Sent Items";
/// Where mail that was sent is moved to, by people and by rules: names and special uses (RFC 6154).
const ELSEWHERE: [&str; 6] = ["Deleted Items", "Deleted Messages", "Trash", "Archive", "Archives", "INBOX"];
const USES: [&str; 3] = ["\\TRASH", "\\ARCHIVE", "\\ALL"];

/// In the folder of sent mail; and when it is not there, in those where it may have been moved to since: a mail that
/// somebody deleted was sent all the same.
async fn by_imap(
    sending: &Sending,
    mail: &ClaimedMail,
    mailbox: &MailboxDefinition,
    folder: &str,
) -> Result<bool, Fault> {
    let (mut opened, folder) = open_sent(sending, mailbox, folder).await?;
    let mut found = is_in(&mut opened, mail).await?;
    if !found {
        for other in listed(&mut opened).await?.into_iter().filter(|other| other.name != folder && is_elsewhere(other))
        {
            opened = connection::select(opened.commands, &other.name).await.map_err(fault)?;
            found = is_in(&mut opened, mail).await?;
            if found {
                break;
            }
        }
    }
    session::leave(opened).await;
    Ok(found)
}

/// The folder of sent mail, and its name. Where it has the usual name by default, and another one in this mailbox (it is
/// translated), the server may say which.
async fn open_sent(sending: &Sending, mailbox: &MailboxDefinition, folder: &str) -> Result<(Mail, String), Fault> {
    let open = async |folder: &str| {
        let mailbox = MailboxDefinition { folder: folder.to_owned(), ..mailbox.clone() };
        session::connect(&sending.shared, &mailbox, Limits::for_messages(LARGEST)).await
    };
    let missing = match open(folder).await {
        Ok(opened) => return Ok((opened, folder.to_owned())),
        Err(found) if found.code == FOLDER_REFUSED.code() && folder == USUAL => found,
        Err(found) => return Err(fault(found)),
    };
    let mut opened = open("INBOX").await.map_err(fault)?;
    let is_sent = |one: &Listed| one.attributes.iter().any(|known| known == "\\SENT");
    let Some(sent) = listed(&mut opened).await?.into_iter().find(is_sent) else {
        session::leave(opened).await;
        return Err(fault(missing));
    };
    let opened = connection::select(opened.commands, &sent.name).await.map_err(fault)?;
    Ok((opened, sent.name))
}

async fn is_in(opened: &mut Mail, mail: &ClaimedMail) -> Result<bool, Fault> {
    let found = search::by_message_id(&mut opened.commands, &mail.message_id).await;
    Ok(!found.map_err(|error| fault(session::broken(error)))?.is_empty())
}

async fn listed(opened: &mut Mail) -> Result<Vec<Listed>, Fault> {
    let special = opened.can("LIST-EXTENDED") && opened.can("SPECIAL-USE");
    let listed = search::folders(&mut opened.commands, special).await;
    listed.map_err(|error| fault(session::broken(error)))
}

fn is_elsewhere(folder: &Listed) -> bool {
    let is_one = |known: &[&str], it: &str| known.iter().any(|known| known.eq_ignore_ascii_case(it));
    let holds_mail = !folder.attributes.iter().any(|it| is_one(&["\\NOSELECT", "\\NONEXISTENT"], it));
    holds_mail && (is_one(&ELSEWHERE, &folder.last) || folder.attributes.iter().any(|it| is_one(&USES, it)))
}

fn fault(found: Diagnosis) -> Fault {
    let missing = found.code == FOLDER_REFUSED.code();
    let found = if missing { Diagnosis::of(&send::SENT_NOT_READABLE, found.cause) } else { found };
    // In the words of what reads, for that is what it is.
    let (status, response) = (String::new(), String::new());
    Fault { found: Box::new(found), fate: Fate::Again, status, response }
}

/// A draft that was left behind has the same Message-ID and was not sent. It is deleted, so that nobody sends it now.
async fn by_graph(sending: &Sending, mail: &ClaimedMail, definition: &OutgoingDefinition) -> Result<bool, Broken> {
    let mut api = Api::open(sending, definition).await?;
    let found = graph::find(&mut api, &mail.message_id).await?;
    if !found.is_sent {
        graph::take_back(&mut api, &found.drafts).await;
    }
    Ok(found.is_sent)
}

#[cfg(test)]
mod tests;
