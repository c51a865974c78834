//! What Exchange does, a mailbox each.

use std::time::Duration;

use postroom_proto::v1::Disposition;
use postroom_testbed::Stall;
use postroom_testbed::front::{Change, Front, Step, answers};

use super::BACKOFF;

/// Who reads a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// A worker with the usual times.
    Usual,
    /// The same worker, which moves what was read.
    Mover,
    /// A worker that does not endure a long silence.
    Impatient,
}

/// One mailbox and what happens to it.
#[derive(Debug)]
pub(super) struct Case {
    /// Its local part.
    pub(super) name: &'static str,
    /// What the front is ordered to do. A stall lasts until the end.
    pub(super) orders: fn(&Front, &str) -> Option<Stall>,
    /// Its connection is ended with this line, so that the orders are met by a new one.
    pub(super) ended: Option<&'static str>,
    /// How often an order is met at least before the mail after it comes.
    pub(super) met: usize,
    /// What becomes of the second of the messages that come meanwhile. Its UID is 3.
    pub(super) second: Disposition,
    /// Words of the reason that is shown when it does not become a contact.
    pub(super) reason: &'static str,
    /// What `mailbox show` must have told meanwhile.
    pub(super) shows: Option<&'static str>,
    /// So long nobody may come back.
    pub(super) backoff: Option<Duration>,
    /// Who reads it.
    pub(super) reader: Reader,
}

/// UID of the second message that comes meanwhile.
const SECOND: u32 = 3;

const USUAL: Case = Case {
    name: "",
    orders: |_, _| None,
    ended: None,
    met: 1,
    second: Disposition::Contact,
    reason: "",
    shows: None,
    backoff: None,
    reader: Reader::Usual,
};

/// Changes answers for ever.
fn always(front: &Front, mailbox: &str, step: Step, change: Change) -> Option<Stall> {
    front.change(step, mailbox, 0, change);
    None
}

/// Changes one answer.
fn once(front: &Front, mailbox: &str, step: Step, change: Change) -> Option<Stall> {
    front.change(step, mailbox, 1, change);
    None
}

/// Answers in place of the server.
fn says(front: &Front, mailbox: &str, step: Step, times: usize, text: &str) -> Option<Stall> {
    front.answer(step, mailbox, times, text);
    None
}

pub(super) static CASES: &[Case] = &[
    // Signing in and opening.
    Case {
        name: "sign-in-refused",
        orders: |front, mailbox| says(front, mailbox, Step::SignIn, 1, answers::SIGN_IN_REFUSED),
        ended: Some(answers::CONNECTION_IS_CLOSED),
        shows: Some("TOKEN_REFUSED"),
        ..USUAL
    },
    Case {
        name: "not-connected",
        orders: |front, mailbox| says(front, mailbox, Step::Open, 1, answers::NOT_CONNECTED),
        ended: Some(answers::CONNECTION_CLOSED),
        shows: Some("NOT_CONNECTED"),
        ..USUAL
    },
    Case {
        name: "throttled-at-opening",
        orders: |front, mailbox| says(front, mailbox, Step::Open, 1, &answers::throttled("NO", BACKOFF)),
        ended: Some(answers::CONNECTION_CLOSED),
        shows: Some("THROTTLED"),
        backoff: Some(BACKOFF),
        ..USUAL
    },
    Case {
        name: "bare-codes",
        orders: |front, mailbox| {
            let lines =
                "* XFOO {3}\r\nabc {2}\r\nde\r\n* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n* 1 XBAR (1 2)".to_owned();
            always(front, mailbox, Step::Look, Change::Before(lines));
            always(front, mailbox, Step::Open, Change::BareCodes)
        },
        ended: Some(answers::CONNECTION_IS_CLOSED),
        met: 2,
        ..USUAL
    },
    // The session ends, or the back end is ill.
    Case { name: "token-expired-at-rest", ended: Some(answers::TOKEN_EXPIRED), met: 0, ..USUAL },
    Case {
        name: "token-expired-in-a-command",
        orders: |front, mailbox| says(front, mailbox, Step::Fetch, 1, answers::TOKEN_EXPIRED),
        ..USUAL
    },
    Case {
        name: "token-expired-in-a-literal",
        orders: |front, mailbox| {
            once(front, mailbox, Step::Fetch, Change::BrokenLiteral(answers::TOKEN_EXPIRED.to_owned()))
        },
        ..USUAL
    },
    Case {
        name: "throttled-in-a-fetch",
        orders: |front, mailbox| says(front, mailbox, Step::Fetch, 1, &answers::throttled("BAD", BACKOFF)),
        shows: Some("THROTTLED"),
        backoff: Some(BACKOFF),
        ..USUAL
    },
    Case {
        name: "unavailable",
        orders: |front, mailbox| says(front, mailbox, Step::Fetch, 3, answers::UNAVAILABLE),
        met: 3,
        shows: Some("SERVER_UNAVAILABLE"),
        ..USUAL
    },
    Case {
        name: "unavailable-without-tag",
        orders: |front, mailbox| {
            always(front, mailbox, Step::Look, Change::Before(answers::UNAVAILABLE_BARE.to_owned()));
            says(front, mailbox, Step::Fetch, 1, answers::UNAVAILABLE_BARE)
        },
        met: 2,
        ..USUAL
    },
    Case {
        name: "cut-in-a-literal",
        orders: |front, mailbox| once(front, mailbox, Step::Fetch, Change::BrokenLiteral(String::new())),
        ..USUAL
    },
    Case {
        name: "cut-before-marking",
        orders: |front, mailbox| {
            front.cut(Step::Mark, mailbox, 1);
            None
        },
        ..USUAL
    },
    Case {
        name: "refused-half-way",
        orders: |front, mailbox| {
            let status = answers::UNAVAILABLE.to_owned();
            once(front, mailbox, Step::Fetch, Change::RefusedAfter { messages: 2, status })
        },
        ..USUAL
    },
    Case {
        name: "half-open-in-a-fetch",
        orders: |front, mailbox| Some(front.stall(Step::Fetch, mailbox, 1)),
        reader: Reader::Impatient,
        ..USUAL
    },
    Case {
        name: "half-open-in-idle",
        orders: |front, mailbox| Some(front.stall(Step::Idling, mailbox, 1)),
        reader: Reader::Impatient,
        ..USUAL
    },
    // Answers that are not what they should be.
    Case {
        name: "sizes-are-0",
        orders: |front, mailbox| always(front, mailbox, Step::Look, Change::Sizes(0)),
        ..USUAL
    },
    Case {
        name: "sizes-are-small",
        orders: |front, mailbox| always(front, mailbox, Step::Look, Change::Sizes(7)),
        ..USUAL
    },
    Case {
        name: "sizes-are-large",
        orders: |front, mailbox| always(front, mailbox, Step::Look, Change::Sizes(140_000)),
        ..USUAL
    },
    Case {
        name: "numbers-are-wrong",
        orders: |front, mailbox| {
            always(front, mailbox, Step::Look, Change::Sequence(5000));
            always(front, mailbox, Step::Fetch, Change::Sequence(70))
        },
        met: 2,
        ..USUAL
    },
    Case {
        name: "copy-uid-is-empty",
        orders: |front, mailbox| always(front, mailbox, Step::Move, Change::EmptyCopyUid),
        reader: Reader::Mover,
        ..USUAL
    },
    // Messages that cannot be had.
    Case {
        name: "a-message-without-data",
        orders: |front, mailbox| always(front, mailbox, Step::Fetch, Change::Without(SECOND)),
        second: Disposition::Quarantined,
        reason: "does not give it",
        ..USUAL
    },
    Case {
        name: "a-placeholder",
        orders: |front, mailbox| always(front, mailbox, Step::Fetch, Change::Placeholder(SECOND)),
        second: Disposition::Quarantined,
        reason: "placeholder",
        ..USUAL
    },
    Case {
        name: "a-hostile-literal",
        orders: |front, mailbox| {
            always(front, mailbox, Step::Fetch, Change::Literal { uid: SECOND, bytes: 99_999_999_999 })
        },
        second: Disposition::TooLarge,
        reason: "99999999999 bytes",
        ..USUAL
    },
    Case {
        name: "a-literal-far-larger-than-said",
        orders: |front, mailbox| always(front, mailbox, Step::Fetch, Change::Literal { uid: SECOND, bytes: 400_000 }),
        second: Disposition::TooLarge,
        reason: "400000 bytes",
        ..USUAL
    },
    Case {
        name: "hostile-nesting",
        orders: |front, mailbox| always(front, mailbox, Step::Fetch, Change::Nesting { uid: SECOND, depth: 5000 }),
        second: Disposition::Quarantined,
        reason: "parentheses",
        ..USUAL
    },
];
