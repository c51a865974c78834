//! The front before Dovecot: what it was ordered to say is what a client hears, and everything else is Dovecot's.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::time::Duration;

use postroom_testbed::{
    Dovecot, Error, Front, Mail, dovecot,
    front::{Change, Step, answers},
    imap, lmtp,
};

/// Bodies of messages.
const FETCH: &str = "UID FETCH 1:* (UID BODY.PEEK[])";
/// What is known of messages before they are fetched.
const LOOK: &str = "UID FETCH 1:* (UID FLAGS RFC822.SIZE)";

struct Bed {
    front: Front,
    dovecot: Dovecot,
}

impl Bed {
    async fn make() -> Self {
        let dovecot = Dovecot::start(b"a key of thirty-two bytes or more", dovecot::Options::default()).await.unwrap();
        let front = Front::start(dovecot.imap_addr(), dovecot.authority()).await.unwrap();
        Self { front, dovecot }
    }

    /// A connection to a mailbox with so many messages, whose subjects are their UIDs. INBOX is selected.
    async fn open(&self, mailbox: &str, messages: u32) -> imap::Client {
        let mails = (1..=messages).map(|uid| Mail::to(mailbox).subject(&uid.to_string()).delivery());
        let mut client = lmtp::Client::connect(self.dovecot.lmtp_addr()).await.unwrap();
        client.deliver(mails).await.unwrap();
        let mut client = self.sign_in(mailbox).await.unwrap();
        client.command("SELECT INBOX").await.unwrap();
        client
    }

    async fn sign_in(&self, mailbox: &str) -> Result<imap::Client, Error> {
        let mut client = imap::Client::connect(self.front.addr(), self.dovecot.authority()).await?;
        client.sign_in_with_password(mailbox, self.dovecot.password()).await?;
        Ok(client)
    }
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Error>, with: &str) {
    match answer {
        Err(Error::Refused { said, .. }) => assert!(said.contains(with), "{said}"),
        other => panic!("not refused: {other:?}"),
    }
}

fn subjects(answers: &[String]) -> Vec<String> {
    let subject = |answer: &String| answer.lines().find_map(|line| line.strip_prefix("Subject: ").map(str::to_owned));
    answers.iter().filter_map(subject).collect()
}

#[tokio::test]
async fn refusals_meet_whom_they_are_for_and_everything_else_is_dovecots() {
    let bed = Bed::make().await;
    let (front, one, two) = (&bed.front, "one@contoso.example", "two@contoso.example");
    front.answer(Step::SignIn, one, 1, answers::SIGN_IN_REFUSED);
    let refused = bed.sign_in(one).await;
    assert_refused(refused, answers::SIGN_IN_REFUSED);
    front.answer(Step::Open, one, 2, answers::NOT_CONNECTED);
    front.answer(Step::Fetch, one, 1, &answers::throttled("NO", Duration::from_secs(2)));
    let mut client = bed.sign_in(one).await.unwrap();
    for command in ["NAMESPACE", "SELECT INBOX"] {
        assert_refused(client.command(command).await, answers::NOT_CONNECTED);
    }
    client.command("SELECT INBOX").await.unwrap();
    client
        .append("INBOX", [&b"From: a\r\nSubject: 1\r\n\r\n{3}\r\n"[..], b"From: a\r\nSubject: 2\r\n\r\nx"])
        .await
        .unwrap();
    assert_refused(client.command(FETCH).await, "Suggested Backoff Time: 2000 milliseconds");
    assert_eq!(subjects(&client.command(FETCH).await.unwrap()), ["1", "2"]);
    assert_eq!(front.met(one), 4);

    let mut other = bed.open(two, 1).await;
    assert_eq!(subjects(&other.command(FETCH).await.unwrap()), ["1"]);
    // RFC 9051 section 9: the last message, although its UID is lower.
    assert_eq!(subjects(&other.command("UID FETCH 7:* (UID BODY.PEEK[])").await.unwrap()), ["1"]);
    assert_eq!((front.met(two), front.tries(two).len(), front.tries(one).len()), (0, 1, 2));
    assert_eq!(front.commands(two), ["SELECT", "UID FETCH", "UID FETCH"]);
}

#[tokio::test]
async fn sessions_end_as_exchange_ends_them() {
    let bed = Bed::make().await;
    let (front, mailbox) = (&bed.front, "one@contoso.example");
    let mut client = bed.open(mailbox, 2).await;
    assert_eq!((front.open(mailbox), front.end(mailbox, answers::TOKEN_EXPIRED)), (1, 1));
    assert_eq!(client.line().await.unwrap(), answers::TOKEN_EXPIRED);
    assert!(client.line().await.is_err(), "it hangs up");

    front.change(Step::Fetch, mailbox, 1, Change::BrokenLiteral(answers::TOKEN_EXPIRED.to_owned()));
    let mut client = bed.open(mailbox, 0).await;
    assert!(client.command(FETCH).await.is_err(), "in the middle of a literal");
    front.answer(Step::Idling, mailbox, 1, answers::CONNECTION_IS_CLOSED);
    let mut client = bed.open(mailbox, 0).await;
    client.send("IDLE").await.unwrap();
    assert!(client.line().await.unwrap().starts_with('+'));
    assert_eq!(client.line().await.unwrap(), answers::CONNECTION_IS_CLOSED);
    front.answer(Step::Look, mailbox, 1, answers::UNAVAILABLE_BARE);
    let mut client = bed.open(mailbox, 0).await;
    client.send(LOOK).await.unwrap();
    assert_eq!(client.line().await.unwrap(), answers::UNAVAILABLE_BARE);
    front.cut(Step::Other, mailbox, 1);
    let mut client = bed.open(mailbox, 0).await;
    assert!(matches!(client.command("NOOP").await, Err(Error::System { .. })), "without a word");

    front.set_patience(3);
    front.answer(Step::Mark, mailbox, 2, answers::ARGUMENT_ERROR);
    let mut client = bed.open(mailbox, 0).await;
    for _ in 0..2 {
        assert_refused(client.command("UID STORE 1 +FLAGS (x)").await, answers::ARGUMENT_ERROR);
    }
    // One that Dovecot itself does not understand.
    let tag = client.send("NONSENSE").await.unwrap();
    assert!(client.line().await.unwrap().starts_with(&format!("{tag} BAD")));
    assert_eq!(client.line().await.unwrap(), answers::CONNECTION_CLOSED);
    assert_eq!(front.given_up(mailbox), 1);
    assert_eq!(subjects(&bed.open(mailbox, 0).await.command(FETCH).await.unwrap()), ["1", "2"]);
}

#[tokio::test]
async fn a_half_open_connection_says_nothing_and_nobody_else_notices() {
    let bed = Bed::make().await;
    let (front, mailbox) = (&bed.front, "one@contoso.example");
    let stall = front.stall(Step::Fetch, mailbox, 1);
    let mut client = bed.open(mailbox, 1).await;
    let tag = client.send(FETCH).await.unwrap();
    stall.arrived(1).await.unwrap();
    assert_eq!(subjects(&bed.open(mailbox, 0).await.command(FETCH).await.unwrap()), ["1"]);
    // Bounded: the other one has hung up, and this one stands.
    let alone = async {
        while front.open(mailbox) != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), alone).await.unwrap();
    stall.release();
    assert!(client.line().await.unwrap().contains("Subject: 1"));
    assert!(client.line().await.unwrap().starts_with(&tag));
}

#[tokio::test]
async fn answers_are_changed_as_often_as_ordered() {
    let bed = Bed::make().await;
    let (front, mailbox) = (&bed.front, "one@contoso.example");
    front.change(Step::Open, mailbox, 1, Change::UidValidity(77));
    let mut client = bed.open(mailbox, 3).await;
    let selected = async |client: &mut imap::Client| client.command("SELECT INBOX").await.unwrap().join("\n");
    assert!(!selected(&mut client).await.contains("UIDVALIDITY 77"), "the first SELECT only");
    front.change(Step::Open, mailbox, 1, Change::UidValidity(77));
    assert!(selected(&mut client).await.contains("[UIDVALIDITY 77]"));
    front.change(Step::Open, mailbox, 1, Change::BareCodes);
    let said = selected(&mut client).await;
    assert!(said.contains("* [UIDVALIDITY") && said.contains("* [UIDNEXT") && !said.contains("* OK ["), "{said}");

    for size in [0, 9_999_999] {
        front.change(Step::Look, mailbox, 1, Change::Sizes(size));
        let said = client.command(LOOK).await.unwrap();
        assert!(said.iter().all(|line| line.contains(&format!("RFC822.SIZE {size})"))), "{said:?}");
    }
    front.change(Step::Fetch, mailbox, 1, Change::Sequence(1000));
    let said = client.command(FETCH).await.unwrap();
    assert!(said[0].starts_with("* 1001 FETCH (UID 1 ") && subjects(&said) == ["1", "2", "3"], "{said:?}");
    front.change(Step::Fetch, mailbox, 1, Change::Without(2));
    assert_eq!(subjects(&client.command(FETCH).await.unwrap()), ["1", "3"]);
    front.change(Step::Fetch, mailbox, 1, Change::Placeholder(2));
    let placeholder = "Retrieval using the IMAP4 protocol failed for the following message: 2";
    assert_eq!(subjects(&client.command(FETCH).await.unwrap()), ["1", placeholder, "3"]);
    front.change(Step::Fetch, mailbox, 1, Change::Nesting { uid: 2, depth: 100 });
    assert!(client.command(FETCH).await.unwrap()[1].contains(&"(".repeat(100)));
    front.change(Step::Fetch, mailbox, 1, Change::Literal { uid: 2, bytes: 100_000 });
    assert!(client.command(FETCH).await.unwrap()[1].len() > 100_000);
    let halfway = Change::RefusedAfter { messages: 1, status: answers::UNAVAILABLE.to_owned() };
    front.change(Step::Fetch, mailbox, 1, halfway);
    let tag = client.send(FETCH).await.unwrap();
    assert!(client.line().await.unwrap().contains("Subject: 1"));
    assert_eq!(client.line().await.unwrap(), format!("{tag} {}", answers::UNAVAILABLE));
    front.change(Step::Look, mailbox, 1, Change::Before("Server Unavailable. 15\r\n* XFOO {3}\r\nabc".to_owned()));
    let said = client.command(LOOK).await.unwrap();
    assert_eq!((said[0].as_str(), said[1].as_str(), said.len()), ("Server Unavailable. 15", "* XFOO {3}abc", 5));
    front.change(Step::Move, mailbox, 1, Change::EmptyCopyUid);
    client.command("CREATE Done").await.unwrap();
    let said = client.command("UID MOVE 1:3 Done").await.unwrap().join("\n");
    let code = said.split_once("[COPYUID ").unwrap().1.split_once(']').unwrap().0;
    assert!(code.ends_with("  ") && code.trim().parse::<u32>().is_ok(), "{said}");
    assert_eq!(front.met(mailbox), 13);
}

#[tokio::test]
async fn mail_is_told_of_before_idle_begins_and_not_again() {
    let bed = Bed::make().await;
    let (front, mailbox) = (&bed.front, "one@contoso.example");
    front.change(Step::Idle, mailbox, 1, Change::ExistsFirst);
    let mut client = bed.open(mailbox, 0).await;
    let tag = client.send("IDLE").await.unwrap();
    let delivery = Mail::to(mailbox).delivery();
    lmtp::Client::connect(bed.dovecot.lmtp_addr()).await.unwrap().deliver([delivery]).await.unwrap();
    assert_eq!(client.line().await.unwrap(), "* 1 EXISTS");
    loop {
        let line = client.line().await.unwrap();
        if line.starts_with('+') {
            break;
        }
        assert!(line.ends_with("RECENT") || line.contains("FETCH"), "{line}");
    }
    client.send_line("DONE").await.unwrap();
    let end = client.line().await.unwrap();
    assert!(end.starts_with(&format!("{tag} OK")), "{end}");
}

#[tokio::test]
async fn it_speaks_as_exchange_and_names_what_a_client_must_not_use() {
    let bed = Bed::make().await;
    bed.front.speak_as_exchange();
    let mut client = imap::Client::connect(bed.front.addr(), bed.dovecot.authority()).await.unwrap();
    assert_eq!(client.command("CAPABILITY").await.unwrap(), [format!("* CAPABILITY {}", answers::OFFERS)]);
    client.sign_in_with_password("one@contoso.example", bed.dovecot.password()).await.unwrap();
    let said = client.command("CAPABILITY").await.unwrap();
    assert_eq!(said, [format!("* CAPABILITY {}", answers::CAPABILITIES)]);
    assert!(said[0].contains("LOGINDISABLED") && said[0].contains("IMAP4rev2"));
    bed.front.change(Step::Capability, "", 1, Change::Capabilities("IMAP4rev1 IDLE".to_owned()));
    assert_eq!(client.command("CAPABILITY").await.unwrap(), ["* CAPABILITY IMAP4rev1 IDLE"]);
    let refused = imap::Client::connect(bed.front.addr(), bed.dovecot.authority()).await.unwrap();
    let mut refused = refused;
    assert_refused(refused.sign_in_with_password("one@contoso.example", "wrong").await, "NO");
    refused.sign_in_with_password("one@contoso.example", bed.dovecot.password()).await.unwrap();
}
