//! Tests of reading and writing model files.

use std::path::Path;

use postroom_proto::v1;
use proptest::prelude::*;

use super::*;
use crate::error::Error;

fn read_here(text: &str) -> Result<v1::Model, Error> {
    read(text, Path::new("."), &|name| (name == "M365_SECRET").then(|| "from env".into()))
}

/// The whole error as it is shown.
fn refused(text: &str) -> String {
    read_here(text).expect_err("should be refused").render()
}

const FULL: &str = r#"
system: {language: en, priority: 3}
instances:
  - {name: core1, pool: default, allocation: strict}
incomingServers:
  - name: Office 365 (service)
    address: https://login.microsoftonline.com/contoso.example
    authentication: oauth-service
    clientId: 11111111-2222-3333-4444-555555555555
    secret: {env: M365_SECRET}
    protocol: imap
    imap: {host: outlook.office365.com, port: 993, security: tls}
    scope: https://outlook.office365.com/.default
    caFile: /etc/postroom/ca.pem
    proxy: http://proxy.example:3128
outgoingServers:
  - {name: Office 365, enabled: false, server: contoso.example, authentication: oauth-service, user: 3f2504e0-4f89-11d3-9a0c-0305e82c3301, registration: Office 365 (service), transport: graph}
  - {name: Relay, server: "smtp.example:25", authentication: password, user: robot, password: {env: M365_SECRET}}
  - {name: Own, authentication: oauth-service, clientId: x, secret: {clear: true}}
queues:
  - name: Billing
    instance: core1
    language: no
    priority: 10
    maxMessageBytes: 1048576
    start: {since: 2026-01-31}
    afterIntake: move:Processed mail
    backlogGuard: 250
    addresses:
      - {email: billing@contoso.example, priority: 5, language: fi, sender: true, server: Office 365 (service), folder: INBOX}
      - email: other@contoso.example
        account: robot@contoso.example
        password: {value: 'p: #"'}
        server: Office 365 (service)
  - {name: Sales, instance: core1, start: all, afterIntake: leave, backlogGuard: off}
"#;

#[test]
fn every_key_arrives() {
    let model = read_here(FULL).unwrap();
    let server = &model.incoming_servers[0];
    assert_eq!(server.authentication(), v1::Authentication::OauthService);
    assert_eq!(server.secret.as_ref().unwrap().value, "from env");
    assert_eq!((server.imap_host.as_str(), server.imap_port), ("outlook.office365.com", 993));
    assert_eq!(server.ca_file, "/etc/postroom/ca.pem");
    assert_eq!(server.proxy, "http://proxy.example:3128");
    assert_eq!(model.system.as_ref().map(|it| (it.language.as_str(), it.priority)), Some(("en", 3)));
    let [shared, relay, own] = model.outgoing_servers.as_slice() else { panic!("{model:?}") };
    assert_eq!((shared.enabled, shared.registration.as_str()), (Some(false), "Office 365 (service)"));
    assert_eq!(shared.transport(), v1::Transport::Graph);
    assert_eq!((relay.enabled, relay.authentication()), (None, v1::OutgoingAuthentication::Password));
    assert_eq!(relay.password.as_ref().unwrap().value, "from env");
    let cleared = own.secret.as_ref().unwrap();
    assert_eq!((cleared.clear, cleared.value.as_str()), (true, ""));
    let queue = &model.queues[0];
    // The Norway problem: `no` is a language here, not a truth.
    assert_eq!(queue.language, "no");
    let start = queue.start.unwrap();
    assert_eq!((start.policy(), start.since_time.unwrap().seconds), (v1::StartPolicy::Since, 1_769_817_600));
    let after = queue.after_intake.as_ref().unwrap();
    assert_eq!((after.policy(), after.folder.as_str()), (v1::AfterIntakePolicy::Move, "Processed mail"));
    assert!(queue.addresses[0].sender && queue.addresses[0].password.is_none());
    assert_eq!(queue.addresses[1].password.as_ref().unwrap().value, "p: #\"");
    let guards = model.queues.iter().map(|queue| queue.backlog_guard.map(|it| (it.message_count, it.off)));
    assert_eq!(guards.collect::<Vec<_>>(), [Some((250, false)), Some((0, true))]);
    assert_eq!(model.queues[1].start.unwrap().policy(), v1::StartPolicy::All);
}

#[test]
fn an_export_reads_well_and_means_the_same_but_for_secrets() {
    let mut model = read_here(FULL).unwrap();
    let text = write(&model).unwrap();
    assert!(!text.contains("secret:") && !text.contains("from env") && !text.contains("password:"), "{text}");
    insta::assert_snapshot!(text);
    forget_secrets(&mut model);
    assert_eq!(read_here(&text).unwrap(), model);
}

#[test]
fn an_empty_model_survives() {
    let text = write(&v1::Model::default()).unwrap();
    assert_eq!(read_here(&text).unwrap(), v1::Model::default(), "{text:?}");
}

#[test]
fn a_file_that_names_nothing_is_refused() {
    for text in ["", "# nothing\n", "{}"] {
        let shown = refused(text);
        assert!(shown.contains("names nothing") && shown.contains("`queues: []`"), "{text:?}: {shown}");
    }
}

#[test]
fn a_large_model_is_read() {
    let mut text = "queues:\n  - name: Q\n    instance: core1\n    addresses:\n".to_owned();
    for number in 0..40_000 {
        text.push_str(&format!("      - {{email: mailbox-{number}@contoso.example, priority: 1, server: S}}\n"));
    }
    assert_eq!(read_here(&text).unwrap().queues[0].addresses.len(), 40_000);
}

#[test]
fn aliases_do_not_make_much_of_little() {
    let mut text = "instances: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("k{level}: &a{level} [{inner}]\n"));
    }
    refused(&text);
}

#[test]
fn a_wrong_shape_names_its_place() {
    insta::assert_snapshot!(refused("instances:\n  - name: core1\n    colour: red\n"));
    insta::assert_snapshot!(refused(
        "queues:\n  - {name: a, instance: b}\n  - name: c\n    instance: d\n    priority: high\n"
    ));
    insta::assert_snapshot!(refused("queues:\n  - {name: a, instance: b, addresses: [{email: x@y.example}]}\n"));
    insta::assert_snapshot!(refused("instances:\n  - {name: a}\ninstances: []\n"));
    insta::assert_snapshot!(refused("instances: [\n"));
    insta::assert_snapshot!(refused(
        "queues: [{name: a, instance: b, addresses: [{email: c, server: d, sender: 2}]}]\n"
    ));
    insta::assert_snapshot!(refused("queues:\n  - {name: a, instance: b, start: {until: 2026-01-01}}\n"));
    insta::assert_snapshot!(refused("queues:\n  - {name: a, instance: b, backlogGuard: -1}\n"));
}

#[test]
fn all_faults_are_told_at_once() {
    insta::assert_snapshot!(refused(
        r"
system: {language: en, priority: 0}
outgoingServers:
  - {name: o, authentication: oauth, transport: pigeon, secret: {env: NOT_SET}}
instances:
  - {name: core1, allocation: fair}
incomingServers:
  - {name: a, authentication: oauth, protocol: pop3, secret: {env: NOT_SET}, imap: {port: 0}}
  - {name: b, authentication: password, secret: {file: no/such/file}}
queues:
  - name: q
    instance: core1
    priority: 0
    start: since
    afterIntake: move
    addresses:
      - {email: x@y.example, server: a, password: {env: A, value: b}}
      - {email: x@y.example, server: a, password: {}}
  - {name: r, instance: core1, start: {since: 2026-01-31T08:00}, afterIntake: burn}
"
    ));
}

#[test]
fn a_secret_is_never_quoted() {
    for secret in [
        "planted",
        "'planted'",
        "[planted]",
        "{planted}",
        "{planted: x}",
        "{value: [planted]}",
        "{value: planted, env: X}",
        "!planted x",
        "{value: !!int planted}",
        "{value: 'planted}",
        "*planted",
        "{value: {planted: planted}}",
    ] {
        let text = format!("incomingServers:\n  - {{name: a, authentication: password, secret: {secret}}}\n");
        let shown = refused(&text);
        assert!(!shown.contains("planted"), "{secret}: {shown}");
        let text = format!("incomingServers:\n  - name: a\n    authentication: password\n    secret: {secret}\n");
        let shown = refused(&text);
        assert!(!shown.contains("planted"), "{secret}: {shown}");
    }
    for number in ["4711", "4711.5", "-4711", "99999999999999999999999999994711"] {
        let text = format!("incomingServers:\n  - {{name: a, authentication: password, secret: {number}}}\n");
        assert!(!refused(&text).contains("4711"), "{number}");
    }
}

#[test]
fn a_secret_comes_from_a_file_beside_the_model_without_its_line_break() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), " s3cret\r\n").unwrap();
    let path = dir.path().join("model.yaml");
    std::fs::write(&path, "incomingServers: [{name: a, authentication: password, secret: {file: secret}}]").unwrap();
    let model = read_file(&path, &|_| None).unwrap();
    assert_eq!(model.incoming_servers[0].secret.as_ref().unwrap().value, " s3cret");
}

#[test]
fn a_time_to_keep_messages_is_read_and_written_as_people_do() {
    let of = |after: &str| {
        let text = format!("queues: [{{name: q, instance: i, afterIntake: {after:?}}}]\n");
        let model = read_here(&text).unwrap();
        let after = model.queues[0].after_intake.clone().unwrap();
        assert_eq!(after.policy(), v1::AfterIntakePolicy::Delete);
        (after.keep.map(|keep| keep.seconds), after_intake(&after).unwrap())
    };
    assert_eq!(of("delete"), (None, "delete".into()));
    assert_eq!(of("delete:30d"), (Some(2_592_000), "delete:30d".into()));
    assert_eq!(of("delete: 1h30m"), (Some(5400), "delete:90m".into()));
    for wrong in ["delete:", "delete:soon", "delete:-1d", "delete:30"] {
        let said = refused(&format!("queues: [{{name: q, instance: i, afterIntake: {wrong:?}}}]\n"));
        assert!(said.contains("queues[0].afterIntake") && said.contains("delete:30d"), "{said}");
    }
}

const HOSTILE: [&str; 24] = [
    "Münster / \"Büro\" #1 🙂",
    "yes",
    "no",
    "null",
    "~",
    "1e3",
    "0x1F",
    "007",
    "2026-01-31",
    ".inf",
    "- a: b",
    "a: b",
    "# none",
    "\"quoted\"",
    "'quoted'",
    "\"",
    " leading and trailing ",
    "*alias &anchor !tag",
    "{a: b}",
    "%YAML 1.2",
    "---",
    "back\\slash\\n",
    "<<",
    "line\nbreak\ttab\u{85}\u{2028}\u{7f}\u{feff}",
];

#[test]
fn hostile_names_survive() {
    let instances = HOSTILE.map(|name| v1::Instance { name: name.into(), pool: name.into(), ..Default::default() });
    let queues = HOSTILE.map(|name| v1::Queue {
        name: name.into(),
        instance: name.into(),
        after_intake: Some(v1::AfterIntake {
            policy: v1::AfterIntakePolicy::Move.into(),
            folder: "A/B: c".into(),
            keep: None,
        }),
        addresses: vec![v1::Address { email: name.into(), server: name.into(), ..Default::default() }],
        ..Default::default()
    });
    let model = v1::Model { instances: instances.into(), queues: queues.into(), ..Default::default() };
    let text = write(&model).unwrap();
    assert_eq!(read_here(&text).unwrap(), model, "{text}");
}

fn forget_secrets(model: &mut v1::Model) {
    model.incoming_servers.iter_mut().for_each(|server| server.secret = None);
    model.outgoing_servers.iter_mut().for_each(|server| (server.secret, server.password) = (None, None));
    model.queues.iter_mut().flat_map(|queue| &mut queue.addresses).for_each(|address| address.password = None);
}

/// Any text, with more than its share of what YAML makes something of.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,20}",
        "[-:#'\"{}\\[\\],&*!|>%@` \\n\\\\0-9eE.]{0,12}",
        prop::sample::select(HOSTILE.to_vec()).prop_map(Into::into)
    ]
}

prop_compose! {
    fn address()(email in text(), priority in 0u32..3, language in text(), account in text(), sender: bool, server in text(), folder in text()) -> v1::Address {
        v1::Address { email, priority, language, account, sender, server, folder, ..Default::default() }
    }
}

prop_compose! {
    fn queue()(name in text(), instance in text(), priority: u32, max_message_bytes: u64, policy in 0..4i32,
               since in prop::option::of(0i64..253_402_300_799_000_000), addresses in prop::collection::vec(address(), 0..3),
               guard in prop::option::of((any::<u32>(), any::<bool>()))) -> v1::Queue {
        let backlog_guard = guard.map(|(count, off)| v1::BacklogGuard { message_count: if off { 0 } else { count }, off });
        let start = match since {
            Some(micros) => Some(v1::Start {
                policy: v1::StartPolicy::Since.into(),
                since_time: Some(postroom_proto::convert::to_timestamp(micros)),
            }),
            None => (policy > 0).then_some(v1::Start { policy, since_time: None }),
        };
        v1::Queue { name, instance, priority, max_message_bytes, start, backlog_guard, addresses, ..Default::default() }
    }
}

prop_compose! {
    fn server()(name in text(), address in text(), authentication in 1..4i32, client_id in text(), imap_host in text(), imap_port in 0u32..70_000,
                imap_security in 0..2i32, (scope, secret_expires) in (text(), text()), ca_file in text(), proxy in text()) -> v1::IncomingServer {
        v1::IncomingServer { name, address, authentication, client_id, imap_host, imap_port, imap_security, scope, ca_file, proxy, secret_expires, ..Default::default() }
    }
}

prop_compose! {
    fn outgoing()(name in text(), server in text(), user in text(), client_id in text(), registration in text(), enabled: Option<bool>,
                  authentication in 1..5i32, transport in 0..3i32,
                  (smtp_host, smtp_port, smtp_security) in (text(), 0u32..70_000, 0..4i32), graph_host in text(), scope in text(),
                  (ca_file, proxy, sent_copy, sent_folder) in (text(), text(), 0..3i32, text())) -> v1::OutgoingServer {
        v1::OutgoingServer { name, server, user, client_id, registration, enabled, authentication, transport, smtp_host, smtp_port, smtp_security,
            graph_host, scope, ca_file, proxy, sent_copy, sent_folder, ..Default::default() }
    }
}

proptest! {
    #[test]
    fn whatever_is_exported_can_be_applied(incoming_servers in prop::collection::vec(server(), 0..3), queues in prop::collection::vec(queue(), 0..3),
                                            outgoing_servers in prop::collection::vec(outgoing(), 0..3), system in prop::option::of((text(), any::<u32>()))) {
        let system = system.map(|(language, priority)| v1::System { language, priority, revision: 0 });
        let model = v1::Model { system, incoming_servers, outgoing_servers, queues, ..Default::default() };
        let exported = write(&model).unwrap();
        match read_here(&exported) {
            Ok(read) => prop_assert_eq!(read, model, "{}", exported),
            Err(error) => prop_assert!(false, "{}\n{}", error.render(), exported),
        }
    }

    #[test]
    fn whatever_the_file_the_reading_ends(text in text()) {
        let _ = read_here(&text);
    }
}
