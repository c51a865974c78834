//! What is refused, and how it is told.

use super::*;

#[tokio::test]
async fn all_faults_are_told_at_once_in_the_words_of_the_model_file() {
    let store = store().await;
    let definitions = definitions(&store).await;
    let mut model = sample();
    model.instances.push(v1::Instance { name: "Core 2".into(), pool: "P".into(), allocation: 9, ..Default::default() });
    model.instances.push(v1::Instance { name: "core1".into(), ..Default::default() });
    model.incoming_servers.extend([
        v1::IncomingServer { client_id: String::new(), secret: None, name: "a".into(), ..service_server() },
        v1::IncomingServer { name: "b".into(), address: "http://x/y".into(), imap_port: 70_000, ..service_server() },
        v1::IncomingServer { name: "c".into(), authentication: 77, imap_security: 5, ..service_server() },
        v1::IncomingServer { name: "d".into(), address: "https://login.example/t".into(), ..service_server() },
        v1::IncomingServer { name: "e".into(), address: "https://127.0.0.1:8443/t".into(), ..service_server() },
        v1::IncomingServer { name: "f".into(), secret: secret("x"), ..user_server() },
        v1::IncomingServer {
            name: "g\u{7}".into(),
            authentication: v1::Authentication::Password.into(),
            imap_host: "imaps://mail.example:993".into(),
            secret: None,
            ..service_server()
        },
        v1::IncomingServer { name: "h".into(), secret: secret(""), ..service_server() },
    ]);
    model.queues[0].addresses.extend([
        address("billing@contoso.example", NAME),
        address("not an address", NAME),
        v1::Address {
            priority: 1001,
            language: "x y".into(),
            folder: "Mü\nll".into(),
            ..address("a@b.example", "nope")
        },
        address("u@b.example", "users"),
        v1::Address { password: secret("x"), ..address("s@b.example", NAME) },
        address("c@b.example", "c"),
        address("", ""),
    ]);
    model.queues.extend([
        v1::Queue {
            instance: "core9".into(),
            priority: 2000,
            language: "_".into(),
            start: Some(v1::Start { policy: v1::StartPolicy::Since.into(), since_time: None }),
            after_intake: Some(v1::AfterIntake {
                policy: v1::AfterIntakePolicy::Move.into(),
                folder: " ".into(),
                keep: None,
            }),
            ..queue("q", vec![address("Sales@Contoso.example", NAME)])
        },
        v1::Queue {
            start: Some(v1::Start { policy: 99, since_time: None }),
            after_intake: Some(v1::AfterIntake { policy: 99, ..Default::default() }),
            max_message_bytes: u64::MAX,
            ..queue(&"🙂".repeat(201), vec![])
        },
        v1::Queue {
            start: Some(v1::Start { policy: 2, since_time: Some(Default::default()) }),
            backlog_guard: Some(v1::BacklogGuard { message_count: 7, off: true }),
            after_intake: Some(v1::AfterIntake { policy: 1, folder: "Done".into(), keep: None }),
            ..queue(" ", vec![])
        },
    ]);
    let found = faults(&definitions, model).await;
    let paths: Vec<&str> = found.iter().map(|it| it.field.as_str()).collect();
    let expected = [
        "instances[1].allocation",
        "instances[1].name",
        "instances[1].pool",
        "instances[2].name",
        "incomingServers[2].clientId",
        "incomingServers[2].secret",
        "incomingServers[3].address",
        "incomingServers[3].imap.port",
        "incomingServers[4].authentication",
        "incomingServers[4].imap.security",
        "incomingServers[5].imap.host",
        "incomingServers[5].scope",
        "incomingServers[6].imap.host",
        "incomingServers[7].secret",
        "incomingServers[8].imap.host",
        "incomingServers[8].name",
        "incomingServers[9].secret",
        "queues[0].addresses[2].email",
        "queues[0].addresses[3].email",
        "queues[0].addresses[4].folder",
        "queues[0].addresses[4].language",
        "queues[0].addresses[4].priority",
        "queues[0].addresses[4].server",
        "queues[0].addresses[5].password",
        "queues[0].addresses[6].password",
        "queues[0].addresses[8].email",
        "queues[0].addresses[8].server",
        "queues[2].addresses[0].email",
        "queues[2].afterIntake",
        "queues[2].instance",
        "queues[2].language",
        "queues[2].priority",
        "queues[2].start",
        "queues[3].afterIntake",
        "queues[3].maxMessageBytes",
        "queues[3].name",
        "queues[3].start",
        "queues[4].afterIntake",
        "queues[4].backlogGuard",
        "queues[4].name",
        "queues[4].start",
    ];
    assert_eq!(paths, expected, "{found:#?}");
    assert_eq!(definitions.model().revision(), 0, "nothing was stored");
    assert!(!format!("{found:?}").contains("planted"));
}

#[tokio::test]
async fn a_time_to_keep_messages_goes_with_deletion_alone_and_has_bounds() {
    let store = store().await;
    let definitions = definitions(&store).await;
    let delete = v1::AfterIntakePolicy::Delete;
    let with = |policy: v1::AfterIntakePolicy, seconds, nanos, folder: &str| {
        let keep = Some(prost_types::Duration { seconds, nanos });
        let mut model = sample();
        model.queues[0].after_intake = Some(v1::AfterIntake { policy: policy.into(), keep, folder: folder.into() });
        model
    };
    let ten_years = 10 * 366 * 24 * 3600;
    for (model, said) in [
        (with(delete, 0, 0, ""), "from 1 s"),
        (with(delete, -1, 0, ""), "from 1 s"),
        (with(delete, 5, 1, ""), "whole number"),
        (with(delete, ten_years + 1, 0, ""), "10 years"),
        (with(v1::AfterIntakePolicy::Seen, 5, 0, ""), "only goes with delete"),
        (with(delete, 5, 0, "Done"), "only goes with move"),
    ] {
        let found = faults(&definitions, model).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].field == "queues[0].afterIntake" && found[0].description.contains(said), "{found:?}");
    }
    apply_model(&definitions, with(delete, ten_years, 0, "")).await.unwrap();
    let shown = wire::model(&definitions.model());
    assert_eq!(shown.queues[0].after_intake.as_ref().unwrap().keep.unwrap().seconds, ten_years);
    // Left out it has its default, which is shown to the reader alone.
    let mut model = sample();
    model.queues[0].after_intake = Some(v1::AfterIntake { policy: delete.into(), ..Default::default() });
    apply_model(&definitions, model).await.unwrap();
    let stored = definitions.model();
    assert_eq!(wire::model(&stored).queues[0].after_intake.as_ref().unwrap().keep, None);
    let (uid, _) = stored.mailboxes().find(|(_, found)| found.queue.name == sample().queues[0].name).unwrap();
    let read = resolve(&stored, &vault(1), uid).unwrap().after_intake.unwrap();
    assert_eq!((read.policy(), read.keep.unwrap().seconds), (delete, 7 * 24 * 3600));
}

#[tokio::test]
async fn a_mailbox_is_not_taken_from_a_stored_queue() {
    let store = store().await;
    let definitions = definitions(&store).await;
    apply_model(&definitions, sample()).await.unwrap();
    let model = v1::Model {
        queues: vec![queue("thief", vec![address("BILLING@contoso.example", NAME)])],
        ..Default::default()
    };
    let found = faults(&definitions, model).await;
    assert_eq!(found[0].field, "queues[0].addresses[0].email");
    assert!(found[0].description.contains(&format!("{NAME:?}")), "{found:?}");
}

#[tokio::test]
async fn a_local_tenant_needs_only_the_mail_server() {
    let store = store().await;
    let definitions = definitions(&store).await;
    let mut model = sample();
    model.incoming_servers[0].address = "https://127.0.0.1:8443/rehearsal".into();
    model.incoming_servers[0].imap_host = "localhost".into();
    model.incoming_servers[0].imap_port = 10_993;
    apply_model(&definitions, model).await.unwrap();
    let model = definitions.model();
    let server = model.server(NAME).unwrap();
    assert_eq!(server.scope(), "https://outlook.office365.com/.default");
    assert_eq!((server.imap_host(), server.imap_port(), server.realm()), ("localhost", 10_993, "rehearsal"));
}

#[tokio::test]
async fn a_queue_that_no_object_can_hold_is_refused() {
    let store = store().await;
    let definitions = definitions(&store).await;
    let mut model = sample();
    model.queues[0].addresses =
        (0..6000).map(|n| address(&format!("address-number-{n}@contoso.example"), NAME)).collect();
    let found = faults(&definitions, model).await;
    assert_eq!((found.len(), found[0].field.as_str()), (1, "queues[0].addresses"));
}
