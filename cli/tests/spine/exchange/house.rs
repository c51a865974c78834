//! An installation that reads through a front: a control plane and two workers in this process, and who watches them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postroom_cli::client::Client;
use postroom_cli::context::Context;
use postroom_control_plane::access::role::Role;
use postroom_control_plane::access::token::{Tokens, mint};
use postroom_control_plane::{app, config};
use postroom_proto::v1::{self, Disposition, MailboxState};
use postroom_testbed::front::Front;
use postroom_worker as worker;

use super::cases::Reader;
use crate::harness::{Stage, eventually};

/// What a queue takes. Messages of the tests are far smaller.
const MAX_BYTES: usize = 100_000;
/// Where read messages are moved to.
const DONE: &str = "Done";

/// Everything that runs.
pub(super) struct House {
    stage: Stage,
    pub(super) front: Front,
    control_plane: app::App,
    readers: Vec<worker::app::App>,
    client: Client,
    /// The mailboxes as they were shown last, by address. One look serves all who wait.
    seen: RefCell<BTreeMap<String, v1::Mailbox>>,
    /// Codes of problems that were ever shown, by mailbox.
    shown: RefCell<BTreeMap<String, BTreeSet<String>>>,
}

impl House {
    /// Reads these mailboxes.
    pub(super) async fn build(boxes: &[(String, Reader)]) -> Self {
        let stage = Stage::set().await;
        let front = Front::start(stage.testbed.dovecot.imap_addr(), stage.testbed.dovecot.authority()).await.unwrap();
        front.speak_as_exchange();
        for (email, _) in boxes.iter().filter(|(_, reader)| *reader == Reader::Mover) {
            stage.testbed.dovecot.create_folder(email, DONE).await.unwrap();
        }
        let (admin, own) = (mint().unwrap(), mint().unwrap());
        let mut tokens = Tokens::default();
        tokens.grant(&admin, Role::Admin);
        tokens.grant(&own, Role::Worker(None));
        let control_plane = app::App::start(config::Config {
            store: Stage::store_of(&stage.data()).await,
            ..config::Config::new(stage.data(), "127.0.0.1:0".parse().unwrap(), tokens)
        })
        .await
        .unwrap();
        let endpoint = format!("http://{}", control_plane.address());
        let client = Client::new(&Context { endpoint: endpoint.clone(), ca_file: None, token: admin }, false).unwrap();
        let model = model(&stage, &front, boxes);
        let model = postroom_cli::model_file::read(&model, stage.folder.path(), &|_| None).unwrap();
        client.apply_model(model).await.unwrap();

        let usual = reader(&endpoint, &own, "usual");
        let mut impatient = reader(&endpoint, &own, "impatient");
        impatient.reading.step_timeout = Duration::from_secs(3);
        impatient.reading.idle_renew = Duration::from_secs(3);
        let readers = [usual, impatient].map(|config| worker::app::App::start(config).unwrap()).into();
        Self { stage, front, control_plane, readers, client, seen: RefCell::default(), shown: RefCell::default() }
    }

    /// Puts messages into a mailbox in one transaction, not through the front.
    pub(super) async fn deliver(&self, email: &str, mails: Vec<Vec<u8>>) {
        self.stage.testbed.fill(email, &mails).await.unwrap();
    }

    /// Waits until the ledger has so many messages of a mailbox and the mailbox waits for more.
    pub(super) async fn at_rest(&self, email: &str, messages: usize) {
        eventually(&format!("{email} is at rest"), || async {
            let found = self.found(email);
            found.message_count == messages as u64 && found.state() == MailboxState::Idle && self.front.open(email) > 0
        })
        .await;
    }

    /// Waits until the ledger has so many messages, of which so many were put aside and all others are contacts.
    pub(super) async fn accounted(&self, email: &str, messages: usize, aside: usize) {
        eventually(&format!("{messages} messages of {email} are accounted for, {aside} of them put aside"), || async {
            let found = self.found(email);
            let expected = (messages as u64, (messages - aside) as u64, aside as u64);
            (found.message_count, found.contact_count, found.quarantined_count + found.too_large_count) == expected
        })
        .await;
    }

    /// Waits until the mailbox works and everything in it is marked as read but what was put aside.
    pub(super) async fn settled(&self, email: &str, aside: usize) {
        eventually(&format!("{email} is settled and works"), || async {
            let found = self.found(email);
            let works = found.problem.is_none() && found.state() == MailboxState::Idle;
            works && self.stage.testbed.dovecot.count_unseen(email, "INBOX").await.unwrap() == aside
        })
        .await;
    }

    /// True when everything has gone from INBOX to where it belongs, once.
    pub(super) async fn has_moved(&self, email: &str, messages: usize) -> bool {
        let dovecot = &self.stage.testbed.dovecot;
        let moved = dovecot.messages(email, DONE).await.unwrap();
        let subjects: BTreeSet<&str> = moved.iter().map(|message| message.subject.as_str()).collect();
        assert_eq!(subjects.len(), moved.len(), "something was moved twice: {moved:?}");
        moved.len() == messages && dovecot.count(email, "INBOX").await.unwrap() == 0
    }

    /// Fails unless the contacts of a mailbox are these, each once.
    pub(super) async fn assert_contacts(&self, email: &str, mut expected: Vec<String>) {
        let request = v1::ListContactsRequest { address: email.to_owned(), ..Default::default() };
        let listed = self.client.list_contacts(request, u32::MAX).await.unwrap();
        let mut found: Vec<String> =
            listed.contacts.into_iter().map(|contact| contact.content.unwrap_or_default().subject).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{email}");
    }

    /// Fails unless one message was put aside so, with a reason that has these words.
    pub(super) async fn assert_aside(&self, email: &str, disposition: Disposition, reason: &str) {
        let request = v1::ListMessagesRequest {
            mailbox: email.to_owned(),
            dispositions: vec![disposition.into()],
            ..Default::default()
        };
        let found = self.client.list_messages(request, u32::MAX).await.unwrap().messages;
        assert!(found.len() == 1 && found[0].reason.contains(reason), "{email}: {found:#?}");
    }

    /// Looks at all mailboxes, and notes every problem that is shown now.
    pub(super) async fn look(&self) {
        for found in self.client.list_mailboxes().await.unwrap().mailboxes {
            if let Some(problem) = &found.problem {
                self.shown.borrow_mut().entry(found.email.clone()).or_default().insert(problem.code.clone());
            }
            self.seen.borrow_mut().insert(found.email.clone(), found);
        }
    }

    /// A mailbox as it was shown last.
    fn found(&self, email: &str) -> v1::Mailbox {
        self.seen.borrow().get(email).cloned().unwrap_or_default()
    }

    /// The codes of the problems that a mailbox has shown.
    pub(super) fn shown(&self, email: &str) -> BTreeSet<String> {
        self.shown.borrow().get(email).cloned().unwrap_or_default()
    }

    /// True when a mailbox has shown this problem.
    pub(super) fn has_shown(&self, email: &str, code: &str) -> bool {
        self.shown(email).contains(code)
    }

    pub(super) async fn tear_down(self) {
        for reader in self.readers {
            reader.stop().await;
        }
        self.control_plane.stop().await;
    }
}

/// A worker for the pool of its name.
fn reader(endpoint: &str, token: &secrecy::SecretString, name: &str) -> worker::config::Config {
    let mut config = worker::config::Config::new(endpoint, token.clone(), name);
    config.pool = name.to_owned();
    config.reading.pending_retry = Duration::from_millis(300);
    config
}

/// One queue for each kind of reader.
fn model(stage: &Stage, front: &Front, boxes: &[(String, Reader)]) -> String {
    let bed = &stage.testbed;
    let server = serde_json::json!({
        "name": "Exchange",
        "address": bed.tenant.authority(),
        "authentication": "oauth-service",
        "clientId": bed.service().client_id,
        "secret": {"value": stage.secret()},
        "imap": {"host": bed.host(), "port": front.addr().port()},
        "caFile": bed.ca_file(),
    });
    let queue = |reader: Reader, instance: &str, after: &str| {
        let emails = boxes.iter().filter(|(_, who)| *who == reader);
        let addresses: Vec<_> =
            emails.map(|(email, _)| serde_json::json!({"email": email, "server": "Exchange"})).collect();
        serde_json::json!({
            "name": format!("{reader:?}"), "instance": instance, "maxMessageBytes": MAX_BYTES, "afterIntake": after,
            "addresses": addresses,
        })
    };
    let queues = [
        queue(Reader::Usual, "core1", "seen"),
        queue(Reader::Mover, "core1", &format!("move:{DONE}")),
        queue(Reader::Impatient, "core2", "seen"),
    ];
    let instances = [
        serde_json::json!({"name": "core1", "pool": "usual"}),
        serde_json::json!({"name": "core2", "pool": "impatient"}),
    ];
    // A YAML file may be JSON.
    serde_json::json!({"instances": instances, "incomingServers": [server], "queues": queues}).to_string()
}
