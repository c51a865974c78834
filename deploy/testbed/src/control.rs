//! Changes to a running testbed: one line of JSON over a unix socket, one line back.

mod reading;
mod sending;

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use postroom_testbed::{
    Testbed,
    dovecot::SENT_ITEMS,
    tenant::{Fault, Permission},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

const ANSWER_SECONDS: u64 = 120;

/// What an operator can rehearse.
#[derive(Debug, Serialize, Deserialize, Subcommand)]
pub(crate) enum Control {
    /// Tokens issued from now on live this many seconds.
    TokenLifetime { seconds: u64 },
    /// Give the OAuth Service application another secret: AADSTS7000215 for the old one.
    Secret { value: String },
    /// Grant or withdraw consent to everything for both applications.
    Consent { state: Switch },
    /// Grant or withdraw consent to one thing for both applications.
    Permission { permission: Permission, state: Switch },
    /// Add an account or change its password: AADSTS50126 for the old one.
    Password { user: String, password: String },
    /// Remove an account: AADSTS50034.
    RemoveUser { user: String },
    /// Demand multi-factor authentication of an account: AADSTS50076.
    Mfa { user: String, state: Switch },
    /// Lock an account: AADSTS50053.
    Lock { user: String, state: Switch },
    /// Let the next COUNT token requests fail: `refuse AADSTS-NUMBER`, `status HTTP-STATUS`, `hang` or `cut`.
    Fail {
        count: usize,
        kind: FaultKind,
        #[arg(required_if_eq_any([("kind", "refuse"), ("kind", "status")]))]
        number: Option<u32>,
    },
    /// Order what happens to those that read by IMAP.
    #[command(subcommand)]
    Imap(reading::Imap),
    /// Order what happens to those that send by SMTP.
    #[command(subcommand)]
    Smtp(sending::Smtp),
    /// Order what happens to those that send by Graph.
    #[command(subcommand)]
    Graph(sending::Graph),
    /// Take back all failures and orders.
    Mend,
    /// How often an account or an application (client id) asked for a token.
    SignIns { who: String },
    /// End all IMAP connections of a mailbox, as Exchange does when a token expires.
    Kick { user: String },
    /// Stop the IMAP server; its mail stays.
    Stop,
    /// Start the IMAP server, or stop and start it, with the same mail and ports.
    Restart,
    /// The messages of a folder with their flags.
    Messages {
        user: String,
        #[arg(default_value = "INBOX")]
        folder: String,
    },
    /// The copies of what a mailbox has sent.
    Sent { user: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, ValueEnum)]
pub(crate) enum FaultKind {
    Refuse,
    Status,
    Hang,
    Cut,
}

#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Done(String),
    Failed(String),
}

/// Sends a command to the testbed behind `socket` and returns what it says.
pub(crate) async fn ask(socket: &Path, control: &Control) -> anyhow::Result<String> {
    let asked = async {
        let mut stream = UnixStream::connect(socket).await.context("the testbed does not run any more")?;
        stream.write_all(format!("{}\n", serde_json::to_string(control)?).as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await?;
        anyhow::Ok(serde_json::from_str(&line)?)
    };
    match tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS), asked).await {
        Ok(Ok(Reply::Done(text))) => Ok(text),
        Ok(Ok(Reply::Failed(text))) => bail!(text),
        Ok(Err(error)) => Err(error),
        Err(_) => bail!("the testbed did not answer within {ANSWER_SECONDS} s"),
    }
}

pub(crate) fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))
}

/// Carries out commands one after the other, for ever.
pub(crate) async fn serve(listener: UnixListener, testbed: &Testbed) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("cannot accept a control connection")?;
        if let Err(error) = answer(stream, testbed).await {
            tracing::warn!(%error, "a control connection failed");
        }
    }
}

async fn answer(stream: UnixStream, testbed: &Testbed) -> anyhow::Result<()> {
    const LONGEST_WAIT: Duration = Duration::from_secs(5);
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    tokio::time::timeout(LONGEST_WAIT, stream.read_line(&mut line)).await??;
    let reply = match serde_json::from_str(&line) {
        Ok(control) => match carry_out(control, testbed).await {
            Ok(text) => Reply::Done(text),
            Err(error) => Reply::Failed(format!("{error:#}")),
        },
        Err(error) => Reply::Failed(format!("not understood: {error}")),
    };
    let reply = format!("{}\n", serde_json::to_string(&reply)?);
    tokio::time::timeout(LONGEST_WAIT, stream.write_all(reply.as_bytes())).await??;
    Ok(())
}

async fn carry_out(control: Control, testbed: &Testbed) -> anyhow::Result<String> {
    let tenant = &testbed.tenant;
    match control {
        Control::TokenLifetime { seconds } => tenant.set_token_lifetime(Duration::from_secs(seconds)),
        Control::Secret { value } => tenant.set_secret(&testbed.service().client_id, &value),
        Control::Consent { state } => {
            for app in [testbed.service(), testbed.user()] {
                tenant.set_consent(&app.client_id, state == Switch::On);
            }
        }
        Control::Permission { permission, state } => {
            for app in [testbed.service(), testbed.user()] {
                tenant.set_permission(&app.client_id, permission, state == Switch::On);
            }
        }
        Control::Imap(order) => reading::order(order, testbed)?,
        Control::Smtp(order) => sending::order_smtp(order, testbed)?,
        Control::Graph(order) => sending::order_graph(order, testbed)?,
        Control::Password { user, password } => tenant.set_password(&user, &password),
        Control::RemoveUser { user } => tenant.remove_user(&user),
        Control::Mfa { user, state } => tenant.set_mfa(&user, state == Switch::On),
        Control::Lock { user, state } => tenant.set_locked(&user, state == Switch::On),
        Control::Fail { count, kind, number } => {
            let number = number.unwrap_or_default();
            let fault = match kind {
                FaultKind::Refuse => Fault::Refuse(number),
                FaultKind::Status => Fault::Status(number.try_into()?, None),
                FaultKind::Hang => Fault::Hang,
                FaultKind::Cut => Fault::Cut,
            };
            tenant.fail_next(count, fault);
        }
        Control::Mend => {
            tenant.clear_faults();
            reading::mend(testbed);
            sending::mend(testbed);
        }
        Control::SignIns { who } => {
            let counts = tenant.sign_ins(&who);
            let counts = json!({"issued": counts.issued, "refused": counts.refused, "lastCode": counts.last_code});
            return Ok(counts.to_string());
        }
        Control::Kick { user } => testbed.dovecot.kick(&user).await?,
        Control::Stop => testbed.dovecot.stop().await?,
        Control::Restart => testbed.dovecot.restart().await?,
        Control::Messages { user, folder } => return list(testbed, &user, &folder).await,
        Control::Sent { user } => return list(testbed, &user, SENT_ITEMS).await,
    }
    Ok("done".to_owned())
}

async fn list(testbed: &Testbed, user: &str, folder: &str) -> anyhow::Result<String> {
    let messages = testbed.dovecot.messages(user, folder).await?;
    let lines = messages.iter().map(|m| format!("{}\t{}\t{}", m.uid, m.flags.join(" "), m.subject));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}
