//! Whatever is asked for: nothing panics, and what is exported can be applied.

use proptest::prelude::*;

use super::*;
use crate::definition::model::Model;

prop_compose! {
    fn any_secret()(value in prop::option::of(prop_oneof![Just(String::new()), any::<String>()])) -> Option<v1::SecretInput> {
        value.map(|value| v1::SecretInput { value })
    }
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just("core1".into()), Just("users".into()), Just(NAME.to_owned()), any::<String>()]
}

prop_compose! {
    fn any_address()(
        email in prop_oneof![any_text(), "[a-z]{1,3}@b\\.example"], priority: u32, language in any_text(),
        account in any_text(), password in any_secret(), sender: bool, server in any_text(), folder in any_text(),
        mailbox in any_text(),
    ) -> v1::Address {
        v1::Address { email, priority, language, account, password, password_set: sender, sender, server, folder, mailbox }
    }
}

prop_compose! {
    fn any_server()(
        (uid, name, address) in (any_text(), any_text(), prop_oneof![any_text(), "https://[a-z.:/]{0,20}"]),
        authentication in -1..6i32, client_id in any_text(), secret in any_secret(), imap_host in any_text(),
        imap_port: u32, imap_security in -1..4i32, scope in any_text(), ca_file in any_text(), revision: u64,
    ) -> v1::IncomingServer {
        v1::IncomingServer {
            uid, name, address, authentication, client_id, secret, secret_set: false, imap_host, imap_port,
            imap_security, scope, ca_file, revision, proxy: String::new(),
        }
    }
}

prop_compose! {
    fn any_queue()(
        (uid, name, instance, language) in (any_text(), any_text(), any_text(), any_text()),
        priority: u32, max_message_bytes: u64, revision: u64,
        start in prop::option::of((-1..7i32, prop::option::of((any::<i64>(), any::<i32>())))),
        after in prop::option::of((-1..7i32, any_text())),
        addresses in prop::collection::vec(any_address(), 0..5),
    ) -> v1::Queue {
        let time = |(seconds, nanos)| prost_types::Timestamp { seconds, nanos };
        let start = start.map(|(policy, since)| v1::Start { policy, since_time: since.map(time) });
        let after_intake = after.map(|(policy, folder)| v1::AfterIntake { policy, folder });
        v1::Queue { uid, name, instance, language, priority, max_message_bytes, start, after_intake, addresses, revision }
    }
}

prop_compose! {
    fn any_model()(
        names in prop::collection::vec((any_text(), any_text(), -1..4i32), 0..4),
        incoming_servers in prop::collection::vec(any_server(), 0..4),
        queues in prop::collection::vec(any_queue(), 0..4),
    ) -> v1::Model {
        let instance = |(name, pool, allocation)| v1::Instance { name, pool, allocation, ..Default::default() };
        v1::Model { instances: names.into_iter().map(instance).collect(), incoming_servers, queues }
    }
}

fn pure(stored: &Model, request: v1::Model) -> Result<plan::Plan, Vec<FieldFault>> {
    let mut number = 0;
    let mut mint = || {
        number += 1;
        format!("uid-{number}")
    };
    let draft = merge::merge(stored, wire::read(request), &vault(1), &mut mint).unwrap();
    let faults = validate::validate(&draft);
    if faults.is_empty() { Ok(plan::plan(stored, draft)) } else { Err(faults) }
}

prop_compose! {
    /// A model without faults, however oddly it is written.
    fn valid_model()(
        instances in prop::collection::btree_set("[a-z][a-z0-9-]{0,9}", 1..4),
        servers in prop::collection::btree_map("\\PC{1,12}", (0..3i32, "( |)[A-Za-z0-9-]{1,9}", 0..3u32), 1..4),
        queues in prop::collection::btree_map("\\PC{1,12}", (0..=1000u32, 0..5i32, -9_000_000_000i64..9_000_000_000, 0..4i32, prop::collection::vec((any::<prop::sample::Index>(), 0..=1000u32, any::<bool>()), 0..5)), 0..6),
        index: prop::sample::Index,
    ) -> v1::Model {
        let names: Vec<String> = instances.into_iter().collect();
        let mut seen = std::collections::HashSet::new();
        let mut unique = |name: &str| !name.trim().is_empty() && seen.insert(name.trim().to_owned());
        let servers: Vec<v1::IncomingServer> = servers.into_iter().filter(|(name, _)| unique(name)).map(|(name, (way, id, port))| v1::IncomingServer {
            name,
            address: "https://127.0.0.1:1/t/oauth2/v2.0/token".into(),
            authentication: way + 1,
            client_id: id.clone(),
            secret: if way == 1 { secret(&id) } else { None },
            imap_host: "Mail.example".into(),
            imap_port: port * 500,
            ..Default::default()
        }).collect();
        let mut seen = std::collections::HashSet::new();
        let mut number = 0;
        let queues = queues.into_iter().filter(|(name, _)| !servers.is_empty() && !name.trim().is_empty() && seen.insert(name.trim().to_owned()));
        let queues = queues.map(|(name, (priority, policy, seconds, after, addresses))| {
            let addresses = addresses.into_iter().map(|(pick, priority, sender)| {
                number += 1;
                let server = pick.get(&servers);
                let password = if server.authentication == 2 { None } else { secret("p") };
                v1::Address { priority, sender, password, ..address(&format!("A{number}@b.example "), &server.name) }
            }).collect();
            let since_time = (policy == 4).then_some(prost_types::Timestamp { seconds, nanos: 5_000 });
            v1::Queue {
                priority,
                instance: index.get(&names).clone(),
                start: Some(v1::Start { policy, since_time }),
                after_intake: Some(v1::AfterIntake { policy: after, folder: if after == 2 { " Done".into() } else { String::new() } }),
                ..queue(&name, addresses)
            }
        }).collect();
        let instances = names.into_iter().map(|name| v1::Instance { name, ..Default::default() }).collect();
        v1::Model { instances, incoming_servers: servers, queues }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_request_makes_it_panic(stored in valid_model(), request in any_model()) {
        let stored = pure(&Model::default(), stored).unwrap().model;
        let _ = pure(&stored, request);
    }

    #[test]
    fn an_export_applied_changes_nothing(request in valid_model()) {
        let first = pure(&Model::default(), request.clone());
        prop_assert!(first.is_ok(), "{:?}", first.unwrap_err());
        let stored = first.unwrap().model;
        prop_assert_eq!(stored.revision(), 1);
        let exported = wire::model(&stored);
        for repeated in [exported.clone(), request] {
            let again = pure(&stored, repeated).unwrap();
            prop_assert_eq!(again.changes, vec![]);
            prop_assert_eq!(again.model.revision(), 1);
            prop_assert_eq!(wire::model(&again.model), exported.clone());
        }
    }
}
