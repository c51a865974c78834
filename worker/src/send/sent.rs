//! Looks for a mail whose outcome is unknown among what its mailbox has sent, by its Message-ID: by Graph, or over IMAP.
//!
//! Invariant: a mail is said not to be there only after the place where it would be was really looked into. A folder that
//! is missing, a sign-in that is refused or an answer that breaks off is a fault, never a "no".

use http::Method;
use postroom_proto::catalogue::send;
use postroom_proto::v1::{ClaimedMail, MailboxDefinition, OutgoingDefinition, Transport};
use serde_json::Value;

use super::Sending;
use super::claim::Broken;
use super::graph::{Api, Body};
use super::verdict::graph::Step;
use super::verdict::{Fate, Fault, Verdict};
use crate::diagnosis::Diagnosis;
use crate::mailbox::imap::guard::Limits;
use crate::mailbox::imap::search;
use crate::mailbox::session;

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

async fn by_imap(
    sending: &Sending,
    mail: &ClaimedMail,
    mailbox: &MailboxDefinition,
    folder: &str,
) -> Result<bool, Fault> {
    let fault = |found: Diagnosis| {
        let missing = found.code == postroom_proto::catalogue::mail::FOLDER_REFUSED.code();
        let found = if missing { Diagnosis::of(&send::SENT_NOT_READABLE, found.cause) } else { found };
        // In the words of what reads, for that is what it is.
        let (status, response) = (String::new(), String::new());
        Fault { found: Box::new(found), fate: Fate::Again, status, response }
    };
    let mailbox = MailboxDefinition { folder: folder.to_owned(), ..mailbox.clone() };
    let opened = session::connect(&sending.shared, &mailbox, Limits::for_messages(LARGEST)).await;
    let mut opened = opened.map_err(fault)?;
    let found = search::by_message_id(&mut opened.commands, &mail.message_id).await;
    let found = found.map_err(|error| fault(session::broken(error)))?;
    session::leave(opened).await;
    Ok(!found.is_empty())
}

/// In whatever folder: what was sent may have been moved since. A draft that was left behind has the same Message-ID and
/// was not sent.
async fn by_graph(sending: &Sending, mail: &ClaimedMail, definition: &OutgoingDefinition) -> Result<bool, Broken> {
    let mut api = Api::open(sending, definition).await?;
    // OData: a quote inside a text is written twice.
    let filter = format!("internetMessageId eq '<{}>'", mail.message_id.replace('\'', "''"));
    let query = [("$filter", filter.as_str()), ("$select", "id,isDraft")];
    let answer = api.ask(Step::Prepare, Method::GET, &["messages"], &query, Body::None).await?;
    let Some(messages) = answer.body.get("value").and_then(Value::as_array) else {
        let found = Diagnosis::of(&send::SUBMISSION_ANSWER_STRANGE, "Microsoft Graph answered a search without a list");
        return Err(Fault::of(found, Fate::Again).into());
    };
    let is_draft = |message: &Value| message.get("isDraft").and_then(Value::as_bool).unwrap_or(false);
    Ok(messages.iter().any(|message| !is_draft(message)))
}

#[cfg(test)]
mod tests;
