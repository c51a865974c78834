//! Orders for the front before the IMAP server.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use postroom_testbed::{
    Testbed,
    front::{Change, Step, answers},
};
use serde::{Deserialize, Serialize};

use super::sending::Whom;

/// How long the server asks to stay away.
const BACKOFF: Duration = Duration::from_secs(30);
/// A literal that no client may believe.
const HOSTILE_BYTES: u64 = 99_999_999_999;
/// A nesting that no parser may follow.
const HOSTILE_DEPTH: usize = 5000;

#[derive(Debug, Serialize, Deserialize, Subcommand)]
pub(crate) enum Imap {
    /// Answer those that come to a step as Exchange Online does, or with a line of your own.
    Answer {
        step: Step,
        #[command(flatten)]
        answer: ImapAnswer,
        #[command(flatten)]
        whom: Whom,
    },
    /// Change what the server answers.
    Change {
        kind: ChangeKind,
        /// UID of the message, the size, the UIDVALIDITY or the count, where the kind has one.
        #[arg(required_if_eq_any([
            ("kind", "sizes"), ("kind", "numbers"), ("kind", "no-data"), ("kind", "placeholder"),
            ("kind", "hostile-literal"), ("kind", "hostile-nesting"), ("kind", "refused-after"), ("kind", "uid-validity"),
        ]))]
        number: Option<u32>,
        #[command(flatten)]
        whom: Whom,
    },
    /// Hang up on those that come to a step.
    Cut {
        step: Step,
        #[command(flatten)]
        whom: Whom,
    },
    /// End the connections of a mailbox, whatever they are at.
    End {
        mailbox: String,
        #[arg(value_enum, default_value_t = Kind::TokenExpired)]
        kind: Kind,
    },
}

#[derive(Debug, Serialize, Deserialize, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ImapAnswer {
    /// One of Exchange's answers.
    #[arg(long)]
    kind: Option<Kind>,
    /// A whole line without a tag, for example "NO [INUSE] Later"; what begins with neither OK, NO nor BAD is the last that
    /// is said.
    #[arg(long)]
    text: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, ValueEnum)]
pub(crate) enum Kind {
    SignInRefused,
    NotConnected,
    TokenExpired,
    /// For 30 s.
    Throttled,
    Unavailable,
    UnavailableWithoutTag,
    ArgumentError,
    ConnectionClosed,
    ConnectionIsClosed,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, ValueEnum)]
pub(crate) enum ChangeKind {
    /// Mail is told of before IDLE begins.
    ExistsFirst,
    /// Every message has this size.
    Sizes,
    /// Sequence numbers are so much higher.
    Numbers,
    /// Of this message no data come.
    NoData,
    /// In place of this message comes Exchange's placeholder.
    Placeholder,
    /// The body of this message is said to have 99,999,999,999 bytes.
    HostileLiteral,
    /// The BODYSTRUCTURE of this message is 5,000 deep.
    HostileNesting,
    /// NO after so many messages of a fetch.
    RefusedAfter,
    /// The connection breaks in the middle of a message.
    BrokenLiteral,
    /// COPYUID without UIDs.
    EmptyCopyUid,
    /// The folder has this UIDVALIDITY.
    UidValidity,
    /// Response codes come without their OK.
    BareCodes,
}

impl Kind {
    fn text(self) -> String {
        match self {
            Self::SignInRefused => answers::SIGN_IN_REFUSED,
            Self::NotConnected => answers::NOT_CONNECTED,
            Self::TokenExpired => answers::TOKEN_EXPIRED,
            Self::Throttled => return answers::throttled("NO", BACKOFF),
            Self::Unavailable => answers::UNAVAILABLE,
            Self::UnavailableWithoutTag => answers::UNAVAILABLE_BARE,
            Self::ArgumentError => answers::ARGUMENT_ERROR,
            Self::ConnectionClosed => answers::CONNECTION_CLOSED,
            Self::ConnectionIsClosed => answers::CONNECTION_IS_CLOSED,
        }
        .to_owned()
    }
}

impl ChangeKind {
    /// The change, and the step whose answers it is about.
    fn change(self, number: u32) -> (Step, Change) {
        match self {
            Self::ExistsFirst => (Step::Idle, Change::ExistsFirst),
            Self::Sizes => (Step::Look, Change::Sizes(number.into())),
            Self::Numbers => (Step::Fetch, Change::Sequence(number)),
            Self::NoData => (Step::Fetch, Change::Without(number)),
            Self::Placeholder => (Step::Fetch, Change::Placeholder(number)),
            Self::HostileLiteral => (Step::Fetch, Change::Literal { uid: number, bytes: HOSTILE_BYTES }),
            Self::HostileNesting => (Step::Fetch, Change::Nesting { uid: number, depth: HOSTILE_DEPTH }),
            Self::RefusedAfter => {
                let status = answers::UNAVAILABLE.to_owned();
                (Step::Fetch, Change::RefusedAfter { messages: usize::try_from(number).unwrap_or(usize::MAX), status })
            }
            Self::BrokenLiteral => (Step::Fetch, Change::BrokenLiteral(String::new())),
            Self::EmptyCopyUid => (Step::Move, Change::EmptyCopyUid),
            Self::UidValidity => (Step::Open, Change::UidValidity(number)),
            Self::BareCodes => (Step::Open, Change::BareCodes),
        }
    }
}

pub(crate) fn order(order: Imap, testbed: &Testbed) -> anyhow::Result<()> {
    let front = testbed.running_front().context("nobody reads through a front: start it by `serve --exchange-imap`")?;
    match order {
        Imap::Answer { step, answer, whom } => {
            let text = answer.kind.map(Kind::text).or(answer.text).unwrap_or_default();
            front.answer(step, &whom.mailbox, whom.times, &text);
        }
        Imap::Change { kind, number, whom } => {
            let (step, change) = kind.change(number.unwrap_or_default());
            front.change(step, &whom.mailbox, whom.times, change);
        }
        Imap::Cut { step, whom } => front.cut(step, &whom.mailbox, whom.times),
        Imap::End { mailbox, kind } => {
            if front.end(&mailbox, &kind.text()) == 0 {
                bail!("nobody is signed in to {mailbox} through the front");
            }
        }
    }
    Ok(())
}

/// Takes back every order.
pub(crate) fn mend(testbed: &Testbed) {
    if let Some(front) = testbed.running_front() {
        front.mend();
    }
}
