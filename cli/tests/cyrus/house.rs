//! A Cyrus with mailboxes, and an installation that reads them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};

use postroom_control_plane::config::StoreChoice;
use postroom_proto::v1::{self, Disposition, MailboxState};
use postroom_testbed::{Cyrus, Mail};
use tempfile::TempDir;

use crate::harness::{Up, contacts, eventually, mailbox};

/// The mailbox that most tests read.
pub(crate) const BOX: &str = "billing@contoso.example";
/// Password of every mailbox, unless a test changes it.
pub(crate) const PASSWORD: &str = "planted-pässword-7";

pub(crate) struct House {
    pub(crate) cyrus: Cyrus,
    pub(crate) folder: TempDir,
}

impl House {
    /// A server with these mailboxes.
    pub(crate) async fn with(mailboxes: &[&str]) -> Self {
        // Whoever was first has installed the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cyrus = Cyrus::start().await.unwrap();
        for email in mailboxes {
            cyrus.create_mailbox(email, PASSWORD).await.unwrap();
        }
        Self { cyrus, folder: tempfile::tempdir().unwrap() }
    }

    /// Everything but the queues of a model that connects to this port.
    pub(crate) fn server(&self, port: u16) -> String {
        let ca = serde_json::json!(self.cyrus.authority().ca_file());
        format!(
            "instances: [{{name: core1}}]
incomingServers:
  - {{name: Cyrus, authentication: password, imap: {{host: 127.0.0.1, port: {port}}}, caFile: {ca}}}
queues:
"
        )
    }

    /// A queue with one mailbox. `queue` and `address` are further keys of the two.
    pub(crate) fn queue(email: &str, queue: &str, address: &str) -> String {
        let password = serde_json::json!(PASSWORD);
        format!(
            "  - {{name: {email}, instance: core1, {queue}, addresses: \
             [{{email: {email}, server: Cyrus, password: {{value: {password}}}{address}}}]}}\n"
        )
    }

    /// A model that reads [`BOX`] directly.
    pub(crate) fn model(&self, queue: &str, address: &str) -> String {
        self.server(self.cyrus.imap_addr().port()) + &Self::queue(BOX, queue, address)
    }

    /// Starts an installation with this model, over what it stored before.
    pub(crate) async fn up(&self, model: &str) -> Up {
        let file = self.folder.path().join("model.yaml");
        std::fs::write(&file, model).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_postroom"));
        command.arg("up");
        let (log, data) = (self.folder.path().join("up.log"), self.data());
        Up::start(command, false, &log, &StoreChoice::Sqlite, &data, Some(&file)).await
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Delivers `tag-0`, `tag-1`, …
    pub(crate) async fn deliver(&self, to: &str, tag: &str, count: usize) {
        let mails = (0..count).map(|number| Mail::to(to).subject(&format!("{tag}-{number}")).delivery());
        self.cyrus.deliver(mails).await.unwrap();
    }

    /// Puts messages into a folder of [`BOX`] by IMAP, which is faster.
    pub(crate) async fn put(&self, folder: &str, mails: &[Vec<u8>]) {
        let mut client = self.cyrus.open(BOX).await.unwrap();
        client.append(folder, mails.iter().map(Vec::as_slice)).await.unwrap();
    }

    /// The subjects of the messages in a folder of [`BOX`], in order.
    pub(crate) async fn subjects(&self, folder: &str) -> Vec<String> {
        let stored = self.cyrus.messages(BOX, folder).await.unwrap();
        let mut subjects: Vec<String> = stored.into_iter().map(|message| message.subject).collect();
        subjects.sort();
        subjects
    }
}

/// Messages `tag-0`, `tag-1`, … to [`BOX`].
pub(crate) fn mails(tag: &str, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| Mail::to(BOX).subject(&format!("{tag}-{number}")).build()).collect()
}

/// `tag-0`, `tag-1`, … of each tag.
pub(crate) fn named(tags: &[(&str, usize)]) -> BTreeSet<String> {
    tags.iter().flat_map(|(tag, count)| (0..*count).map(move |number| format!("{tag}-{number}"))).collect()
}

/// Waits until exactly these are contacts, each once.
pub(crate) async fn taken(up: &Up, expected: &BTreeSet<String>) {
    let client = up.client();
    eventually(&format!("{} contacts", expected.len()), || async {
        contacts(&client).await.values().sum::<usize>() >= expected.len()
    })
    .await;
    let found = contacts(&client).await;
    assert!(found.values().all(|times| *times == 1), "{found:?}");
    assert!(found.keys().eq(expected), "{:?}", expected.symmetric_difference(&found.into_keys().collect()));
}

/// Waits until the mailbox is read to its end.
pub(crate) async fn idle(up: &Up, email: &str) {
    let client = up.client();
    eventually(&format!("{email} is read"), || async { mailbox(&client, email).await.state() == MailboxState::Idle })
        .await;
}

/// Looking at the mailbox by hand finds nothing wrong.
pub(crate) fn assert_checked(up: &Up, email: &str) {
    let checked = up.postroom(&["mailbox", "check", email]);
    assert!(checked.status.success(), "{}", text(&checked));
}

/// Whatever was seen of the mailbox is settled, and folder and ledger agree, as a person would find out.
pub(crate) async fn assert_clean(up: &Up, email: &str) {
    eventually("all is settled", || async { messages(up, email, &[]).await.iter().all(|message| message.settled) })
        .await;
    let reconciled = up.postroom(&["mailbox", "reconcile", email]);
    assert!(reconciled.status.success(), "{}", text(&reconciled));
    assert_checked(up, email);
}

/// Messages of the ledger with one of these dispositions, or all.
pub(crate) async fn messages(up: &Up, email: &str, dispositions: &[Disposition]) -> Vec<v1::Message> {
    let request = v1::ListMessagesRequest {
        mailbox: email.into(),
        dispositions: dispositions.iter().map(|it| (*it).into()).collect(),
        ..Default::default()
    };
    up.client().list_messages(request, u32::MAX).await.unwrap().messages
}

/// All that a command said.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}
