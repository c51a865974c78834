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

/// Messages that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought {
    /// Those without `\Seen`.
    Unseen,
    /// Those received since this time, in microseconds since 1970. A server goes by days, and by its own time zone (RFC 3501
    /// section 6.4.4): some that are older by less than two days may count.
    Since(i64),
}

/// UIDs that one search is about, in a folder of so many messages that their UIDs may not fit into one line.
const WINDOW: u32 = 1 << 16;

/// How many messages of the folder with a UID up to `last` are meant. `there`: how many messages it has.
pub async fn count<S: Stream + fmt::Debug>(
    commands: &mut Commands<S>,
    sought: Sought,
    last: u32,
    there: u64,
) -> Result<u64, Error> {
    let key = match sought {
        Sought::Unseen => "UNSEEN".to_owned(),
        Sought::Since(since) => format!("SINCE {}", day_before(since)),
    };
    let width = if there <= u64::from(WINDOW) { last.max(1) } else { WINDOW };
    let (mut count, mut from) = (0, 1u32);
    while from <= last {
        let to = from.saturating_add(width - 1).min(last);
        let mut found = Vec::new();
        commands
            .run(&format!("UID SEARCH UID {from}:{to} {key}"), |untagged| {
                if let Untagged::Searched(uids) = untagged {
                    // Whatever a server repeats: there are no more than that.
                    let room = (width as usize).saturating_sub(found.len());
                    found.extend(uids.into_iter().filter(|uid| (from..=to).contains(uid)).take(room));
                }
            })
            .await?;
        found.sort_unstable();
        found.dedup();
        count += found.len() as u64;
        let Some(next) = to.checked_add(1) else { break };
        from = next;
    }
    Ok(count)
}

/// A day (RFC 3501 section 9, date) that is over in every time zone when this time comes; of a time without one the first.
fn day_before(micros: i64) -> String {
    const ZONES: i64 = 14 * 3600 * 1_000_000;
    let time = jiff::Timestamp::from_microsecond(micros.saturating_sub(ZONES)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%d-%b-%Y").to_string()
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
    async fn messages_are_counted_window_by_window() {
        let mut script = opening("IDLE");
        let windows = [
            ("UID SEARCH UID 1:65536 UNSEEN", "* SEARCH 1 65536 70000\r\n* SEARCH 1 5\r\n{tag} OK done\r\n"),
            ("UID SEARCH UID 65537:131072 UNSEEN", "* SEARCH\r\n{tag} OK done\r\n"),
            ("UID SEARCH UID 131073:131080 UNSEEN", "* SEARCH 131080\r\n{tag} OK done\r\n"),
            ("UID SEARCH UID 1:9 SINCE 30-Jan-2026", "* SEARCH 9\r\n{tag} OK done\r\n"),
            ("UID SEARCH UID 1:9 UNSEEN", "* SEARCH 9\r\n{tag} NO not now\r\n"),
        ];
        script.extend(windows.map(|(command, answer)| (command, answer.to_owned())));
        let mut folder = opened(script).await.expect("open");
        let commands = &mut folder.commands;
        assert_eq!(count(commands, Sought::Unseen, 131_080, 70_000).await.expect("counted"), 4);
        let since = "2026-01-31T00:00:00Z".parse::<jiff::Timestamp>().expect("a time").as_microsecond();
        assert_eq!(count(commands, Sought::Since(since), 9, 5).await.expect("counted"), 1);
        assert!(count(commands, Sought::Unseen, 9, 5).await.is_err());
        assert_eq!(count(commands, Sought::Unseen, 0, 0).await.expect("counted"), 0, "nothing is asked");
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
