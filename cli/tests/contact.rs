//! `contact` commands against a control plane that answers what the test tells it to.

#![allow(clippy::unwrap_used, reason = "a test panics where its setup fails")]

use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;
use postroom_proto::v1::watch_contacts_response::Event;
use tonic::Status;

mod support;

use support::{ControlPlane, State};

fn contact(id: &str) -> v1::Contact {
    v1::Contact { id: id.into(), ..Default::default() }
}

#[tokio::test]
async fn what_became_of_each_contact_is_shown() {
    let plane = ControlPlane::start(State::default()).await;
    let outcome = plane.run(&["contact", "extend", "--instance", "core1", "--accept-within", "5m", "c1"]).await;
    insta::assert_snapshot!(outcome.out(), @r"
    ID  STATE      DEADLINE              REASON  MESSAGE
    c1  allocated  1970-01-01T00:05:00Z  -       -
    ");
    let outcome = plane.run(&["contact", "end", "--instance", "core1", "--outcome", "answered", "c1"]).await;
    assert!(outcome.code == 0 && outcome.out().contains("ended"), "{outcome:?}");
    let outcome = plane.run(&["contact", "requeue", "--instance", "core1", "c1", "lost"]).await;
    assert!(outcome.code == 6 && outcome.err.contains("1 of 2 contacts could not be requeued"), "{outcome:?}");
}

#[tokio::test]
async fn a_transfer_names_queue_and_priority_and_has_an_id_of_its_own() {
    let plane = ControlPlane::start(State::default()).await;
    let args = ["contact", "transfer", "--instance", "core1", "--queue", "Büro", "--priority", "3", "c1", "c2"];
    for _ in 0..2 {
        assert_eq!(plane.run(&args).await.code, 0);
    }
    let transfers = plane.state().transfers.clone();
    assert_eq!((transfers[0].queue.as_str(), transfers[0].priority, transfers[0].contacts.len()), ("Büro", 3, 2));
    assert_ne!(transfers[0].request_id, transfers[1].request_id);
}

#[tokio::test]
async fn a_list_is_narrowed_by_what_was_typed() {
    let plane = ControlPlane::start(State::default()).await;
    let mut args = vec!["contact", "list", "--state", "dead", "--queue", "q", "--address", "a@x.example"];
    args.extend(["--kind", "auto-reply", "--thread", "t", "--since", "2026-03-01", "--until", "2026-03-01T12:00:00Z"]);
    args.extend(["--from", "Zoë", "--priority", "2"]);
    assert_eq!(plane.run(&args).await.code, 0);
    let list = plane.state().lists.remove(0);
    assert_eq!((list.state(), list.kind()), (v1::ContactState::Dead, v1::ContactKind::AutoReply));
    assert_eq!([list.queue, list.address, list.thread, list.sender], ["q", "a@x.example", "t", "Zoë"]);
    assert_eq!(list.priority, 2);
    assert_eq!(list.received_since_time.unwrap().seconds, 1_772_323_200);
    assert_eq!(list.received_until_time.unwrap().seconds, 1_772_366_400);
    let outcome = plane.run(&["contact", "list", "--since", "yesterday"]).await;
    assert!(outcome.code == 2 && outcome.err.contains("2026-01-31"), "{outcome:?}");
}

#[tokio::test]
async fn a_watch_is_a_line_an_event_and_says_how_to_go_on() {
    let event = |revision, event| Ok(v1::WatchContactsResponse { revision, snapshot: false, event: Some(event) });
    let events = vec![
        event(7, Event::Contact(contact("c1"))),
        event(8, Event::Bookmark(v1::Bookmark {})),
        Err(Status::from(Failure::new(Reason::ShuttingDown, "the control plane is stopping; watch again"))),
    ];
    let plane = ControlPlane::start(State { events, ..State::default() }).await;
    let outcome = plane.run(&["contact", "watch", "--instance", "core1", "-o", "json"]).await;
    let lines: Vec<serde_json::Value> = outcome.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["contact"]["id"], &lines[1]["revision"]), (2, &"c1".into(), &"8".into()));
    assert_eq!(outcome.code, 7);
    assert!(outcome.err.contains("contact watch --from 8 --instance core1"), "{}", outcome.err);

    let gone = Status::from(Failure::new(Reason::RevisionCompacted, "it is not kept"));
    let plane = ControlPlane::start(State { failures: [gone].into(), ..State::default() }).await;
    let outcome = plane.run(&["contact", "watch", "--from", "3"]).await;
    assert!(outcome.code == 6 && !outcome.err.contains("--from"), "{outcome:?}");
}

#[tokio::test]
async fn an_attachment_is_saved_under_its_safe_name_and_overwrites_nothing() {
    let attachment = |index, file_name: &str| v1::Attachment {
        index,
        name: "../../evil".into(),
        file_name: file_name.into(),
        media_type: "text/plain".into(),
        size_bytes: 3,
        ..Default::default()
    };
    let attachments = vec![attachment(0, "evil"), attachment(1, "../evil"), attachment(2, "")];
    let content = Some(v1::ContactContent { attachments, ..Default::default() });
    let contacts = vec![v1::Contact { content, ..contact("c1") }];
    let plane = ControlPlane::start(State { contacts, raw: vec![b"a\x00", b"\xff"], ..State::default() }).await;
    let outcome = plane.run(&["contact", "attachment", "c1"]).await;
    assert!(outcome.code == 0 && outcome.out().contains("evil") && outcome.out().contains("text/plain"), "{outcome:?}");

    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().to_str().unwrap();
    let outcome = plane.run(&["contact", "attachment", "c1", "0", "--output-dir", to]).await;
    assert_eq!((outcome.code, outcome.out().trim_end()), (0, folder.path().join("evil").to_str().unwrap()));
    assert_eq!(std::fs::read(folder.path().join("evil")).unwrap(), b"a\x00\xff");
    let outcome = plane.run(&["contact", "attachment", "c1", "0", "--output-dir", to]).await;
    assert!(outcome.code == 6 && outcome.err.contains("is there already"), "{outcome:?}");
    // Whatever a control plane says, nothing is written beside the folder.
    assert_eq!(plane.run(&["contact", "attachment", "c1", "1", "--output-dir", to]).await.code, 0);
    assert_eq!(plane.run(&["contact", "attachment", "c1", "2", "--output-dir", to]).await.code, 0);
    let mut names: Vec<_> = std::fs::read_dir(to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["attachment-1", "attachment-2", "evil"]);

    let outcome = plane.run(&["contact", "attachment", "c1", "0", "--output-dir", "-"]).await;
    assert_eq!((outcome.code, outcome.out.as_slice()), (0, &b"a\x00\xff"[..]));
    assert_eq!(plane.run(&["contact", "attachment", "c1", "0", "--output-dir", "-", "-o", "json"]).await.code, 2);
    assert_eq!(plane.run(&["contact", "attachment", "c1", "7", "--output-dir", to]).await.code, 3);
}
