//! Finds messages by what stands in them.

use std::fmt;

use super::command::{Commands, Error, Stream, Untagged};
use super::line::Listed;

/// The folders of the mailbox, with their special uses (RFC 6154) where the server tells them.
pub async fn folders<S: Stream + fmt::Debug>(commands: &mut Commands<S>, special: bool) -> Result<Vec<Listed>, Error> {
    commands.notes().folders = Some(Vec::new());
    // RFC 5258 section 3: with LIST-EXTENDED what is not asked for need not be told.
    let command = if special { r#"LIST "" "*" RETURN (SPECIAL-USE)"# } else { r#"LIST "" "*""# };
    let listed = commands.run(command, |_| {}).await;
    let folders = commands.notes().folders.take().unwrap_or_default();
    listed.map(|()| folders)
}

/// UIDs of the messages of the folder with this Message-ID (without brackets).
pub async fn by_message_id<S: Stream + fmt::Debug>(commands: &mut Commands<S>, id: &str) -> Result<Vec<u32>, Error> {
    let mut found = Vec::new();
    let command = format!("UID SEARCH HEADER Message-ID {}", quoted(&format!("<{id}>")));
    commands
        .run(&command, |untagged| {
            if let Untagged::Searched(uids) = untagged {
                found.extend(uids);
            }
        })
        .await?;
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// A quoted string (RFC 3501 section 4.3). What it cannot hold no Message-ID has.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()) {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::super::peer::{opened, opening};
    use super::*;

    async fn searched(answer: &str) -> Result<Vec<u32>, Error> {
        let mut script = opening("IDLE");
        script.push(("UID SEARCH HEADER Message-ID \"<a\\\"b@x.example>\"", answer.to_owned()));
        let mut folder = opened(script).await.expect("open");
        by_message_id(&mut folder.commands, "a\"b@x.example").await
    }

    #[tokio::test]
    async fn what_a_server_finds_is_found_and_what_it_refuses_is_an_error() {
        assert_eq!(searched("* SEARCH 7 3\r\n* SEARCH 3\r\n{tag} OK done\r\n").await.expect("found"), [3, 7]);
        assert_eq!(searched("* SEARCH\r\n{tag} OK done\r\n").await.expect("none"), Vec::<u32>::new());
        assert_eq!(searched("{tag} OK done\r\n").await.expect("none"), Vec::<u32>::new());
        for refusal in ["* SEARCH 3\r\n{tag} NO not now\r\n", "{tag} BAD what\r\n", "* SEARCH 3\r\nCLOSE"] {
            assert!(searched(refusal).await.is_err(), "{refusal}");
        }
    }

    #[tokio::test]
    async fn folders_are_listed_with_their_uses() {
        let mut script = opening("IDLE");
        let answer = "* LIST (\\Sent) \"/\" Gesendet\r\n* LIST () \"/\" INBOX\r\n{tag} OK done\r\n";
        script.push(("LIST \"\" \"*\" RETURN (SPECIAL-USE)", answer.to_owned()));
        script.push(("LIST \"\" \"*\"", "* LIST () \"/\" INBOX\r\n{tag} NO not now\r\n".to_owned()));
        let mut folder = opened(script).await.expect("open");
        let found = folders(&mut folder.commands, true).await.expect("listed");
        let names: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.attributes.join(" "))).collect();
        assert_eq!(names, [("Gesendet", "\\SENT".to_owned()), ("INBOX", String::new())]);
        assert!(folders(&mut folder.commands, false).await.is_err());
    }

    #[test]
    fn nothing_breaks_out_of_the_command() {
        assert_eq!(quoted("a\r\nA1 LOGOUT\u{e4}\"\\"), "\"aA1 LOGOUT\\\"\\\\\"");
    }
}
