//! Whatever is asked for: nothing panics, and what is exported can be applied.

use proptest::prelude::*;

use super::*;
use crate::definition::model::Model;

prop_compose! {
    fn any_secret()(value in prop::option::of(prop_oneof![Just(String::new()), any::<String>()])) -> Option<v1::SecretInput> {
        value.map(|value| v1::SecretInput { clear: value.len() == 1, value })
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
        imap_port: u32, imap_security in -1..4i32, (scope, ca_file) in (any_text(), any_text()), revision: u64, proxy in any_text(),
        secret_expires in prop_oneof![any_text(), "20[0-9]{2}-0[1-9]-1[0-9]"],
    ) -> v1::IncomingServer {
        v1::IncomingServer {
            uid, name, address, authentication, client_id, secret, secret_set: false, imap_host, imap_port,
            imap_security, scope, ca_file, revision, proxy, secret_expires,
        }
    }
}

prop_compose! {
    fn any_outgoing()(
        (name, server, user, client_id, registration) in (any_text(), any_text(), any_text(), any_text(), any_text()),
        enabled: Option<bool>, authentication in -1..7i32, transport in -1..5i32, password in any_secret(), secret in any_secret(),
        (smtp_host, smtp_port, smtp_security, graph_host) in (any_text(), any::<u32>(), -1..5i32, any_text()),
        (scope, ca_file, proxy, sent_copy, sent_folder) in (any_text(), any_text(), any_text(), -1..4i32, any_text()),
    ) -> v1::OutgoingServer {
        v1::OutgoingServer {
            name, server, user, client_id, registration, enabled, authentication, transport, password, secret, smtp_host, smtp_port,
            smtp_security, graph_host, scope, ca_file, proxy, sent_copy, sent_folder, ..Default::default()
        }
    }
}

prop_compose! {
    fn any_name()(noun in prop_oneof![Just("queue".to_owned()), Just("instance".into()), Just("incoming-server".into()), any_text()], name in any_text()) -> v1::DefinitionName {
        v1::DefinitionName { noun, name }
    }
}

prop_compose! {
    fn any_queue()(
        (uid, name, instance, language) in (any_text(), any_text(), any_text(), any_text()),
        priority: u32, max_message_bytes: u64, revision: u64,
        start in prop::option::of((-1..7i32, prop::option::of((any::<i64>(), any::<i32>())))),
        after in prop::option::of((-1..7i32, any_text(), prop::option::of((-2..9i64, 0..2i32)))),
        (addresses, guard) in (prop::collection::vec(any_address(), 0..5), prop::option::of((0..3u32, any::<bool>()))),
    ) -> v1::Queue {
        let time = |(seconds, nanos)| prost_types::Timestamp { seconds, nanos };
        let start = start.map(|(policy, since)| v1::Start { policy, since_time: since.map(time) });
        let length = |(seconds, nanos)| prost_types::Duration { seconds, nanos };
        let after_intake = after.map(|(policy, folder, keep)| v1::AfterIntake { policy, folder, keep: keep.map(length) });
        let backlog_guard = guard.map(|(message_count, off)| v1::BacklogGuard { message_count, off });
        v1::Queue {
            uid, name, instance, language, priority, max_message_bytes, start, after_intake, addresses, revision, backlog_guard,
        }
    }
}

prop_compose! {
    fn any_model()(
        names in prop::collection::vec((any_text(), any_text(), -1..4i32), 0..4),
        incoming_servers in prop::collection::vec(any_server(), 0..4),
        queues in prop::collection::vec(any_queue(), 0..4),
        outgoing_servers in prop::collection::vec(any_outgoing(), 0..4),
        system in prop::option::of((any_text(), any::<u32>())),
    ) -> v1::Model {
        let system = system.map(|(language, priority)| v1::System { language, priority, revision: 3 });
        let instance = |(name, pool, allocation)| v1::Instance { name, pool, allocation, ..Default::default() };
        v1::Model { instances: names.into_iter().map(instance).collect(), incoming_servers, queues, outgoing_servers, system }
    }
}

/// Numbers that go on from one call to the next, so that no two definitions of a test share a uid.
fn mint() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("uid-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn changed(stored: &Model, request: &v1::ApplyModelRequest) -> Result<plan::Plan, Failure> {
    let current = rename::rename(stored, &request.renames)?;
    let removals = Removals { prune: request.prune, named: &request.removals };
    let asked = wire::read(request.model.clone().unwrap_or_default());
    let draft = merge::merge(&current, asked, &removals, &vault(1), &mut mint)?;
    let faults = validate::validate(&draft);
    if faults.is_empty() { Ok(plan::plan(stored, draft)) } else { Err(Failure::invalid(faults)) }
}

fn pure(stored: &Model, request: v1::Model) -> Result<plan::Plan, Vec<FieldFault>> {
    let request = v1::ApplyModelRequest { model: Some(request), ..Default::default() };
    changed(stored, &request).map_err(|failure| failure.fields)
}

/// What the wire shows of a model, without the revisions that its definitions are of.
fn content(model: &Model) -> v1::Model {
    let mut shown = wire::model(model);
    shown.system.iter_mut().for_each(|it| it.revision = 0);
    shown.instances.iter_mut().for_each(|it| it.revision = 0);
    shown.incoming_servers.iter_mut().for_each(|it| it.revision = 0);
    shown.outgoing_servers.iter_mut().for_each(|it| it.revision = 0);
    shown.queues.iter_mut().for_each(|it| it.revision = 0);
    shown
}

prop_compose! {
    /// A model without faults, however oddly it is written.
    fn valid_model()(
        instances in prop::collection::btree_set("[a-z][a-z0-9-]{0,9}", 1..4),
        servers in prop::collection::btree_map("\\PC{1,12}", (0..3i32, "( |)[A-Za-z0-9-]{1,9}", 0..3u32), 1..4),
        queues in prop::collection::btree_map("\\PC{1,12}", (0..=1000u32, 0..5i32, -9_000_000_000i64..9_000_000_000, 0..5i32, prop::collection::vec((any::<prop::sample::Index>(), 0..=1000u32, any::<bool>()), 0..5)), 0..6),
        index: prop::sample::Index,
        senders in prop::collection::btree_map("\\PC{1,12}", (0..4i32, any::<bool>()), 0..4),
        system in prop::option::of((prop_oneof![Just(""), Just("de ")], 0..=1000u32)),
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
                backlog_guard: [None, Some((0, true)), Some((0, false)), Some((seconds as u32, false))][policy as usize % 4]
                    .map(|(message_count, off)| v1::BacklogGuard { message_count, off }),
                start: Some(v1::Start { policy, since_time }),
                after_intake: Some(v1::AfterIntake {
                    policy: after,
                    folder: if after == 2 { " Done".into() } else { String::new() },
                    keep: (after == 4 && priority % 2 == 0).then_some(prost_types::Duration { seconds: 3600, nanos: 0 }),
                }),
                ..queue(&name, addresses)
            }
        }).collect();
        let instances = names.into_iter().map(|name| v1::Instance { name, ..Default::default() }).collect();
        let mut seen = std::collections::HashSet::new();
        let named = senders.into_iter().filter(|(name, _)| !name.trim().is_empty() && seen.insert(name.trim().to_owned()));
        let mut outgoing_servers: Vec<_> = named.map(|(name, (way, enabled))| v1::OutgoingServer {
            name,
            enabled: Some(enabled),
            server: if way < 2 { "Contoso.example " } else { "smtp.example:25" }.into(),
            authentication: way + 1,
            user: if way == 3 { "" } else { " ada@b.example" }.into(),
            client_id: if way < 2 { "id" } else { "" }.into(),
            secret: if way == 0 { secret("s") } else { None },
            password: if way == 1 || way == 2 { secret("p") } else { None },
            ..Default::default()
        }).collect();
        // A relay for everybody, so that every address may be a sender.
        if seen.insert("relay".into()) {
            let authentication = v1::OutgoingAuthentication::None.into();
            outgoing_servers.push(v1::OutgoingServer { name: "relay".into(), server: "smtp.example".into(), authentication, ..Default::default() });
        }
        let system = system.map(|(language, priority)| v1::System { language: language.into(), priority, revision: 0 });
        v1::Model { instances, incoming_servers: servers, queues, outgoing_servers, system }
    }
}

fn names(model: &v1::Model) -> Vec<(&'static str, String)> {
    let instances = model.instances.iter().map(|it| ("instance", it.name.clone()));
    let servers = model.incoming_servers.iter().map(|it| ("incoming", it.name.clone()));
    let outgoing = model.outgoing_servers.iter().map(|it| ("outgoing", it.name.clone()));
    let queues = model.queues.iter().map(|it| ("queue", it.name.clone()));
    instances.chain(servers).chain(outgoing).chain(queues).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_request_makes_it_panic(
        stored in valid_model(), model in any_model(), prune: bool,
        removals in prop::collection::vec(any_name(), 0..3),
        renames in prop::collection::vec((any_name(), any_text()), 0..3),
    ) {
        let stored = pure(&Model::default(), stored).unwrap().model;
        let renames = renames.into_iter().map(|(it, new_name)| v1::Rename { definition: Some(it), new_name }).collect();
        let request = v1::ApplyModelRequest { model: Some(model), prune, removals, renames, ..Default::default() };
        let _ = changed(&stored, &request);
    }

    #[test]
    fn whatever_is_stored_a_pruning_apply_leaves_exactly_what_it_names(old in valid_model(), new in valid_model()) {
        let stored = pure(&Model::default(), old).unwrap().model;
        let request = v1::ApplyModelRequest { model: Some(new.clone()), prune: true, ..Default::default() };
        let once = changed(&stored, &request).unwrap();
        prop_assert_eq!(names(&content(&once.model)), names(&content(&pure(&Model::default(), new).unwrap().model)));
        // Pruning again, and planning the plan, change nothing.
        let again = changed(&once.model, &request).unwrap();
        prop_assert_eq!(&again.changes, &vec![]);
        prop_assert_eq!(again.model.revision(), once.model.revision());
        let exported = v1::ApplyModelRequest { model: Some(wire::model(&once.model)), prune: true, ..Default::default() };
        prop_assert_eq!(changed(&once.model, &exported).unwrap().changes, vec![]);
        // There and back again, by way of what was stored: nothing is left of the journey.
        let back = plan::plan(&once.model, Draft::of(&stored));
        prop_assert_eq!(content(&back.model), content(&stored));
        prop_assert_eq!(plan::plan(&back.model, Draft::of(&stored)).changes, vec![]);
    }

    #[test]
    fn a_rename_takes_its_references_along(stored in valid_model(), pick: prop::sample::Index) {
        let stored = pure(&Model::default(), stored).unwrap().model;
        let all: Vec<_> = plan::definitions(&stored).into_iter().filter(|it| it.kind() != object::Kind::System).collect();
        let chosen = pick.get(&all);
        let definition = v1::DefinitionName { noun: chosen.kind().noun().into(), name: chosen.name().into() };
        let renames = vec![v1::Rename { definition: Some(definition.clone()), new_name: "another-name".into() }];
        let renamed = changed(&stored, &v1::ApplyModelRequest { renames, ..Default::default() }).unwrap();
        let update = v1::change::Kind::Update;
        prop_assert!(!renamed.changes.is_empty() && renamed.changes.iter().all(|change| change.kind() == update));
        let mailboxes = |model: &Model| model.mailboxes().map(|(uid, _)| uid.clone()).collect::<std::collections::BTreeSet<_>>();
        prop_assert_eq!(mailboxes(&renamed.model), mailboxes(&stored));
        let back = v1::DefinitionName { name: "another-name".into(), ..definition.clone() };
        let renames = vec![v1::Rename { definition: Some(back), new_name: definition.name }];
        let back = changed(&renamed.model, &v1::ApplyModelRequest { renames, ..Default::default() }).unwrap();
        prop_assert_eq!(content(&back.model), content(&stored));
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
