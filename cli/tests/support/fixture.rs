//! What the golden files show: one of everything, at a fixed time.

use jiff::Timestamp;
use postroom_proto::{convert, v1};

use super::State;

/// The time of the command, in microseconds: 2026-03-01T12:00:00Z.
const NOW: i64 = 1_772_366_400_000_000;

/// The model file that is applied.
pub(crate) const MODEL: &str = "instances:\n  - {name: core1}\n";

/// The time that ages are told by.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_microsecond(NOW).unwrap()
}

/// A time that many seconds from now; negative: ago.
pub(crate) fn at(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(convert::to_timestamp(NOW + seconds * 1_000_000))
}

/// A control plane with one of everything.
pub(crate) fn state() -> State {
    State {
        model: model(),
        mailboxes: mailboxes(),
        events: contacts().into_iter().map(|contact| Ok(event(contact))).collect(),
        steps: steps(),
        contacts: contacts(),
        changes: changes(),
        notes: vec!["3 waiting contacts of 1 address that go from instance core1 to core2 stay with core1".into()],
        revisions: revisions(),
        rollout: rollout(),
        messages: messages(),
        mails: super::outbox::mails(),
        reconciliation: reconciliation(),
        status: status(),
        fleet: fleet(),
        store: store(),
        credentials: credentials(),
        raw: vec![b"Subject: Invoice 4711\r\n", b"\r\nHello,\r\n"],
        ..State::default()
    }
}

#[allow(clippy::needless_update, reason = "a model that grows still compiles here")]
fn model() -> v1::Model {
    let instance = v1::Instance {
        uid: "ins-1".into(),
        name: "core1".into(),
        pool: "default".into(),
        allocation: v1::AllocationPolicy::Strict.into(),
        revision: 3,
    };
    let server = v1::IncomingServer {
        uid: "srv-1".into(),
        name: "Entra".into(),
        address: "https://login.microsoftonline.com/contoso.example".into(),
        authentication: v1::Authentication::OauthService.into(),
        client_id: "aaaaaaaa-bbbb".into(),
        secret_set: true,
        imap_host: "outlook.office365.com".into(),
        imap_port: 993,
        imap_security: v1::Security::Tls.into(),
        revision: 3,
        ..Default::default()
    };
    let address = |email: &str, priority| v1::Address {
        email: email.into(),
        priority,
        server: "Entra".into(),
        folder: "INBOX".into(),
        mailbox: "mbx-0123456789abcdef01234567".into(),
        sender: priority == 5,
        ..Default::default()
    };
    let queue = v1::Queue {
        uid: "que-1".into(),
        name: "Billing".into(),
        instance: "core1".into(),
        language: "en".into(),
        priority: 10,
        max_message_bytes: 26_214_400,
        start: Some(v1::Start { policy: v1::StartPolicy::Unseen.into(), since_time: None }),
        after_intake: Some(v1::AfterIntake {
            policy: v1::AfterIntakePolicy::Move.into(),
            folder: "Done".into(),
            keep: None,
        }),
        backlog_guard: Some(v1::BacklogGuard { message_count: 250, off: false }),
        addresses: vec![address("billing@contoso.example", 5), address("rechnung@contoso.example", 0)],
        revision: 7,
    };
    let outgoing = v1::OutgoingServer {
        uid: "out-1".into(),
        name: "Relay".into(),
        enabled: Some(true),
        server: "smtp.contoso.example:587".into(),
        authentication: v1::OutgoingAuthentication::Password.into(),
        user: "robot".into(),
        password_set: true,
        revision: 4,
        ..Default::default()
    };
    v1::Model {
        system: Some(v1::System { language: "en".into(), priority: 5, revision: 2 }),
        instances: vec![instance],
        incoming_servers: vec![server],
        outgoing_servers: vec![outgoing],
        queues: vec![queue],
    }
}

fn changes() -> Vec<v1::Change> {
    let field = |field: &str, old: &str, new: &str| v1::FieldChange {
        field: field.into(),
        old_value: old.into(),
        new_value: new.into(),
        secret: field == "secret",
    };
    let change = |kind: v1::change::Kind, noun: &str, name: &str, fields| v1::Change {
        kind: kind.into(),
        noun: noun.into(),
        name: name.into(),
        fields,
    };
    use v1::change::Kind::{Create, Delete, Update};
    vec![
        change(Create, "instance", "core2", vec![field("allocation", "", "strict")]),
        change(Update, "incoming-server", "Entra", vec![field("secret", "set", "set"), field("imap.port", "993", "")]),
        change(Update, "queue", "Billing", vec![field("instance", "core1", "core2")]),
        change(Delete, "queue", "Old", vec![]),
    ]
}

fn revisions() -> Vec<v1::Revision> {
    let revision = |revision, seconds, rollback_of, changes| v1::Revision {
        revision,
        create_time: at(seconds),
        author: "admin".into(),
        rollback_of,
        changes,
    };
    vec![revision(7, -60, 5, changes().split_off(3)), revision(6, -3600, 0, changes())]
}

fn rollout() -> v1::Rollout {
    let worker = |worker: &str, lagging: &[&str]| v1::WorkerRollout {
        worker: worker.into(),
        session: "abc".into(),
        revision: 7 - lagging.len() as u64,
        mailbox_count: 2,
        lagging: lagging.iter().map(ToString::to_string).collect(),
        lagging_count: u32::try_from(lagging.len()).unwrap(),
    };
    v1::Rollout {
        revision: 7,
        done: false,
        replicas: vec![v1::ReplicaRollout { name: "r1".into(), revision: 7 }],
        workers: vec![worker("local", &[]), worker("second", &["mbx-89abcdef0123456789abcdef"])],
        unread_count: 1,
    }
}

fn steps() -> Vec<v1::CheckStep> {
    let step = |name: &str, outcome: v1::CheckOutcome, detail: &str| v1::CheckStep {
        name: name.into(),
        outcome: outcome.into(),
        duration: Some(prost_types::Duration { seconds: 0, nanos: 12_000_000 }),
        detail: detail.into(),
        problem: None,
    };
    let problem = v1::Problem {
        kind: v1::ProblemKind::Consent.into(),
        code: "TOKEN_WITHOUT_ROLE".into(),
        cause: "the token does not have the role IMAP.AccessAsApp (it has no role)".into(),
        remedy: "grant admin consent".into(),
        ..Default::default()
    };
    vec![
        step("definition", v1::CheckOutcome::Ok, "sales@contoso.example; looked at by worker local"),
        step("dns", v1::CheckOutcome::Ok, "imap.contoso.example is 192.0.2.7"),
        v1::CheckStep { problem: Some(problem), ..step("claims", v1::CheckOutcome::Failed, "roles none") },
        v1::CheckStep { duration: None, ..step("sign-in", v1::CheckOutcome::Skipped, "there is no token") },
    ]
}

fn mailboxes() -> Vec<v1::Mailbox> {
    let healthy = v1::Mailbox {
        uid: "mbx-0123456789abcdef01234567".into(),
        email: "billing@contoso.example".into(),
        folder: "INBOX".into(),
        queue: "Billing".into(),
        instance: "core1".into(),
        server: "Entra".into(),
        state: v1::MailboxState::Idle.into(),
        since_time: at(-200),
        holder: Some(v1::Holder {
            worker: "local".into(),
            session: "abc".into(),
            epoch: 17,
            since_time: at(-900),
            reason: v1::MoveReason::WorkerSilent.into(),
            former_worker: "second".into(),
        }),
        pool: "default".into(),
        message_count: 14,
        contact_count: 11,
        quarantined_count: 1,
        too_large_count: 1,
        last_report_time: at(-30),
        ..Default::default()
    };
    let failing = v1::Mailbox {
        uid: "mbx-89abcdef0123456789abcdef".into(),
        email: "sales@contoso.example".into(),
        state: v1::MailboxState::Failing.into(),
        problem: Some(v1::Problem {
            kind: v1::ProblemKind::Credential.into(),
            code: "AADSTS7000215".into(),
            cause: "the client secret is wrong".into(),
            remedy: "use the secret's value, not its id, then apply the model again".into(),
            since_time: at(-4000),
            next_attempt_time: at(90),
        }),
        ..healthy.clone()
    };
    let full = v1::Mailbox {
        uid: "mbx-456789abcdef0123456789ab".into(),
        email: "support@contoso.example".into(),
        state: v1::MailboxState::Backlog.into(),
        backlog: Some(backlog()),
        ..healthy.clone()
    };
    vec![healthy, failing, full]
}

/// Old messages of which some were taken before somebody stopped it.
fn backlog() -> v1::Backlog {
    let decision = |kind: v1::BacklogDecisionKind, seconds| v1::BacklogDecision {
        kind: kind.into(),
        time: at(seconds),
        by: "operator".into(),
        ..Default::default()
    };
    v1::Backlog {
        mailbox: "mbx-456789abcdef0123456789ab".into(),
        email: "support@contoso.example".into(),
        state: v1::BacklogState::Stopped.into(),
        message_count: 3512,
        taken_count: 60,
        left_count: 12,
        held_time: at(-7200),
        progress_time: at(-600),
        decisions: vec![
            decision(v1::BacklogDecisionKind::Stopped, -590),
            v1::BacklogDecision {
                since_time: at(-5_000_000),
                rate_per_minute: 30,
                ..decision(v1::BacklogDecisionKind::Approved, -720)
            },
        ],
        cause: "3440 of 3512 messages wait".into(),
        remedy: "take them with `postroom mailbox backlog approve support@contoso.example`".into(),
        ..Default::default()
    }
}

/// The same once it was approved.
pub(crate) fn approved(backlog: v1::Backlog, request: &v1::ApproveBacklogRequest) -> v1::Backlog {
    v1::Backlog {
        state: v1::BacklogState::Releasing.into(),
        since_time: request.since_time,
        rate_per_minute: request.rate_per_minute,
        cause: String::new(),
        remedy: String::new(),
        ..backlog
    }
}

fn event(contact: v1::Contact) -> v1::WatchContactsResponse {
    let event = Some(v1::watch_contacts_response::Event::Contact(contact));
    v1::WatchContactsResponse { revision: 7, snapshot: false, event }
}

fn messages() -> Vec<v1::Message> {
    let message = |id: &str, disposition: v1::Disposition, reason: &str| v1::Message {
        id: id.into(),
        mailbox: "mbx-0123456789abcdef01234567".into(),
        email: "billing@contoso.example".into(),
        source_key: format!("1700000000:{id}"),
        disposition: disposition.into(),
        reason: reason.into(),
        received_time: at(-4000),
        recorded_time: at(-3600),
        size_bytes: 2048,
        settled: true,
        ..Default::default()
    };
    let discarded = v1::MessageDecision {
        kind: v1::MessageDecisionKind::Discarded.into(),
        time: at(-60),
        by: "operator".into(),
        former_disposition: v1::Disposition::Quarantined.into(),
        former_reason: "the server lists it but does not give it".into(),
    };
    vec![
        v1::Message {
            size_bytes: 83_886_080,
            limit_bytes: 26_214_400,
            ..message("1044", v1::Disposition::TooLarge, "it has 83886080 bytes, more than the queue's maxMessageBytes")
        },
        v1::Message {
            attempt_count: 3,
            decisions: vec![discarded],
            ..message("1043", v1::Disposition::Filtered, "discarded by operator: answered by phone")
        },
        v1::Message {
            contact: "0198c0ffee0198c0ffee0198c0ffee01".into(),
            raw_kept: true,
            settled: false,
            ..message("1042", v1::Disposition::Contact, "")
        },
    ]
}

fn reconciliation() -> Vec<v1::reconcile_mailbox_response::Told> {
    use v1::reconcile_mailbox_response::Told;
    let finding = |kind: v1::FindingKind, key: &str| v1::Finding {
        kind: kind.into(),
        source_key: key.into(),
        received_time: at(-4000),
        size_bytes: 2048,
        ..Default::default()
    };
    vec![
        Told::Progress(v1::ReconcileProgress { folder_count: 3, ledger_count: 0, ledger_total: 2 }),
        Told::Finding(finding(v1::FindingKind::Missing, "1700000000:17")),
        Told::Finding(v1::Finding {
            message: "1042".into(),
            disposition: v1::Disposition::Contact.into(),
            ..finding(v1::FindingKind::Gone, "1700000000:1042")
        }),
        Told::Summary(v1::ReconcileSummary {
            mailbox: "mbx-0123456789abcdef01234567".into(),
            folder_count: 3,
            ledger_count: 2,
            both_count: 2,
            missing_count: 1,
            gone_count: 1,
            contact_count: 2,
            ..Default::default()
        }),
    ]
}

fn contacts() -> Vec<v1::Contact> {
    let contact = |id: &str, priority, subject: &str| v1::Contact {
        id: id.into(),
        instance: "core1".into(),
        queue: "Billing".into(),
        address: "billing@contoso.example".into(),
        mailbox: "mbx-0123456789abcdef01234567".into(),
        state: v1::ContactState::Queued.into(),
        priority,
        language: "en".into(),
        received_time: at(-3600),
        size_bytes: 2048,
        content: Some(v1::ContactContent {
            from: vec![v1::EmailAddress { name: "Zoë".into(), address: "zoe@fabrikam.example".into() }],
            to: vec![v1::EmailAddress { name: String::new(), address: "billing@contoso.example".into() }],
            subject: subject.into(),
            text: "Hello,\n\nmy invoice is wrong.\n".into(),
            attachments: vec![v1::Attachment {
                name: "../invoice.pdf".into(),
                file_name: "invoice.pdf".into(),
                media_type: "application/pdf".into(),
                size_bytes: 1024,
                ..Default::default()
            }],
            message_id: "4711@fabrikam.example".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    vec![
        contact("0198c0ffee0198c0ffee0198c0ffee01", 1, "Invoice 4711"),
        contact("0198c0ffee0198c0ffee0198c0ffee02", 10, "\u{1b}]0;owned\u{7}Re: 東京\nsecond line"),
    ]
}

/// A mailbox whose problem passes by itself.
fn busy(failing: v1::Mailbox) -> v1::Mailbox {
    let problem = v1::Problem {
        kind: v1::ProblemKind::Transient.into(),
        code: "UNREACHABLE".into(),
        cause: "outlook.office365.com:993 cannot be reached".into(),
        remedy: "if it lasts, check name, port, DNS, routes and firewalls".into(),
        since_time: at(-20),
        next_attempt_time: at(5),
    };
    v1::Mailbox { email: "support@contoso.example".into(), problem: Some(problem), ..failing }
}

fn fleet() -> v1::ListWorkersResponse {
    let worker = |name: &str, state: v1::WorkerState, count: u32| v1::Worker {
        name: name.into(),
        state: state.into(),
        pool: "default".into(),
        role: v1::WorkerRole::Active.into(),
        mailbox_count: count,
        held_count: count,
        session: format!("session-of-{name}"),
        build: "0.1.0".into(),
        start_time: at(-86_400),
        heartbeat_time: at(-1),
        ..Default::default()
    };
    v1::ListWorkersResponse {
        workers: vec![
            worker("mail-1", v1::WorkerState::Live, 120),
            v1::Worker { held_count: 0, heartbeat_time: at(-9), ..worker("mail-2", v1::WorkerState::Silent, 80) },
            v1::Worker {
                role: v1::WorkerRole::Spare.into(),
                role_set: true,
                capacity: 200,
                stands_in_for: vec!["mail-3".into()],
                decision_time: at(-3600),
                decided_by: "admin".into(),
                ..worker("mail-9", v1::WorkerState::Live, 75)
            },
        ],
        freeze: Some(v1::Freeze {
            since_time: at(-60),
            until_time: at(1740),
            frozen_by: "admin".into(),
            note: "switch of rack 4 is replaced".into(),
        }),
        brake_until_time: at(30),
    }
}

fn credentials() -> Vec<v1::Credential> {
    let credential = |id: &str, kind: v1::CredentialKind, name: &str, role: &str, expires: i64| v1::Credential {
        id: id.into(),
        kind: kind.into(),
        name: name.into(),
        role: role.into(),
        create_time: at(-86_400),
        created_by: "admin".into(),
        expire_time: at(expires),
        ..Default::default()
    };
    vec![
        v1::Credential {
            last_use_time: at(-1800),
            ..credential("5f0c3a9d21be", v1::CredentialKind::Token, "cem-core1", "instance:core1", 89 * 86_400)
        },
        v1::Credential {
            expired: true,
            ..credential("0a1b2c3d4e5f", v1::CredentialKind::Token, "ada", "operator", -60)
        },
        v1::Credential {
            redeemed: true,
            ..credential("77aa00bb11cc", v1::CredentialKind::Enrolment, "mail-1", "enrolment:mail-1", 600)
        },
        v1::Credential {
            created_by: "mail-1".into(),
            last_use_time: at(-60),
            ..credential("99ff88ee77dd", v1::CredentialKind::Certificate, "mail-1", "worker:mail-1", 29 * 86_400)
        },
    ]
}

fn store() -> v1::StoreInfo {
    v1::StoreInfo {
        location: "etcd http://10.0.0.1:2379,http://10.0.0.2:2379 /postroom/".into(),
        store_id: "store-2".into(),
        revision: 4711,
        ledger_id: "ledger-1".into(),
        bound_store_id: "store-1".into(),
        generation: 3,
        fit: v1::StoreFit::Foreign.into(),
        cause: "the store is store-2, and the ledger belongs to store-1".into(),
        remedy: "name the right store in the settings, or run `postroom store adopt`".into(),
        adoptions: vec![v1::Adoption {
            time: at(-86_400),
            adopted_by: "admin".into(),
            generation: 3,
            former_store_id: "store-0".into(),
            store_id: "store-1".into(),
        }],
    }
}

fn status() -> v1::Status {
    let failing = mailboxes().remove(1);
    let problem = failing.problem.clone().unwrap();
    let contacts = |state: v1::ContactState, count| v1::ContactTally { state: state.into(), count };
    v1::Status {
        version: "0.1.0".into(),
        start_time: at(-86_400),
        model_revision: 7,
        read_time: at(0),
        concerns: vec![
            v1::Concern {
                code: problem.code,
                subject: failing.email.clone(),
                cause: problem.cause,
                remedy: problem.remedy,
                since_time: problem.since_time,
            },
            v1::Concern {
                code: "QUARANTINED_MESSAGES".into(),
                cause: "2 messages are in quarantine: no contact could be made of them".into(),
                remedy: "see `postroom message list --disposition quarantined`".into(),
                ..Default::default()
            },
        ],
        mailboxes: vec![
            v1::MailboxTally { state: v1::MailboxState::Idle.into(), count: 1 },
            v1::MailboxTally { state: v1::MailboxState::Failing.into(), count: 2 },
        ],
        failing_mailboxes: vec![failing.clone(), busy(failing)],
        instances: vec![
            v1::InstanceStatus {
                instance: "core1".into(),
                contacts: vec![contacts(v1::ContactState::Queued, 2), contacts(v1::ContactState::Accepted, 400)],
                oldest_contact: "0198c0ffee0198c0ffee0198c0ffee01".into(),
                oldest_time: at(-3600),
            },
            v1::InstanceStatus { instance: "core2".into(), ..Default::default() },
        ],
        messages: vec![v1::MessageTally { disposition: v1::Disposition::Quarantined.into(), count: 2 }],
        workers: vec![v1::WorkerStatus {
            worker: "local".into(),
            session: "abc".into(),
            mailbox_count: 2,
            heartbeat_time: at(-1),
            draining: false,
        }],
        ledger_bytes: 26_214_400,
        queues: vec![v1::QueueStatus {
            instance: "core1".into(),
            queue: "Billing".into(),
            waiting_count: 2,
            oldest_time: at(-90),
        }],
    }
}
