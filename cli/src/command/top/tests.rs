use postroom_proto::convert::{to_duration, to_timestamp};
use postroom_proto::v1::{self, MailboxState, ProblemKind, WorkerState};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::args::Sort;

/// 2026-03-01T12:00:00Z
const NOW: i64 = 1_772_366_400_000_000;

fn ago(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(to_timestamp(NOW - seconds * 1_000_000))
}

fn mailbox(email: &str, state: MailboxState) -> v1::Mailbox {
    v1::Mailbox {
        email: email.into(),
        queue: "Billing".into(),
        instance: "core1".into(),
        state: state.into(),
        since_time: ago(4000),
        proof_time: ago(20),
        delivery_lag: Some(to_duration(Duration::from_millis(1400))),
        contact_count: 7,
        holder: Some(v1::Holder { worker: "mail-1".into(), ..Default::default() }),
        ..Default::default()
    }
}

fn seen() -> Seen {
    let refused =
        v1::Problem { kind: ProblemKind::Credential.into(), code: "AADSTS50126".into(), ..Default::default() };
    let lost =
        v1::Problem { kind: ProblemKind::Transient.into(), code: "CONNECTION_LOST".into(), ..Default::default() };
    let concern = v1::Concern {
        code: "AADSTS50126".into(),
        subject: "c@contoso.example".into(),
        cause: "user name or password is wrong".into(),
        ..Default::default()
    };
    let mailboxes = vec![
        mailbox("a@contoso.example", MailboxState::Idle),
        v1::Mailbox {
            problem: Some(lost),
            proof_time: ago(700),
            ..mailbox("b@contoso.example", MailboxState::Failing)
        },
        v1::Mailbox { problem: Some(refused), proof_time: None, ..mailbox("c@contoso.example", MailboxState::Failing) },
        v1::Mailbox {
            unfetched_time: ago(90),
            contact_count: 90,
            queue: "Support\u{1b}[2J".into(),
            ..mailbox("d@contoso.example", MailboxState::CatchingUp)
        },
        v1::Mailbox {
            holder: None,
            proof_time: None,
            unassigned_reason: v1::UnassignedReason::NoCapacity.into(),
            ..mailbox("e@contoso.example", MailboxState::Unassigned)
        },
    ];
    let tally = |state: MailboxState, count| v1::MailboxTally { state: state.into(), count };
    let status = v1::Status {
        version: "0.1.0".into(),
        start_time: ago(90_000),
        read_time: ago(0),
        concerns: vec![concern],
        mailboxes: vec![tally(MailboxState::Idle, 1), tally(MailboxState::Failing, 2)],
        ledger_bytes: 3 << 20,
        instances: vec![v1::InstanceStatus {
            instance: "core1".into(),
            contacts: [(v1::ContactState::Queued, 12_345), (v1::ContactState::Accepted, 400)]
                .map(|(state, count)| v1::ContactTally { state: state.into(), count })
                .into(),
            ..Default::default()
        }],
        queues: vec![
            v1::QueueStatus {
                instance: "core1".into(),
                queue: "Billing".into(),
                waiting_count: 3,
                oldest_time: ago(60),
            },
            v1::QueueStatus {
                instance: "core1".into(),
                queue: "Support".into(),
                waiting_count: 10_000,
                oldest_time: ago(7200),
            },
        ],
        ..Default::default()
    };
    let worker = |name: &str, state: WorkerState| v1::Worker {
        name: name.into(),
        pool: "default".into(),
        role: v1::WorkerRole::Active.into(),
        state: state.into(),
        mailbox_count: 4,
        held_count: 4,
        heartbeat_time: ago(1),
        start_time: ago(90_000),
        ..Default::default()
    };
    let workers = vec![worker("mail-1", WorkerState::Live), worker("mail-2", WorkerState::Silent)];
    Seen { status, mailboxes, workers }
}

fn view() -> View {
    let mut view = View::new("http://127.0.0.1:7430", Sort::Trouble, String::new());
    view.see(Ok(seen()));
    view
}

fn press(view: &mut View, keys: &str) -> Step {
    let mut step = Step::Stay;
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            letter => KeyCode::Char(letter),
        };
        step = view.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
    step
}

fn screen(view: &mut View) -> String {
    frame(view, Timestamp::from_microsecond(NOW).unwrap(), Some(140)).unwrap()
}

fn order(view: &View) -> String {
    view.mailboxes().iter().map(|it| &it.email[..1]).collect()
}

#[test]
fn each_list_has_its_screen() {
    let mut view = view();
    let mut screens = screen(&mut view);
    press(&mut view, "2");
    screens += &screen(&mut view);
    press(&mut view, "\t");
    screens += &screen(&mut view);
    assert!(!screens.contains('\u{1b}'), "what servers and people write moves no cursor");
    insta::assert_snapshot!(screens);
}

#[test]
fn without_a_terminal_nothing_is_cut_and_what_is_left_out_is_told() {
    let (mailbox_name, queue) = (format!("{}@contoso.example", "m".repeat(60)), "Qu\u{e9}ue ".repeat(9) + "end");
    let mut view = view();
    let one = v1::Mailbox { queue: queue.clone(), ..mailbox(&mailbox_name, MailboxState::Idle) };
    view.see(Ok(Seen { mailboxes: vec![one; 1500], ..seen() }));
    let shown = frame(&mut view, Timestamp::from_microsecond(NOW).unwrap(), None).unwrap();
    let row = shown.lines().find(|line| line.contains(&mailbox_name)).unwrap();
    assert!(row.contains(&queue) && row.ends_with("mail-1"), "{row}");
    assert_eq!(shown.lines().filter(|line| line.contains(&mailbox_name)).count(), LINES - view::AROUND);
    assert!(shown.ends_with("507 more rows are not shown: see `postroom mailbox list`\n"), "{shown:.300}");
    let cut = screen(&mut view);
    assert!(!cut.contains(&queue), "a terminal has the columns that it has");
}

#[test]
fn a_small_screen_shows_what_fits() {
    let view = view();
    for (columns, lines) in [(1, 1), (20, 3), (40, 8), (300, 100)] {
        let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
        terminal.draw(|frame| view::draw(frame, &view, clock(&view), true)).unwrap();
    }
}

#[test]
fn what_needs_somebody_comes_first_and_keys_change_the_order() {
    let mut view = view();
    assert_eq!(order(&view), "cebda");
    press(&mut view, "r");
    assert_eq!(order(&view), "adbec");
    press(&mut view, "rs");
    assert_eq!((view.sort, order(&view).as_str()), (Sort::Email, "abcde"));
    view.sort = Sort::Lag;
    assert_eq!(&order(&view)[..1], "d");
    view.sort = Sort::Contacts;
    assert_eq!(&order(&view)[..1], "d");
    view.sort = Sort::Seen;
    assert_eq!(order(&view), "cebad");
}

#[test]
fn a_filter_is_typed_kept_and_dropped() {
    let mut view = view();
    press(&mut view, "/AADqs");
    assert!(view.typing && view.mailboxes().is_empty(), "letters are text while it is typed");
    view.press(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
    view.press(KeyEvent::new(KeyCode::Backspace, KeyModifiers::NONE));
    press(&mut view, "sts\n");
    assert_eq!((view.filter.as_str(), order(&view).as_str()), ("AADsts", "c"));
    assert_eq!(press(&mut view, "\u{1b}"), Step::Stay);
    assert_eq!(order(&view).len(), 5);
    assert_eq!(press(&mut view, "q"), Step::Quit);
    assert_eq!(press(&mut view, "\u{1b}"), Step::Quit);
    assert_eq!(view.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Step::Quit);
}

#[test]
fn a_look_that_fails_leaves_what_was_seen_and_says_so() {
    let mut view = view();
    press(&mut view, "kjjjjjjjjjj");
    assert_eq!(view.at, 4);
    view.see(Err("connection refused".into()));
    let shown = screen(&mut view);
    assert!(shown.contains("connection refused") && shown.contains("c@contoso.example"), "{shown}");
    view.see(Ok(Seen { mailboxes: vec![mailbox("a@contoso.example", MailboxState::Idle)], ..seen() }));
    assert_eq!(view.at, 0, "a row that is gone is not marked");
    assert!(!screen(&mut view).contains("connection refused"));
}
