//! Where a running testbed is and what opens it: the files that scripts read.

use std::path::{Path, PathBuf};

use anyhow::Context;
use postroom_testbed::{APP_SCOPE, TENANT_ID, Testbed, USER_SCOPE};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const JSON: &str = "testbed.json";
const ENV: &str = "testbed.env";

/// Contents of testbed.json. It holds secrets, of this testbed only.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) imap_port: u16,
    pub(crate) lmtp_port: u16,
    pub(crate) ca_file: PathBuf,
    /// Address of an incoming server.
    pub(crate) authority: String,
    /// Application for OAuth Service.
    pub(crate) service_client_id: String,
    pub(crate) service_secret: String,
    pub(crate) service_scope: String,
    /// Application for OAuth User.
    pub(crate) user_client_id: String,
    pub(crate) user_scope: String,
    /// GUID of the tenant.
    pub(crate) tenant_id: String,
    /// Port of submission with STARTTLS. Only with `serve --smtp`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) smtp_port: Option<u16>,
    /// Host and port of the Graph API. Only with `serve --graph`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) graph_host: Option<String>,
    /// Accounts of the tenant.
    pub(crate) users: Vec<User>,
    /// What SASL PLAIN accepts for every mailbox.
    pub(crate) password: String,
    /// Socket of `postroom-testbed control`.
    pub(crate) control: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) email: String,
    pub(crate) password: String,
    /// Object id, a GUID.
    pub(crate) id: String,
}

impl Place {
    /// Describes `testbed` after giving it these accounts.
    pub(crate) fn new(testbed: &Testbed, users: &[String]) -> Self {
        let account = |email: &String| {
            let password = Uuid::new_v4().simple().to_string();
            testbed.tenant.set_password(email, &password);
            User { email: email.clone(), password, id: testbed.tenant.object_id(email) }
        };
        Self {
            host: testbed.host().to_owned(),
            imap_port: testbed.running_front().map_or(testbed.imap_port(), |front| front.addr().port()),
            lmtp_port: testbed.dovecot.lmtp_addr().port(),
            ca_file: testbed.ca_file().to_owned(),
            authority: testbed.tenant.authority(),
            service_client_id: testbed.service().client_id.clone(),
            service_secret: testbed.service().secret.clone().unwrap_or_default(),
            service_scope: APP_SCOPE.to_owned(),
            user_client_id: testbed.user().client_id.clone(),
            user_scope: USER_SCOPE.to_owned(),
            tenant_id: TENANT_ID.to_owned(),
            smtp_port: testbed.running_exchange().map(|exchange| exchange.submission_addr().port()),
            graph_host: testbed.running_graph().map(|graph| graph.addr().to_string()),
            users: users.iter().map(account).collect(),
            password: testbed.dovecot.password().to_owned(),
            control: testbed.dovecot.dir().join("control"),
        }
    }

    pub(crate) fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(JSON);
        let text = std::fs::read(&path)
            .with_context(|| format!("no testbed runs in {}: cannot read {JSON}", dir.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no description of a testbed", path.display()))
    }

    /// Writes both files. testbed.json comes last: where it is, everything is ready.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        write_private(&dir.join(ENV), self.env().as_bytes())?;
        write_private(&dir.join(JSON), &serde_json::to_vec_pretty(self)?)
    }

    pub(crate) fn remove(dir: &Path) {
        for name in [JSON, ENV] {
            // Not there when the start failed.
            let _ = std::fs::remove_file(dir.join(name));
        }
    }

    /// Lines `TESTBED_NAME='value'` for a shell.
    fn env(&self) -> String {
        let path = |path: &Path| path.display().to_string();
        let mut pairs = vec![
            ("HOST".to_owned(), self.host.clone()),
            ("IMAP_PORT".to_owned(), self.imap_port.to_string()),
            ("LMTP_PORT".to_owned(), self.lmtp_port.to_string()),
            ("CA_FILE".to_owned(), path(&self.ca_file)),
            ("AUTHORITY".to_owned(), self.authority.clone()),
            ("SERVICE_CLIENT_ID".to_owned(), self.service_client_id.clone()),
            ("SERVICE_SECRET".to_owned(), self.service_secret.clone()),
            ("SERVICE_SCOPE".to_owned(), self.service_scope.clone()),
            ("USER_CLIENT_ID".to_owned(), self.user_client_id.clone()),
            ("USER_SCOPE".to_owned(), self.user_scope.clone()),
            ("PASSWORD".to_owned(), self.password.clone()),
            ("CONTROL".to_owned(), path(&self.control)),
            ("TENANT_ID".to_owned(), self.tenant_id.clone()),
        ];
        pairs.extend(self.smtp_port.map(|port| ("SMTP_PORT".to_owned(), port.to_string())));
        pairs.extend(self.graph_host.clone().map(|host| ("GRAPH_HOST".to_owned(), host)));
        for (number, user) in (1..).zip(&self.users) {
            pairs.push((format!("USER_{number}"), user.email.clone()));
            pairs.push((format!("USER_{number}_PASSWORD"), user.password.clone()));
            pairs.push((format!("USER_{number}_ID"), user.id.clone()));
        }
        pairs.iter().map(|(name, value)| format!("TESTBED_{name}='{}'\n", value.replace('\'', r"'\''"))).collect()
    }
}

fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let beside = path.with_extension("new");
    let written = || {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(content)?;
        std::fs::rename(&beside, path)
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}
