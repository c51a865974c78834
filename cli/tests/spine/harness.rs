//! A stage for the tests: a tenant and a Dovecot, a model that reads from them, and an installation that is the real
//! binary, so that it can be killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use postroom_cli::client::Client;
use postroom_cli::context::Context;
use postroom_control_plane::config::StoreChoice;
use postroom_proto::convert::to_duration;
use postroom_proto::v1;
use postroom_testbed::Testbed;
use postroom_testbed::lmtp::Delivery;
use postroom_testbed::mail::Mail;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Mailbox that is read with OAuth Service; its contacts have priority 5.
pub(crate) const SERVICE: &str = "billing@contoso.example";
/// Mailbox that is read with OAuth User; its contacts have priority 10.
pub(crate) const USER: &str = "support@contoso.example";
/// Password of the user.
pub(crate) const PASSWORD: &str = "planted-pässword-9";
/// The instance that receives the contacts.
pub(crate) const INSTANCE: &str = "core1";
/// A name that must work everywhere.
pub(crate) const SERVER: &str = "Münster / \"Büro\" #1 🙂";
/// Longest wait for anything. Generous: the machine may be busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Servers and a place for an installation.
pub(crate) struct Stage {
    pub(crate) testbed: Testbed,
    pub(crate) folder: TempDir,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        // Whoever was first has installed the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let testbed = Testbed::start().await.unwrap();
        testbed.tenant.set_password(USER, PASSWORD);
        let stage = Self { testbed, folder: tempfile::tempdir().unwrap() };
        std::fs::write(stage.model_file(), stage.model(&stage.secret())).unwrap();
        stage
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("up.log")
    }

    pub(crate) fn model_file(&self) -> PathBuf {
        self.folder.path().join("model.yaml")
    }

    /// Where an installation over a data folder keeps its definitions: in the folder, or with POSTROOM_TEST_STORE=etcd
    /// below a prefix of its own in an etcd that all tests here share.
    pub(crate) async fn store_of(data: &Path) -> StoreChoice {
        match std::env::var("POSTROOM_TEST_STORE").as_deref() {
            Ok("etcd") => {
                let etcd = postroom_testbed::etcd::shared().await;
                etcd.url(&format!("/postroom{}", data.display())).parse().unwrap()
            }
            Ok("sqlite") | Err(_) => StoreChoice::Sqlite,
            Ok(other) => panic!("POSTROOM_TEST_STORE={other} is neither sqlite nor etcd"),
        }
    }

    /// The client secret of the service application.
    pub(crate) fn secret(&self) -> String {
        self.testbed.service().secret.clone().unwrap()
    }

    /// A model with two queues, one mailbox on OAuth Service and one on OAuth User.
    pub(crate) fn model(&self, secret: &str) -> String {
        self.model_with(&self.testbed.tenant.authority(), secret, PASSWORD)
    }

    pub(crate) fn model_with(&self, authority: &str, secret: &str, password: &str) -> String {
        let bed = &self.testbed;
        let imap = format!("{{host: {}, port: {}}}", bed.host(), bed.imap_port());
        let ca = serde_json::json!(bed.ca_file());
        let server = serde_json::json!(SERVER);
        let (service, user) = (&bed.service().client_id, &bed.user().client_id);
        let (secret, password) = (serde_json::json!(secret), serde_json::json!(password));
        let users = bed.tenant.authority();
        format!(
            "instances:
  - {{name: core1}}
incomingServers:
  - {{name: {server}, address: {authority:?}, authentication: oauth-service, clientId: {service},
     secret: {{value: {secret}}}, imap: {imap}, caFile: {ca}}}
  - {{name: Users, address: {users:?}, authentication: oauth-user, clientId: {user}, imap: {imap}, caFile: {ca}}}
queues:
  - name: Billing
    instance: core1
    priority: 10
    addresses:
      - {{email: {SERVICE}, priority: 5, language: fi, server: {server}}}
  - name: Support
    instance: core1
    priority: 10
    addresses:
      - {{email: {USER}, server: Users, password: {{value: {password}}}}}
"
        )
    }

    /// Puts `count` messages into a mailbox; their subjects are `tag-0`, `tag-1`, …
    pub(crate) async fn deliver(&self, to: &str, tag: &str, count: usize) {
        let mails: Vec<Delivery> =
            (0..count).map(|number| Mail::to(to).subject(&format!("{tag}-{number}")).delivery()).collect();
        self.testbed.deliver_all(mails).await.unwrap();
    }

    /// Messages in both mailboxes that are not marked as read.
    pub(crate) async fn unseen(&self) -> usize {
        let dovecot = &self.testbed.dovecot;
        dovecot.count_unseen(SERVICE, "INBOX").await.unwrap() + dovecot.count_unseen(USER, "INBOX").await.unwrap()
    }

    /// Starts the installation and waits until it answers.
    pub(crate) async fn up(&self) -> Up {
        self.up_in(&self.data(), Some(&self.model_file())).await
    }

    /// The same over another data folder, and with a model file or with what is stored there.
    pub(crate) async fn up_in(&self, data: &Path, model: Option<&Path>) -> Up {
        self.up_over(&Self::store_of(data).await, data, model).await
    }

    /// The same with this store, whatever the environment says.
    pub(crate) async fn up_over(&self, store: &StoreChoice, data: &Path, model: Option<&Path>) -> Up {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postroom"));
        command.arg("up");
        self.start(command, false, store, data, model).await
    }

    /// The same as [`Stage::up`], with further arguments.
    pub(crate) async fn up_with(&self, args: &[&str]) -> Up {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postroom"));
        command.arg("up").args(args);
        let store = Self::store_of(&self.data()).await;
        self.start(command, false, &store, &self.data(), Some(&self.model_file())).await
    }

    /// The same as [`Stage::up`], with a small file system of its own mounted on `folder`: the data folder, or one in it.
    /// Nobody else sees the mount, and it is gone with the process.
    pub(crate) async fn up_on(&self, folder: &Path, size: &str) -> Up {
        const MOUNT: &str = r#"mount -t tmpfs -o "size=$1" postroom-test "$2" || { echo "cannot mount: run as root" >&2; exit 1; }
            shift 2; exec "$@""#;
        std::fs::create_dir_all(folder).unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", MOUNT, "sh", size])
            .arg(folder)
            .args([env!("CARGO_BIN_EXE_postroom"), "up"]);
        let store = Self::store_of(&self.data()).await;
        self.start(command, true, &store, &self.data(), Some(&self.model_file())).await
    }

    async fn start(&self, command: Command, apart: bool, store: &StoreChoice, data: &Path, model: Option<&Path>) -> Up {
        Up::start(command, apart, &self.log(), store, data, model).await
    }
}

/// True when installations keep their definitions outside of their data folders.
pub(crate) fn is_elsewhere() -> bool {
    std::env::var("POSTROOM_TEST_STORE").is_ok_and(|store| store == "etcd")
}

fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    text.lines().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// A running installation, killed when it is dropped.
pub(crate) struct Up {
    child: Child,
    data: PathBuf,
}

impl Up {
    /// Starts an installation with this command, to which the rest is added, and waits until it answers.
    /// `apart`: it sees other mounts than this process.
    pub(crate) async fn start(
        mut command: Command,
        apart: bool,
        log: &Path,
        store: &StoreChoice,
        data: &Path,
        model: Option<&Path>,
    ) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let before = file.metadata().unwrap().len();
        command.args(["--listen", "127.0.0.1:0", "--data"]).arg(data);
        command.args(["--store", &store.to_string()]);
        if let Some(model) = model {
            command.arg("-f").arg(model);
        }
        let child = command
            .env("POSTROOM_LOG", "trace")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        // The shell becomes the installation and keeps its number, by which its files are seen from here.
        let data = match apart {
            true => PathBuf::from(format!("/proc/{}/root{}", child.id(), data.display())),
            false => data.into(),
        };
        let mut up = Self { child, data };
        eventually("the installation answers", || {
            assert!(up.child.try_wait().unwrap().is_none(), "it has ended: {}", tail(log));
            let said = std::fs::read(log).unwrap_or_default();
            let new =
                String::from_utf8_lossy(said.get(usize::try_from(before).unwrap()..).unwrap_or_default()).into_owned();
            async move { new.contains("postroom is up at") }
        })
        .await;
        up
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&Context::read(&self.data).unwrap(), false).unwrap()
    }

    /// The data folder, as it is seen from here.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Applies a model as a person would.
    pub(crate) fn apply(&self, stage: &Stage, model: &str) {
        std::fs::write(stage.model_file(), model).unwrap();
        let applied = self.postroom(&["apply", "-f", stage.model_file().to_str().unwrap()]);
        assert!(applied.status.success(), "{applied:?}");
    }

    /// What follows a restore where definitions are not in the data folder: the store is another one than in the backup.
    pub(crate) fn adopt_store(&self) {
        if is_elsewhere() {
            let adopted = self.postroom(&["store", "adopt", "--yes"]);
            assert!(adopted.status.success(), "{adopted:?}");
        }
    }

    /// Runs the command as a person would.
    pub(crate) fn postroom(&self, args: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_postroom")).arg("--data").arg(&self.data).args(args).output().unwrap()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have been killed or have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a condition holds; fails the test when it does not within [`PATIENCE`].
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let until = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// All contacts, by subject, with how often each stands there.
pub(crate) async fn contacts(client: &Client) -> BTreeMap<String, usize> {
    let listed = client.list_contacts(v1::ListContactsRequest::default(), u32::MAX).await.unwrap();
    let mut counts = BTreeMap::new();
    for contact in listed.contacts {
        *counts.entry(contact.content.unwrap_or_default().subject).or_insert(0) += 1;
    }
    counts
}

/// Fails unless there is exactly one contact for each of `tag-0` … `tag-<count - 1>`, and no other.
pub(crate) fn assert_each_once(found: &BTreeMap<String, usize>, tags: &[impl AsRef<str>], count: usize) {
    let expected: BTreeMap<String, usize> =
        tags.iter().flat_map(|tag| (0..count).map(move |number| (format!("{}-{number}", tag.as_ref()), 1))).collect();
    let missing: Vec<_> = expected.keys().filter(|subject| !found.contains_key(*subject)).collect();
    let wrong: Vec<_> = found.iter().filter(|(subject, times)| expected.get(*subject) != Some(*times)).collect();
    assert!(missing.is_empty() && wrong.is_empty(), "missing: {missing:?}; too often or unknown: {wrong:?}");
}

/// Takes contacts for the instance, waiting at most `wait` for the first.
pub(crate) async fn take(client: &Client, max_count: u32, wait: Duration) -> Vec<v1::Contact> {
    let request = v1::AllocateContactsRequest {
        instance: INSTANCE.into(),
        max_count,
        wait: Some(to_duration(wait)),
        request_id: uuid::Uuid::new_v4().to_string(),
        accept_within: None,
    };
    client.allocate_contacts(request).await.unwrap().contacts
}

/// Accepts what was taken.
pub(crate) async fn accept(client: &Client, taken: &[v1::Contact]) -> Vec<v1::ContactOutcome> {
    let request = v1::AcceptContactsRequest { instance: INSTANCE.into(), contacts: named(taken) };
    client.accept_contacts(request).await.unwrap().outcomes
}

/// Gives back what was taken.
pub(crate) async fn reject(client: &Client, taken: &[v1::Contact]) -> Vec<v1::ContactOutcome> {
    let request = v1::RejectContactsRequest { instance: INSTANCE.into(), contacts: named(taken) };
    client.reject_contacts(request).await.unwrap().outcomes
}

fn named(contacts: &[v1::Contact]) -> Vec<v1::AllocatedContact> {
    let name = |contact: &v1::Contact| v1::AllocatedContact {
        contact: contact.id.clone(),
        request_id: contact.allocation.as_ref().map(|it| it.request_id.clone()).unwrap_or_default(),
    };
    contacts.iter().map(name).collect()
}

/// One mailbox as the operator sees it.
pub(crate) async fn mailbox(client: &Client, email: &str) -> v1::Mailbox {
    client.get_mailbox(email.into()).await.unwrap()
}
