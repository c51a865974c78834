//! What servers do wrong, and what must become of it.

use std::future::pending;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::command::{Error, Untagged};
use super::connection::{SignIn, open};
use super::fetch::{bodies, summaries};
use super::guard::{Limits, Violation};
use super::idle::{Woken, poll, wait};
use super::peer::{Script, opened, opening};
use super::settle::{AfterIntake, can_expunge, delete, settle};
use crate::token::Token;

const LONG: Duration = Duration::from_secs(60);

fn then(more: &[(&'static str, &str)]) -> Script {
    with("IDLE UIDPLUS MOVE", more)
}

fn with(capabilities: &str, more: &[(&'static str, &str)]) -> Script {
    let mut script = opening(capabilities);
    script.extend(more.iter().map(|(expected, answer)| (*expected, (*answer).to_owned())));
    script
}

async fn fetch_fails(answer: &str) -> Error {
    let mut folder = opened(then(&[("UID FETCH 1:3", answer)])).await.expect("open");
    bodies(&mut folder.commands, &[1, 2, 3]).await.expect_err(answer)
}

#[tokio::test]
async fn a_folder_is_opened_and_read() {
    let script = then(&[
        (
            "UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)",
            "* 1 FETCH (UID 1 FLAGS (\\Seen) INTERNALDATE \" 1-Jan-2024 10:00:00 +0000\" RFC822.SIZE 12)\r\n\
             * 2 FETCH (FLAGS () UID 3 RFC822.SIZE 99999999999 INTERNALDATE \"01-Jan-2024 10:00:00 +0000\")\r\n\
             * 5 EXISTS\r\n{tag} OK done\r\n",
        ),
        (
            "UID FETCH 1,3 (UID BODY.PEEK[])",
            "* 1 FETCH (UID 1 BODY[] {5}\r\nab\r\nc)\r\n* 2 FETCH (UID 3 BODY[] {0}\r\n)\r\n{tag} OK\r\n",
        ),
    ]);
    let mut folder = opened(script).await.expect("open");
    assert_eq!((folder.selected.uid_validity, folder.selected.uid_next, folder.selected.exists), (9, Some(4), 3));
    assert!(folder.can("MOVE"));
    let found = summaries(&mut folder.commands, 1, None).await.expect("summaries");
    assert_eq!(found.iter().map(|s| (s.uid, s.seen, s.size)).collect::<Vec<_>>(), [(1, true, 12), (3, false, 0)]);
    assert_eq!(found[0].received, Some(1_704_103_200_000_000));
    let got = bodies(&mut folder.commands, &[1, 3]).await.expect("bodies").got;
    assert_eq!(got.iter().map(|(uid, raw)| (*uid, raw.as_ref())).collect::<Vec<_>>(), [(1, &b"ab\r\nc"[..]), (3, b"")]);
}

#[tokio::test]
async fn a_folder_is_opened_though_response_codes_come_without_their_ok() {
    let mut script = opening("IDLE");
    script.truncate(3);
    let select = "* 3 EXISTS\r\n* [UIDVALIDITY 9]\r\n* [UIDNEXT 4] next\r\n{tag} OK [READ-WRITE] done\r\n";
    script.push(("SELECT", select.into()));
    let selected = opened(script).await.expect("open").selected;
    assert_eq!((selected.uid_validity, selected.uid_next, selected.exists), (9, Some(4), 3));
}

#[tokio::test]
async fn a_fetch_that_breaks_off_is_never_a_short_success() {
    const ONE: &str = "* 1 FETCH (UID 1 BODY[] {1}\r\na)\r\n";
    let no = fetch_fails(&format!("{ONE}{{tag}} NO [THROTTLED] Suggested Backoff Time: 5000 milliseconds\r\n")).await;
    assert_eq!(no.code().as_deref(), Some("THROTTLED"));
    assert!(matches!(&no, Error::Refused { bad: false, text, .. } if text.contains("5000")), "{no:?}");
    let bad = fetch_fails(&format!("{ONE}{{tag}} BAD Command Error. 10\r\n")).await;
    assert!(matches!(&bad, Error::Refused { bad: true, text, .. } if text == "Command Error. 10"), "{bad:?}");
    let bye = fetch_fails(&format!("{ONE}* BYE Connection closed. 14\r\nCLOSE")).await;
    assert!(matches!(&bye, Error::Bye { text } if text == "Connection closed. 14"), "{bye:?}");
    let end = fetch_fails(&format!("{ONE}CLOSE")).await;
    assert!(matches!(&end, Error::Lost { remark: None }), "{end:?}");
    let noise = fetch_fails(&format!("{ONE}Server Unavailable. 15\r\nCLOSE")).await;
    assert!(matches!(&noise, Error::Lost { remark: Some(text) } if text == "Server Unavailable. 15"), "{noise:?}");
    let middle = fetch_fails("* 1 FETCH (UID 1 BODY[] {9}\r\nabCLOSE").await;
    assert!(matches!(&middle, Error::Lost { .. }), "{middle:?}");
}

#[tokio::test]
async fn an_expired_token_in_the_middle_of_a_literal_is_a_lost_connection() {
    let error =
        fetch_fails("* 1 FETCH (UID 1 BODY[] {900}\r\nab\r\n* BYE Session invalidated - AccessTokenExpired\r\nCLOSE")
            .await;
    assert!(matches!(error, Error::Lost { .. }), "{error:?}");
    let error = fetch_fails("* BYE Session invalidated - AccessTokenExpired\r\nCLOSE").await;
    assert!(matches!(&error, Error::Bye { text } if crate::diagnosis::imap::is_token_expired(text)), "{error:?}");
}

#[tokio::test]
async fn hostile_answers_end_the_session_and_not_the_process() {
    let error = fetch_fails("* 1 FETCH (UID 1 BODY[] {400000000}\r\n").await;
    assert!(matches!(error, Error::Violation(Violation::LiteralTooLarge { .. })), "{error:?}");
    let deep = format!("* 1 FETCH (UID 1 BODYSTRUCTURE {}\r\n", "(".repeat(400));
    let error = fetch_fails(&deep).await;
    assert!(matches!(error, Error::Violation(Violation::TooDeep { .. })), "{error:?}");
    let hidden = format!("* 1 FETCH (X (\" ) BODYSTRUCTURE {}\r\n", "(".repeat(400));
    let error = fetch_fails(&hidden).await;
    assert!(matches!(error, Error::Violation(Violation::TooDeep { .. })), "{error:?}");
    let long = format!("* 1 FETCH (UID 1 X \"{}", "a".repeat(1 << 20));
    let error = fetch_fails(&long).await;
    assert!(matches!(error, Error::Violation(Violation::LineTooLong { .. })), "{error:?}");
    // The parser panics here.
    let error = fetch_fails("* 1 FETCH (INTERNALDATE NIL UID 1)\r\n{tag} OK\r\n").await;
    assert!(error.is_answer(), "{error:?}");
}

#[tokio::test]
async fn a_message_larger_than_the_limit_is_named_and_the_session_goes_on() {
    let large = format!("* 1 FETCH (UID 1 BODY[] {{1500}}\r\n{})\r\n{{tag}} OK\r\n", "x".repeat(1500));
    let mut folder = opened(then(&[("UID FETCH 1", &large), ("NOOP", "{tag} OK\r\n")])).await.expect("open");
    let got = bodies(&mut folder.commands, &[1]).await.expect("bodies");
    assert_eq!(got.oversized, [(1, 1500)]);
    folder.commands.run("NOOP", |_| {}).await.expect("alive");
}

#[tokio::test]
async fn a_command_that_was_given_up_poisons_the_session() {
    let mut folder = opened(then(&[("UID FETCH", "* 1 FETCH (UID 1 BODY[] {1}\r\na)\r\n"), ("NOOP", "{tag} OK\r\n")]))
        .await
        .expect("open");
    tokio::select! {
        biased;
        _ = bodies(&mut folder.commands, &[1]) => panic!("it never ends"),
        () = tokio::task::yield_now() => {}
    }
    let error = folder.commands.run("NOOP", |_| {}).await.expect_err("poisoned");
    assert!(matches!(error, Error::Poisoned), "{error:?}");
}

#[tokio::test]
async fn a_refused_token_comes_with_the_servers_explanation() {
    let json = "eyJzdGF0dXMiOiI0MDEiLCJzY2hlbWVzIjoiYmVhcmVyIn0=";
    let script = vec![
        ("AUTHENTICATE", "+ \r\n".to_owned()),
        ("dXNlcj", format!("+ {json}\r\n")),
        ("", "A0001 NO [AUTHENTICATIONFAILED] no\r\n".to_owned()),
    ];
    let error = opened(script).await.expect_err("refused");
    assert!(error.sign_in_refused);
    assert!(error.diagnosis.cause.contains(r#""status":"401""#), "{}", error.diagnosis.cause);
    assert!(error.diagnosis.cause.contains("[AUTHENTICATIONFAILED] no"), "{}", error.diagnosis.cause);
    assert!(!format!("{error:?}").contains("secret-token"));
}

#[tokio::test]
async fn a_passing_fault_at_sign_in_is_not_blamed_on_the_token() {
    let script = vec![("AUTHENTICATE", "{tag} NO [UNAVAILABLE] Temporary authentication failure\r\n".to_owned())];
    let error = opened(script).await.expect_err("refused");
    assert!(!error.sign_in_refused && error.diagnosis.is_transient(), "{error:?}");
}

#[tokio::test]
async fn signed_in_but_not_connected_is_told_apart() {
    let mut script = opening("");
    script.truncate(2);
    script.push(("CAPABILITY", "{tag} BAD User is authenticated but not connected.\r\n".into()));
    let error = opened(script).await.expect_err("not connected");
    assert_eq!(error.diagnosis.code, "NOT_CONNECTED");
}

#[tokio::test]
async fn mail_that_is_told_before_idle_begins_is_not_missed() {
    let script = then(&[("IDLE", "* 4 EXISTS\r\n+ idling\r\n"), ("DONE", "A0004 OK done\r\n")]);
    let mut folder = opened(script).await.expect("open");
    folder.commands.take_news();
    assert_eq!(wait(&mut folder, LONG, pending()).await.expect("woken"), Woken::Mail);
}

#[tokio::test]
async fn mail_that_is_told_in_the_answer_to_another_command_is_not_missed() {
    let fetch = "UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)";
    let store = ("UID STORE 1", "* 4 EXISTS\r\n{tag} OK\r\n");
    let script = then(&[
        (fetch, "{tag} OK\r\n"),
        store,
        (fetch, "{tag} OK\r\n"),
        // Told again, but no more than before.
        store,
        ("IDLE", "+ idling\r\n"),
        ("DONE", "A0008 OK done\r\n"),
        // One is gone and one has come: as many as before, and mail nevertheless.
        ("UID STORE 1", "* 2 EXPUNGE\r\n* 4 EXISTS\r\n{tag} OK\r\n"),
        (fetch, "* 5 EXISTS\r\n{tag} OK\r\n"),
    ]);
    let mut folder = opened(script).await.expect("open");
    summaries(&mut folder.commands, 1, None).await.expect("all there was at the opening");
    settle(&mut folder, &[1], &AfterIntake::Seen).await.expect("marked");
    assert_eq!(wait(&mut folder, LONG, pending()).await.expect("woken"), Woken::Mail);
    summaries(&mut folder.commands, 1, None).await.expect("looked at");
    settle(&mut folder, &[1], &AfterIntake::Seen).await.expect("marked");
    assert_eq!(wait(&mut folder, LONG, async {}).await.expect("waited"), Woken::Stop);
    settle(&mut folder, &[1], &AfterIntake::Seen).await.expect("marked");
    assert_eq!(poll(&mut folder, LONG, pending()).await.expect("woken"), Woken::Mail);
    summaries(&mut folder.commands, 1, None).await.expect("looked at");
    assert_eq!(poll(&mut folder, LONG, pending()).await.expect("woken"), Woken::Mail, "told while it looked");
}

#[tokio::test]
async fn idle_wakes_for_mail_and_for_time_only() {
    let script = then(&[
        ("IDLE", "+ idling\r\n* OK Still here\r\n* 2 EXPUNGE\r\n* 5 EXISTS\r\n"),
        ("DONE", "A0004 OK done\r\n"),
        ("IDLE", "+ idling\r\n* OK Still here\r\n"),
        ("DONE", "A0005 OK done\r\n"),
        ("IDLE", "+ idling\r\n"),
        ("DONE", "A0006 OK done\r\n"),
    ]);
    let mut folder = opened(script).await.expect("open");
    folder.commands.take_news();
    assert_eq!(wait(&mut folder, LONG, pending()).await.expect("woken"), Woken::Mail);
    folder.commands.take_news();
    assert_eq!(wait(&mut folder, Duration::from_millis(20), pending()).await.expect("woken"), Woken::Time);
    assert_eq!(wait(&mut folder, LONG, async {}).await.expect("woken"), Woken::Stop);
}

#[tokio::test]
async fn idle_wakes_once_when_the_last_message_is_gone() {
    for last in ["+ idling\r\n* 1 EXPUNGE\r\n", "* 1 EXPUNGE\r\n+ idling\r\n"] {
        let script = then(&[
            ("IDLE", "* 1 EXPUNGE\r\n+ idling\r\n* 1 EXPUNGE\r\n"),
            ("DONE", "A0004 OK done\r\n"),
            ("IDLE", last),
            ("DONE", "A0005 OK done\r\n"),
            ("IDLE", "+ idling\r\n"),
            ("DONE", "A0006 OK done\r\n"),
        ]);
        let mut folder = opened(script).await.expect("open");
        folder.commands.take_news();
        let short = Duration::from_millis(50);
        assert_eq!(wait(&mut folder, short, pending()).await.expect("woken"), Woken::Time, "one is left");
        assert_eq!(wait(&mut folder, LONG, pending()).await.expect("woken"), Woken::Mail);
        assert_eq!(wait(&mut folder, short, pending()).await.expect("woken"), Woken::Time);
    }
}

#[tokio::test]
async fn an_idle_that_does_not_work_is_an_error() {
    for (answer, refused) in [
        ("{tag} NO not now\r\n", true),
        ("{tag} BAD\r\n", true),
        ("+ idling\r\n* BYE Connection is closed. 13\r\nCLOSE", false),
        ("+ idling\r\nCLOSE", false),
    ] {
        let mut folder = opened(then(&[("IDLE", answer)])).await.expect("open");
        folder.commands.take_news();
        let error = wait(&mut folder, LONG, pending()).await.expect_err(answer);
        assert_eq!(matches!(error, Error::Refused { .. }), refused, "{answer}: {error:?}");
    }
}

#[tokio::test]
async fn silence_in_a_command_ends_it() {
    let (stream, _) = super::peer::start(then(&[("NOOP", "* OK wait\r\n"), ("never", "")]));
    let server = ("imap.x.example".into(), 993);
    let sign_in = SignIn::Token { mailbox: "a@x.example".into(), token: Token::new("t".into()), server };
    let limits = Limits::for_messages(1000);
    let step = Duration::from_millis(200);
    let mut folder = open(stream, limits, step, &sign_in, "INBOX").await.expect("open");
    let error = folder.commands.run("NOOP", |_| {}).await.expect_err("silent");
    assert!(matches!(error, Error::TimedOut), "{error:?}");
}

#[tokio::test]
async fn a_server_that_chatters_instead_of_beginning_or_ending_idle_is_given_up() {
    for begins in [false, true] {
        let (client, mut server) = tokio::io::duplex(1 << 16);
        let chatter = async move {
            // Exactly the answers of an opening, then a line in each step for ever.
            let opening = "* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] ready\r\n+ \r\nA0001 OK in\r\nA0002 OK\r\n* OK [UIDVALIDITY 9] x\r\nA0003 OK\r\n";
            server.write_all(opening.as_bytes()).await.expect("the opening");
            if begins {
                server.write_all(b"+ idling\r\n").await.expect("IDLE");
            }
            while server.write_all(b"* OK Still here\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let idle = async {
            let server = ("imap.x.example".into(), 993);
            let sign_in = SignIn::Token { mailbox: "a@x.example".into(), token: Token::new("t".into()), server };
            let (limits, step) = (Limits::for_messages(1000), Duration::from_millis(100));
            let mut folder = open(client, limits, step, &sign_in, "INBOX").await.expect("open");
            wait(&mut folder, Duration::from_millis(20), pending()).await
        };
        let both = async { tokio::join!(idle, chatter).0 };
        let error = tokio::time::timeout(LONG, both).await.expect("in time").expect_err("chatter");
        assert!(matches!(error, Error::TimedOut), "{error:?}");
    }
}

#[tokio::test]
async fn settling_uses_what_the_server_can() {
    let target = AfterIntake::Move("Done".into());
    let ok = "{tag} OK\r\n";
    let script = then(&[("UID STORE 1:2 +FLAGS.SILENT (\\Seen)", ok), ("UID MOVE 1:2 \"Done\"", ok)]);
    let mut folder = opened(script).await.expect("open");
    settle(&mut folder, &[1, 2], &AfterIntake::Seen).await.expect("marked");
    settle(&mut folder, &[1, 2], &target).await.expect("moved");
    settle(&mut folder, &[1, 2], &AfterIntake::Leave).await.expect("nothing");
    let script =
        with("UIDPLUS", &[("UID COPY 1", ok), ("UID STORE 1 +FLAGS.SILENT (\\Deleted)", ok), ("UID EXPUNGE 1", ok)]);
    let mut folder = opened(script).await.expect("open");
    settle(&mut folder, &[1], &target).await.expect("moved");
    let mut folder = opened(with("", &[])).await.expect("open");
    assert!(settle(&mut folder, &[1], &target).await.is_err());
}

#[tokio::test]
async fn only_what_is_old_enough_by_the_server_too_is_deleted_and_never_what_others_marked() {
    const OK: &str = "{tag} OK\r\n";
    const LOOK: &str = "UID FETCH 1:3,5 (UID FLAGS INTERNALDATE RFC822.SIZE)";
    // 2 is gone, 3 is younger, 5 has no time that can be read; 9 is not asked for.
    let there = "* 1 FETCH (UID 1 FLAGS () INTERNALDATE \"01-Jan-2024 10:00:00 +0000\" RFC822.SIZE 1)\r\n\
        * 2 FETCH (UID 3 FLAGS () INTERNALDATE \"01-Jan-2024 10:00:01 +0000\" RFC822.SIZE 1)\r\n\
        * 3 FETCH (UID 5 FLAGS () INTERNALDATE \"yesterday\" RFC822.SIZE 1)\r\n\
        * 4 FETCH (UID 9 FLAGS () INTERNALDATE \"01-Jan-2020 10:00:00 +0000\" RFC822.SIZE 1)\r\n{tag} OK\r\n";
    let before = 1_704_103_201_000_000;
    let mark = ("UID STORE 1 +FLAGS.SILENT (\\Deleted)", OK);
    let mut folder = opened(then(&[(LOOK, there), mark, ("UID EXPUNGE 1", OK)])).await.expect("open");
    assert_eq!(delete(&mut folder, &[1, 2, 3, 5], before).await.expect("deleted"), [3, 5]);
    // Without UIDPLUS it stays, marked.
    let mut folder = opened(with("MOVE", &[(LOOK, there), mark])).await.expect("open");
    assert_eq!(delete(&mut folder, &[1, 2, 3, 5], before).await.expect("marked"), [3, 5]);
    assert!(!can_expunge(&folder));
    let refused = then(&[(LOOK, there), (mark.0, "{tag} NO it is on hold\r\n")]);
    let mut folder = opened(refused).await.expect("open");
    assert!(matches!(delete(&mut folder, &[1, 2, 3, 5], before).await, Err(Error::Refused { .. })));
    let mut folder = opened(then(&[("UID FETCH 7", OK)])).await.expect("open");
    assert!(delete(&mut folder, &[7], before).await.expect("nothing").is_empty());
}

#[tokio::test]
async fn a_folder_that_is_missing_is_created_and_a_refusal_for_another_reason_is_told() {
    const OK: &str = "{tag} OK\r\n";
    const MOVE: &str = "UID MOVE 1 \"Erledigt/&ANw-brig\"";
    const CREATE: &str = "CREATE \"Erledigt/&ANw-brig\"";
    let target = AfterIntake::Move("Erledigt/Übrig".into());
    for missing in ["{tag} NO [TRYCREATE] no such folder\r\n", "{tag} NO The folder could not be found.\r\n"] {
        let script = then(&[(MOVE, missing), (CREATE, OK), (MOVE, OK)]);
        let mut folder = opened(script).await.expect("open");
        settle(&mut folder, &[1], &target).await.expect("moved");
    }
    let there = then(&[(MOVE, "{tag} NO not allowed\r\n"), (CREATE, "{tag} NO [ALREADYEXISTS] it is there\r\n")]);
    let throttled = then(&[(MOVE, "{tag} NO Request is throttled. Suggested Backoff Time: 9 milliseconds\r\n")]);
    let bad = then(&[(MOVE, "{tag} BAD Command Argument Error. 11\r\n")]);
    for (script, expected) in [(there, "not allowed"), (throttled, "throttled"), (bad, "Argument")] {
        let mut folder = opened(script).await.expect("open");
        let error = settle(&mut folder, &[1], &target).await.expect_err(expected);
        assert!(matches!(&error, Error::Refused { text, .. } if text.contains(expected)), "{error:?}");
    }
}

#[tokio::test]
async fn data_of_other_commands_is_passed_over() {
    let script =
        then(&[("NOOP", "* 1 FETCH (FLAGS (\\Seen))\r\n* 2 FETCH (UID 2 FLAGS ())\r\nA0001 NO old\r\n{tag} OK\r\n")]);
    let mut folder = opened(script).await.expect("open");
    let mut seen = Vec::new();
    folder.commands.run("NOOP", |untagged| seen.push(untagged)).await.expect("done");
    assert_eq!(seen.len(), 2);
    assert!(matches!(&seen[1], Untagged::Fetched(fetched) if fetched.uid == 2));
}
