//! What the mail server does wrong, drawn from a seed.

use std::collections::VecDeque;
use std::time::Duration;

use postroom_testbed::Stall;
use postroom_testbed::front::{Change, Front, Step, answers};
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

/// Connections that hang at one time, at most; the oldest goes on when another comes.
const STALLS: usize = 3;
/// Steps at which something can happen to a mailbox that is read.
const STEPS: [Step; 6] = [Step::Open, Step::Look, Step::Fetch, Step::Mark, Step::Idle, Step::Idling];

/// Draws faults, and lets those end that last.
pub(crate) struct Faults {
    dice: StdRng,
    stalls: VecDeque<Stall>,
}

impl Faults {
    pub(crate) fn new(dice: StdRng) -> Self {
        Self { dice, stalls: VecDeque::new() }
    }

    /// Something happens to one of these mailboxes. What, in words.
    pub(crate) fn draw(&mut self, front: &Front, mailboxes: &[String]) -> String {
        let dice = &mut self.dice;
        let mailbox = mailboxes.choose(dice).expect("a mailbox");
        let step = *STEPS.choose(dice).expect("a step");
        match dice.random_range(0..10) {
            0 | 1 => {
                let line = *[answers::TOKEN_EXPIRED, answers::CONNECTION_CLOSED, answers::CONNECTION_IS_CLOSED, ""]
                    .choose(dice)
                    .expect("a line");
                let ended = front.end(mailbox, line);
                format!("{mailbox}: {ended} connections end with {line:?}")
            }
            2 => {
                front.cut(step, mailbox, 1);
                format!("{mailbox}: cut at {step:?}")
            }
            3 => {
                if self.stalls.len() >= STALLS
                    && let Some(oldest) = self.stalls.pop_front()
                {
                    if dice.random_bool(0.5) { oldest.cut() } else { oldest.release() }
                }
                self.stalls.push_back(front.stall(step, mailbox, 1));
                format!("{mailbox}: hangs at {step:?}")
            }
            4 | 5 => {
                let backoff = Duration::from_millis(dice.random_range(100..2000));
                let step = if step == Step::Idling { Step::Idle } else { step };
                let text = match dice.random_range(0..4) {
                    0 => answers::throttled("NO", backoff),
                    1 => answers::throttled("BAD", backoff),
                    2 => answers::UNAVAILABLE.to_owned(),
                    _ => answers::UNAVAILABLE_BARE.to_owned(),
                };
                front.answer(step, mailbox, 1, &text);
                format!("{mailbox}: {text:?} at {step:?}")
            }
            _ => {
                let (step, change) = change(dice);
                let told = format!("{mailbox}: {change:?} at {step:?}");
                front.change(step, mailbox, 1, change);
                told
            }
        }
    }
}

/// An answer that is not what it should be. None of these makes a message another one.
fn change(dice: &mut StdRng) -> (Step, Change) {
    let noise = "* XFOO {3}\r\nabc {2}\r\nde\r\n* OK Still here\r\nwhat is this\r\n* 1 XBAR (1 (2))";
    match dice.random_range(0..9) {
        0 => (Step::Look, Change::Before(noise.to_owned())),
        1 => (Step::Fetch, Change::Before(noise.to_owned())),
        2 => (Step::Look, Change::Sizes(dice.random_range(0..40_000))),
        3 => (Step::Fetch, Change::Sequence(dice.random_range(1..1000))),
        4 => {
            let status = *[answers::UNAVAILABLE, answers::ARGUMENT_ERROR].choose(dice).expect("a status");
            let messages = dice.random_range(0..3);
            (Step::Fetch, Change::RefusedAfter { messages, status: status.to_owned() })
        }
        5 => {
            let last = *[answers::TOKEN_EXPIRED, answers::CONNECTION_CLOSED, ""].choose(dice).expect("a line");
            (Step::Fetch, Change::BrokenLiteral(last.to_owned()))
        }
        6 => (Step::Look, Change::BareCodes),
        7 => (Step::Open, Change::BareCodes),
        _ => (Step::Idle, Change::ExistsFirst),
    }
}
