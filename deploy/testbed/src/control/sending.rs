//! Orders for what sends mail: the front before Postfix, and the stand-in for Graph.

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use postroom_testbed::{
    Testbed,
    exchange::{self, answers},
    graph,
};
use serde::{Deserialize, Serialize};

/// Whom an order is for.
#[derive(Debug, Serialize, Deserialize, Args)]
pub(crate) struct Whom {
    /// Only for this mailbox.
    #[arg(long, default_value = "")]
    pub(super) mailbox: String,
    /// How many meet it; 0: all, until `mend`.
    #[arg(long, default_value_t = 1)]
    pub(super) times: usize,
}

#[derive(Debug, Serialize, Deserialize, Subcommand)]
pub(crate) enum Smtp {
    /// Answer those that come to a step as Exchange Online does, or with a reply of your own.
    Answer {
        step: exchange::Step,
        #[command(flatten)]
        answer: SmtpAnswer,
        #[command(flatten)]
        whom: Whom,
    },
    /// Hang up on those that come to a step.
    Cut {
        step: exchange::Step,
        #[command(flatten)]
        whom: Whom,
    },
}

#[derive(Debug, Serialize, Deserialize, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct SmtpAnswer {
    /// One of Exchange's replies.
    #[arg(long)]
    kind: Option<SmtpKind>,
    /// A whole reply, for example "451 4.7.1 Later".
    #[arg(long)]
    text: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, ValueEnum)]
pub(crate) enum SmtpKind {
    TooManyConnections,
    SenderThreads,
    Unsuccessful,
    DisabledForTenant,
    DisabledForMailbox,
    PasswordsDisabled,
    PasswordsGone,
    NotAuthenticated,
    NotAsThisSender,
    SendAsDenied,
    QuotaExceeded,
    MailboxFull,
    TimedOut,
    HangsUpBusy,
    ServerBusy,
}

impl SmtpKind {
    fn reply(self) -> &'static str {
        match self {
            Self::TooManyConnections => answers::TOO_MANY_CONNECTIONS,
            Self::SenderThreads => answers::SENDER_THREADS,
            Self::Unsuccessful => answers::UNSUCCESSFUL,
            Self::DisabledForTenant => answers::DISABLED_FOR_TENANT,
            Self::DisabledForMailbox => answers::DISABLED_FOR_MAILBOX,
            Self::PasswordsDisabled => answers::PASSWORDS_DISABLED,
            Self::PasswordsGone => answers::PASSWORDS_GONE,
            Self::NotAuthenticated => answers::NOT_AUTHENTICATED,
            Self::NotAsThisSender => answers::NOT_AS_THIS_SENDER,
            Self::SendAsDenied => answers::SEND_AS_DENIED,
            Self::QuotaExceeded => answers::QUOTA_EXCEEDED,
            Self::MailboxFull => answers::MAILBOX_FULL,
            Self::TimedOut => answers::TIMED_OUT,
            Self::HangsUpBusy => answers::HANGS_UP_BUSY,
            Self::ServerBusy => answers::SERVER_BUSY,
        }
    }
}

#[derive(Debug, Serialize, Deserialize, Subcommand)]
pub(crate) enum Graph {
    /// Answer those that come to a step as Graph does.
    Answer {
        step: graph::Step,
        #[arg(long)]
        kind: GraphKind,
        #[command(flatten)]
        whom: Whom,
    },
    /// Break the connection off for those that come to a step.
    Cut {
        step: graph::Step,
        #[command(flatten)]
        whom: Whom,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, ValueEnum)]
pub(crate) enum GraphKind {
    InvalidToken,
    AccessDenied,
    SendAsDenied,
    NoMailbox,
    NoItem,
    RequestTooLarge,
    MailTooLarge,
    NoRecipients,
    /// With `Retry-After: 5`.
    Throttled,
    Unavailable,
}

impl GraphKind {
    fn answer(self) -> graph::Answer {
        const THROTTLED_SECONDS: u64 = 5;
        match self {
            Self::InvalidToken => graph::Answer::invalid_token("Access token has expired or is not yet valid."),
            Self::AccessDenied => graph::Answer::access_denied(),
            Self::SendAsDenied => graph::Answer::send_as_denied(),
            Self::NoMailbox => graph::Answer::no_mailbox(),
            Self::NoItem => graph::Answer::no_item(),
            Self::RequestTooLarge => graph::Answer::request_too_large(),
            Self::MailTooLarge => graph::Answer::mail_too_large(),
            Self::NoRecipients => graph::Answer::no_recipients(),
            Self::Throttled => graph::Answer::throttled(THROTTLED_SECONDS),
            Self::Unavailable => graph::Answer::unavailable(),
        }
    }
}

pub(crate) fn order_smtp(order: Smtp, testbed: &Testbed) -> anyhow::Result<()> {
    let exchange = testbed.running_exchange().context("nothing sends by SMTP: start it by `serve --smtp`")?;
    match order {
        Smtp::Answer { step, answer, whom } => {
            let text = answer.kind.map(|kind| kind.reply().to_owned()).or(answer.text).unwrap_or_default();
            exchange.answer(step, &whom.mailbox, whom.times, &text);
        }
        Smtp::Cut { step, whom } => exchange.cut(step, &whom.mailbox, whom.times),
    }
    Ok(())
}

pub(crate) fn order_graph(order: Graph, testbed: &Testbed) -> anyhow::Result<()> {
    let graph = testbed.running_graph().context("nothing sends by Graph: start it by `serve --graph`")?;
    match order {
        Graph::Answer { step, kind, whom } => graph.answer(step, &whom.mailbox, whom.times, kind.answer()),
        Graph::Cut { step, whom } => graph.cut(step, &whom.mailbox, whom.times),
    }
    Ok(())
}

/// Takes back every order.
pub(crate) fn mend(testbed: &Testbed) {
    if let Some(exchange) = testbed.running_exchange() {
        exchange.mend();
    }
    if let Some(graph) = testbed.running_graph() {
        graph.mend();
    }
}
