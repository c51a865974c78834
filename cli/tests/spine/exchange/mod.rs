//! Whatever Exchange Online does over IMAP: every message is accounted for, and reading goes on by itself.
//!
//! One installation reads many mailboxes through one front. Each mailbox meets a behaviour of its own ([`cases`]), all at the
//! same time.

mod cases;
mod house;

use std::rc::Rc;
use std::time::Duration;

use postroom_proto::v1::Disposition;
use postroom_testbed::front::{Change, Step, answers};
use postroom_testbed::mail::Mail;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep};

use self::cases::{CASES, Case, Reader};
use self::house::House;
use crate::harness::eventually;

/// Messages that come while the behaviour lasts, in one transaction.
const DURING: usize = 4;
/// A session is ended after so many commands that were refused.
const PATIENCE: usize = 10;
/// How often somebody looks at what is shown.
const LOOKING: Duration = Duration::from_millis(100);
/// How long the server asks to stay away when it is asked too much.
const BACKOFF: Duration = Duration::from_secs(5);
/// Mailbox whose mail is told of before IDLE begins.
const EARLY: &str = "early@contoso.example";
/// Mailbox whose marks are refused.
const REFUSED: &str = "refused@contoso.example";

fn address(case: &Case) -> String {
    format!("{}@contoso.example", case.name)
}

fn mails(email: &str, tag: &str, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| Mail::to(email).subject(&format!("{email}-{tag}-{number}")).build()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_exchange_does_every_message_is_accounted_for_and_reading_goes_on_by_itself() {
    let mut boxes: Vec<(String, Reader)> = CASES.iter().map(|case| (address(case), case.reader)).collect();
    boxes.extend([(EARLY.to_owned(), Reader::Usual), (REFUSED.to_owned(), Reader::Usual)]);
    let house = Rc::new(House::build(&boxes).await);
    house.front.set_patience(PATIENCE);
    let all = async {
        let mut running = JoinSet::new();
        running.spawn_local(watch(house.clone()));
        let watching = running.len();
        for case in CASES {
            running.spawn_local(meet(house.clone(), case));
        }
        running.spawn_local(mail_is_told_of_before_idle_begins(house.clone()));
        running.spawn_local(ten_commands_are_refused(house.clone()));
        let mut failed = 0;
        while running.len() > watching {
            // Each that fails has said why; the others go on, so that one run tells of all.
            failed += usize::from(running.join_next().await.unwrap().is_err());
        }
        failed
    };
    let failed = LocalSet::new().run_until(all).await;
    assert_eq!(failed, 0, "so many mailboxes did not do what they should");
    for (email, _) in &boxes {
        let commands = house.front.commands(email);
        let known = ["CAPABILITY", "SELECT", "UID FETCH", "UID STORE", "UID MOVE", "IDLE", "LOGOUT"];
        let strange: Vec<_> = commands.iter().filter(|command| !known.contains(&command.as_str())).collect();
        assert!(strange.is_empty(), "neither IMAP4rev2 nor anything else that is on offer is used: {strange:?}");
    }
    // LOGINDISABLED: nobody tries a password.
    assert!(house.front.sign_ins().iter().all(|way| way == "AUTHENTICATE XOAUTH2"), "{:?}", house.front.sign_ins());
    Rc::into_inner(house).unwrap().tear_down().await;
}

/// Looks at what is shown, for ever.
async fn watch(house: Rc<House>) {
    loop {
        house.look().await;
        sleep(LOOKING).await;
    }
}

/// One mailbox and its behaviour: mail before, during and after it.
async fn meet(house: Rc<House>, case: &'static Case) {
    let email = address(case);
    house.deliver(&email, mails(&email, "before", 1)).await;
    house.at_rest(&email, 1).await;

    let begun = Instant::now();
    let stall = (case.orders)(&house.front, &email);
    if let Some(text) = case.ended {
        eventually(&format!("{email} is ended"), || async { house.front.end(&email, text) > 0 }).await;
    }
    house.deliver(&email, mails(&email, "during", DURING)).await;
    eventually(&format!("{email} meets it"), || async { house.front.met(&email) >= case.met }).await;
    if case.reader == Reader::Impatient {
        // It has to find out by itself that nothing comes any more: this mail comes while the connection is half open.
        house.deliver(&email, mails(&email, "meanwhile", 1)).await;
    }
    let meanwhile = usize::from(case.reader == Reader::Impatient);
    let aside = usize::from(case.second != Disposition::Contact);
    let whole = 1 + DURING + meanwhile;
    house.accounted(&email, whole, aside).await;
    if let Some(backoff) = case.backoff {
        let tries: Vec<Instant> = house.front.tries(&email).into_iter().filter(|at| *at > begun).collect();
        // Of a connection that was opened anew the first try is the one that was asked to stay away.
        let (asked, next) = if case.ended.is_some() { (tries[0], tries[1]) } else { (begun, tries[0]) };
        assert!(next.duration_since(asked) >= backoff, "{email} came back after {:?}", next.duration_since(asked));
    }

    house.deliver(&email, mails(&email, "after", 1)).await;
    house.accounted(&email, whole + 1, aside).await;
    let mut expected = vec![format!("{email}-before-0"), format!("{email}-after-0")];
    expected.extend((0..DURING).filter(|number| aside == 0 || *number != 1).map(|n| format!("{email}-during-{n}")));
    expected.extend((0..meanwhile).map(|number| format!("{email}-meanwhile-{number}")));
    house.assert_contacts(&email, expected).await;
    if aside > 0 {
        house.assert_aside(&email, case.second, case.reason).await;
    }
    if case.reader == Reader::Mover {
        eventually(&format!("{email} has moved everything once"), || house.has_moved(&email, whole + 1)).await;
    }
    house.settled(&email, aside).await;
    if let Some(code) = case.shows {
        assert!(house.has_shown(&email, code), "{email} never showed {code}, but {:?}", house.shown(&email));
    }
    drop(stall);
}

/// `* n EXISTS` before the `+` of IDLE, and never again: whoever passes over it learns of the mail minutes later.
async fn mail_is_told_of_before_idle_begins(house: Rc<House>) {
    house.deliver(EARLY, mails(EARLY, "before", 1)).await;
    house.at_rest(EARLY, 1).await;
    house.front.change(Step::Idle, EARLY, 1, Change::ExistsFirst);
    house.deliver(EARLY, mails(EARLY, "during", 1)).await;
    eventually("IDLE is held up", || async { house.front.met(EARLY) == 1 }).await;
    house.deliver(EARLY, mails(EARLY, "early", 1)).await;
    house.accounted(EARLY, 3, 0).await;
    let expected = ["before", "during", "early"].map(|tag| format!("{EARLY}-{tag}-0")).to_vec();
    house.assert_contacts(EARLY, expected).await;
    house.settled(EARLY, 0).await;
}

/// Ten commands of a session are refused, and it ends: mail is read all the time, and marked when that works again.
async fn ten_commands_are_refused(house: Rc<House>) {
    house.deliver(REFUSED, mails(REFUSED, "before", 1)).await;
    house.at_rest(REFUSED, 1).await;
    house.front.answer(Step::Mark, REFUSED, 0, answers::ARGUMENT_ERROR);
    let mut count = 0;
    // One mail is one refusal; a session that was lost for another reason begins to count anew.
    while house.front.given_up(REFUSED) == 0 {
        let met = house.front.met(REFUSED);
        house.deliver(REFUSED, mails(REFUSED, &format!("during-{count}"), 1)).await;
        count += 1;
        house.accounted(REFUSED, 1 + count, 0).await;
        eventually("the mark is refused", || async { house.front.met(REFUSED) > met }).await;
        assert!(count <= 3 * PATIENCE, "it never hung up");
    }
    house.front.mend_for(REFUSED);
    house.deliver(REFUSED, mails(REFUSED, "after", 1)).await;
    house.accounted(REFUSED, count + 2, 0).await;
    let mut expected = vec![format!("{REFUSED}-before-0"), format!("{REFUSED}-after-0")];
    expected.extend((0..count).map(|number| format!("{REFUSED}-during-{number}-0")));
    house.assert_contacts(REFUSED, expected).await;
    house.settled(REFUSED, 0).await;
    assert!(house.has_shown(REFUSED, "MARK_REFUSED"), "{:?}", house.shown(REFUSED));
}
