//! Whole commands against a control plane that answers what the test tells it to.

#![allow(clippy::unwrap_used, reason = "a test panics where its setup fails")]

use std::io;
use std::time::Duration;

use postroom_cli::client::{Client, Error};
use postroom_cli::context::Context;
use postroom_cli::streams::Streams;
use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;
use tonic::Status;

mod support;

use support::{ControlPlane, State, TOKEN};

fn failing(reasons: &[Reason]) -> State {
    let failures = reasons.iter().map(|reason| {
        let mut failure = Failure::new(*reason, "what happened");
        failure.retry_after = failure.retry_after.map(|_| Duration::from_millis(1));
        Status::from(failure)
    });
    State { failures: failures.collect(), ..State::default() }
}

fn contacts(count: usize) -> Vec<v1::Contact> {
    let contact =
        |n| v1::Contact { id: format!("contact-{n}"), priority: 1, queue: "Billing".into(), ..Default::default() };
    (0..count).map(contact).collect()
}

#[tokio::test]
async fn every_call_carries_the_token() {
    let clean = v1::ReconcileSummary { clean: true, ..Default::default() };
    let reconciliation = vec![v1::reconcile_mailbox_response::Told::Summary(clean)];
    let plane = ControlPlane::start(State { raw: vec![b""], reconciliation, ..State::default() }).await;
    let calls: [&[&str]; 28] = [
        &["export"],
        &["instance", "list"],
        &["instance", "show", "x"],
        &["incoming-server", "list"],
        &["incoming-server", "show", "x"],
        &["queue", "list"],
        &["queue", "show", "x"],
        &["mailbox", "list"],
        &["mailbox", "show", "x"],
        &["status"],
        &["version"],
        &["contact", "list"],
        &["contact", "show", "x"],
        &["contact", "take", "--instance", "core1", "--max", "1"],
        &["contact", "accept", "--instance", "core1", "x"],
        &["contact", "reject", "--instance", "core1", "x"],
        &["contact", "raw", "x"],
        &["contact", "extend", "--instance", "core1", "x"],
        &["contact", "end", "--instance", "core1", "x"],
        &["contact", "requeue", "--instance", "core1", "x"],
        &["contact", "transfer", "--instance", "core1", "--queue", "q", "x"],
        &["contact", "attachment", "x", "0", "--output-dir", "-"],
        &["mailbox", "reconcile", "x"],
        &["message", "list"],
        &["message", "show", "x"],
        &["message", "raw", "x"],
        &["message", "replay", "x"],
        &["message", "discard", "x"],
    ];
    for args in calls {
        let outcome = plane.run(args).await;
        assert!(matches!(outcome.code, 0 | 3), "{args:?}: {outcome:?}");
    }
    let state = plane.state();
    assert_eq!(state.authorizations, vec![format!("Bearer {TOKEN}"); calls.len()]);
}

#[tokio::test]
async fn a_lost_answer_takes_nothing_twice() {
    let plane =
        ControlPlane::start(State { contacts: contacts(3), ..failing(&[Reason::OutcomeUnknown, Reason::NoLeader]) })
            .await;
    let args = ["contact", "take", "--instance", "core1", "--max", "2", "--wait", "1s", "--accept-within", "5m"];
    let outcome = plane.run(&args).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.out().contains("contact-1") && !outcome.out().contains("contact-2"), "{outcome:?}");
    let state = plane.state();
    let [first, second, third] = state.allocations.as_slice() else { panic!("{:?}", state.allocations) };
    assert!(first == second && second == third);
    assert_eq!(first.wait.unwrap().seconds, 1);
    assert_eq!(first.accept_within.unwrap().seconds, 300);
    assert!(!first.request_id.is_empty() && outcome.err.contains(&first.request_id));
}

#[tokio::test]
async fn each_taking_has_a_request_id_of_its_own() {
    let plane = ControlPlane::start(State::default()).await;
    for _ in 0..2 {
        let outcome = plane.run(&["contact", "take", "--instance", "core1", "--max", "1"]).await;
        assert_eq!((outcome.code, outcome.err.as_str()), (0, "no contact is waiting\n"));
    }
    let state = plane.state();
    assert_ne!(state.allocations[0].request_id, state.allocations[1].request_id);
}

#[tokio::test]
async fn failures_have_their_exit_code_message_and_remedy() {
    for (reason, code) in [
        (Reason::NotFound, 3),
        (Reason::InvalidField, 4),
        (Reason::Unauthenticated, 5),
        (Reason::PermissionDenied, 5),
        (Reason::AllocationLost, 6),
        (Reason::Internal, 8),
    ] {
        let plane = ControlPlane::start(failing(&[reason])).await;
        let outcome = plane.run(&["mailbox", "list"]).await;
        assert_eq!(outcome.code, code, "{reason:?}");
        assert!(outcome.out.is_empty());
        assert!(outcome.err.starts_with("error: what happened\nhelp: "), "{}", outcome.err);
        assert_eq!(plane.state().calls.len(), 1, "{reason:?} must not be tried again");
    }
    let plane =
        ControlPlane::start(State { failures: [Status::permission_denied("blocked")].into(), ..State::default() })
            .await;
    let outcome = plane.run(&["mailbox", "list"]).await;
    assert_eq!(outcome.code, 5);
    assert!(outcome.err.contains("answered PermissionDenied: blocked"), "{}", outcome.err);
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let plane = ControlPlane::start(State::default()).await;
    let outcome = plane.run(&["queue", "show", "Büro\u{1b}[2J"]).await;
    assert_eq!(outcome.code, 3);
    insta::assert_snapshot!(outcome.err, @r#"
    error: there is no queue "Büro\u{1b}[2J"
    help: see the `list` command of the noun for what exists
    "#);
}

#[tokio::test]
async fn nobody_there_is_told_with_the_address() {
    let plane = ControlPlane::start(State::default()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let token = plane.data.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let outcome =
        support::run(&["--endpoint", &endpoint, "--token-file", token.to_str().unwrap(), "mailbox", "list"]).await;
    assert_eq!(outcome.code, 7);
    let message = outcome.err.replace(&endpoint, "ENDPOINT");
    insta::assert_snapshot!(message, @r"
    error: cannot reach the control plane at ENDPOINT: Connection refused (os error 111)
    help: see whether it runs and whether the address is right; `postroom up` starts one here
    ");
}

#[tokio::test]
async fn a_broken_connection_is_tried_again_and_told() {
    use tokio::io::AsyncReadExt as _;
    let plane = ControlPlane::start(State::default()).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let context = Context { endpoint: format!("http://{}", listener.local_addr().unwrap()), ..plane.context.clone() };
    let client = Client::new(&context, false).unwrap();
    let call = client.list_mailboxes();
    tokio::pin!(call);
    let mut connections = 0;
    let error = loop {
        tokio::select! {
            answer = &mut call => break answer.unwrap_err(),
            accepted = listener.accept() => {
                let (mut socket, _) = accepted.unwrap();
                connections += 1;
                // Closed in the middle of the call: after its first bytes have come.
                let mut bytes = [0; 64];
                tokio::select! {
                    answer = &mut call => break answer.unwrap_err(),
                    read = socket.read(&mut bytes) => assert!(read.unwrap() > 0),
                }
            }
        }
    };
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(connections, 3);
}

#[tokio::test]
async fn a_call_has_a_deadline() {
    let plane = ControlPlane::start(State { silent: true, ..State::default() }).await;
    let client = Client::new(&plane.context, false).unwrap().with_deadline(Duration::from_millis(50));
    assert!(matches!(client.list_mailboxes().await, Err(Error::Deadline { .. })));
    assert_eq!(postroom_cli::error::Error::from(client.get_status().await.unwrap_err()).exit_code(), 10);
}

#[tokio::test]
async fn a_certificate_is_trusted_by_its_ca_only() {
    let (plane, ca_file) = ControlPlane::start_with_tls(State::default()).await;
    let outcome = plane.run(&["--ca-file", ca_file.to_str().unwrap(), "mailbox", "list"]).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let outcome = plane.run(&["mailbox", "list"]).await;
    assert_eq!(outcome.code, 7);
    assert!(outcome.err.contains("is not trusted") && outcome.err.contains("--ca-file"), "{}", outcome.err);
}

#[tokio::test]
async fn a_usage_error_is_2_and_help_is_data() {
    for args in [&[][..], &["mailbox"], &["mailbox", "lost"], &["contact", "take", "--instance", "a", "--max", "0"]] {
        let outcome = support::run(args).await;
        assert_eq!((outcome.code, outcome.out.len()), (2, 0), "{args:?}");
    }
    let outcome = support::run(&["--data", "a", "mailbox", "list", "--endpoint", "http://localhost:1"]).await;
    assert_eq!(outcome.code, 2);
    let outcome = support::run(&["mailbox", "--help"]).await;
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    let outcome = support::run(&["--data", "/nonexistent", "mailbox", "list"]).await;
    insta::assert_snapshot!(outcome.err, @r"
    error: there is no installation in /nonexistent (context.toml is missing)
    help: start one with `postroom up`, or say which control plane: --data DIR, or --endpoint URL --token-file FILE
    ");
    assert_eq!(outcome.code, 2);
}

#[tokio::test]
async fn a_model_goes_there_and_back() {
    let plane = ControlPlane::start(failing(&[Reason::StorageFailed])).await;
    let file = plane.data.path().join("model.yaml");
    let text = "instances:\n  - {name: core1}\nincomingServers:\n  - {name: 'a: \"b\"', authentication: password, secret: {value: s}}\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();

    let outcome = plane.run(&["apply", "-f", file]).await;
    assert_eq!((outcome.code, outcome.out()), (0, "create instance core1\nrevision 1\n"), "{outcome:?}");
    {
        let state = plane.state();
        let [.., plan, commit] = state.applies.as_slice() else { panic!("{:?}", state.applies) };
        assert!(
            plan.validate_only && plan.etag.is_empty() && !commit.validate_only,
            "{state:?}",
            state = state.applies
        );
        assert_eq!(commit.etag, "0", "what was planned, and nothing else");
        assert!(!commit.request_id.is_empty());
    }
    let mut applied = plane.state().model.clone();
    assert_eq!(applied.incoming_servers[0].secret.take().unwrap().value, "s");

    let exported = plane.run(&["export"]).await;
    std::fs::write(file, &exported.out).unwrap();
    assert_eq!(plane.run(&["apply", "-f", file]).await.code, 0);
    assert_eq!(plane.state().model, applied);

    let json: serde_json::Value = serde_json::from_slice(&plane.run(&["export", "-o", "json"]).await.out).unwrap();
    assert_eq!(json["incomingServers"][0]["name"], "a: \"b\"");
}

#[tokio::test]
async fn a_faulty_model_is_not_sent() {
    let plane = ControlPlane::start(State::default()).await;
    let file = plane.data.path().join("model.yaml");
    std::fs::write(&file, "queues: [{name: a, instance: b, start: never, afterIntake: burn}]").unwrap();
    let outcome = plane.run(&["apply", "-f", file.to_str().unwrap()]).await;
    assert_eq!(outcome.code, 4);
    let message = outcome.err.replace(file.to_str().unwrap(), "FILE");
    insta::assert_snapshot!(message, @r#"
    error: FILE: 2 fields are at fault
      line 1, queues[0].start: "never" is not known; write unseen or new or all or since
      line 1, queues[0].afterIntake: "burn" is not known; write seen or move or leave or delete
    help: correct the file; nothing was changed
    "#);
    assert!(plane.state().calls.is_empty());
}

#[tokio::test]
async fn all_pages_are_read_and_no_more_than_asked_for() {
    let mailbox = |n| v1::Mailbox { email: format!("m{n}@contoso.example"), ..Default::default() };
    let plane = ControlPlane::start(State {
        contacts: contacts(7),
        mailboxes: (0..5).map(mailbox).collect(),
        ..State::default()
    })
    .await;
    let json: serde_json::Value =
        serde_json::from_slice(&plane.run(&["mailbox", "list", "-o", "json"]).await.out).unwrap();
    let emails: Vec<_> = json["mailboxes"].as_array().unwrap().iter().map(|m| m["email"].clone()).collect();
    assert_eq!(emails, ["m0", "m1", "m2", "m3", "m4"].map(|m| format!("{m}@contoso.example")));

    let outcome = plane.run(&["contact", "list", "--limit", "3"]).await;
    assert_eq!(outcome.out().matches("contact-").count(), 3);
    assert!(outcome.err.contains("more than these 3"), "{}", outcome.err);
    let outcome = plane.run(&["contact", "list"]).await;
    assert_eq!((outcome.out().matches("contact-").count(), outcome.err.as_str()), (7, ""));
}

#[tokio::test]
async fn a_refused_contact_is_told_and_ends_with_6() {
    let plane = ControlPlane::start(State::default()).await;
    let outcome = plane.run(&["contact", "accept", "--instance", "core1", "c1", "lost1", "--request-id", "r1"]).await;
    assert_eq!(outcome.code, 6);
    insta::assert_snapshot!(outcome.out(), @r"
    ID     STATE     REASON           MESSAGE
    c1     accepted  -                -
    lost1  queued    ALLOCATION_LOST  its deadline passed
    ");
    insta::assert_snapshot!(outcome.err, @r"
    error: 1 of 2 contacts could not be accepted
    help: what went back to its queue can be taken again
    ");
    assert!(plane.state().settled.iter().all(|contact| contact.request_id == "r1"));
    let outcome = plane.run(&["contact", "reject", "--instance", "core1", "c1"]).await;
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
}

#[tokio::test]
async fn many_contacts_are_accepted_in_several_calls() {
    let plane = ControlPlane::start(State::default()).await;
    let ids: Vec<String> = (0..1001).map(|n| format!("c{n}")).collect();
    let args: Vec<&str> =
        ["contact", "accept", "--instance", "core1"].into_iter().chain(ids.iter().map(String::as_str)).collect();
    assert_eq!(plane.run(&args).await.code, 0);
    let state = plane.state();
    assert_eq!(state.calls, ["AcceptContacts"; 3]);
    assert!(state.settled.iter().map(|contact| &contact.contact).eq(&ids));
}

#[tokio::test]
async fn a_raw_message_comes_byte_for_byte() {
    let plane =
        ControlPlane::start(State { raw: vec![b"Subject: a\r\n", b"\r\n\xff\x00\x1b", b"end"], ..State::default() })
            .await;
    let outcome = plane.run(&["contact", "raw", "c1"]).await;
    assert_eq!((outcome.code, outcome.out.as_slice()), (0, &b"Subject: a\r\n\r\n\xff\x00\x1bend"[..]));
}

/// A reader that went away, as `head` does.
struct Closed;

impl io::Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_closed_pipe_is_no_error() {
    let plane = ControlPlane::start(State { contacts: contacts(1), ..State::default() }).await;
    let args = ["postroom", "--data", plane.data.path().to_str().unwrap(), "contact", "list"];
    let mut err = Vec::new();
    let code = postroom_cli::run(args.map(Into::into), &|_| None, Streams::plain(&mut Closed, &mut err)).await;
    assert_eq!((code, err), (0, Vec::new()));
}
