//! What lies in a mailbox, and what its owner does there, all by IMAP.

use super::Cyrus;
use crate::{dovecot::Stored, error::Result};

/// A flag of the session that looks, not of the message.
const RECENT: &str = "\\Recent";

impl Cyrus {
    /// The messages of a folder of a mailbox, in the order of their UIDs. The folder is named as IMAP names it.
    pub async fn messages(&self, email: &str, folder: &str) -> Result<Vec<Stored>> {
        let mut client = self.open(email).await?;
        client.command(&format!("EXAMINE \"{folder}\"")).await?;
        let fields = "UID FLAGS BODY.PEEK[HEADER.FIELDS (MESSAGE-ID SUBJECT)]";
        let said = client.command(&format!("UID FETCH 1:* ({fields})")).await?;
        Ok(said.iter().filter_map(|answer| stored(answer)).collect())
    }

    /// Runs commands in a folder of a mailbox, one after the other, as its owner. The folder is named as IMAP names it.
    pub async fn work(&self, email: &str, folder: &str, commands: &[&str]) -> Result<()> {
        let mut client = self.open(email).await?;
        client.command(&format!("SELECT \"{folder}\"")).await?;
        for command in commands {
            client.command(command).await?;
        }
        Ok(())
    }

    /// The folders of a mailbox, as IMAP names them.
    pub async fn folders(&self, email: &str) -> Result<Vec<String>> {
        let said = self.open(email).await?.command(r#"LIST "" "*""#).await?;
        let name = |answer: &String| Some(answer.split_once(" \"/\" ")?.1.trim_matches('"').to_owned());
        Ok(said.iter().filter_map(name).collect())
    }
}

/// Reads one answer to the FETCH of [`Cyrus::messages`], whose header is a literal.
fn stored(answer: &str) -> Option<Stored> {
    let (head, header) = answer.split_once('}')?;
    let (_, items) = head.split_once(" FETCH (")?;
    let between = |from: &str, to: char| Some(items.split_once(from)?.1.split(to).next()?.to_owned());
    let field = |name: &str| {
        let line = header.lines().find(|line| line.get(..name.len()).is_some_and(|it| it.eq_ignore_ascii_case(name)));
        line.map(|line| line[name.len()..].trim().to_owned()).unwrap_or_default()
    };
    Some(Stored {
        uid: between("UID ", ' ')?.parse().ok()?,
        flags: between("FLAGS (", ')')?.split_whitespace().filter(|flag| *flag != RECENT).map(str::to_owned).collect(),
        message_id: field("Message-ID:"),
        subject: field("Subject:"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_fetch_is_read() {
        let answer = "* 2 FETCH (FLAGS (\\Recent \\Seen) UID 7 BODY[HEADER.FIELDS (MESSAGE-ID SUBJECT)] {44}Subject: \
                      A (subject)\r\nMessage-ID: <a@b>\r\n\r\n)";
        let message = stored(answer).unwrap();
        assert_eq!((message.uid, message.is_seen(), message.subject.as_str()), (7, true, "A (subject)"));
        assert_eq!((message.flags.len(), message.message_id.as_str()), (1, "<a@b>"));
        assert_eq!(stored("* 2 EXISTS"), None);
    }
}
