//! Which calls are lost or held.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Answer, Loss};

#[derive(Debug, Default)]
pub(super) struct Rules {
    losses: Vec<Losses>,
    holds: Vec<Held>,
    next_hold: u64,
}

/// Where held calls wait, and what became of them.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) open: CancellationToken,
    pub(super) arrived: watch::Sender<usize>,
    pub(super) answers: watch::Sender<Vec<Answer>>,
}

#[derive(Debug)]
struct Losses {
    method: String,
    every: u64,
    loss: Loss,
    seen: u64,
}

#[derive(Debug)]
struct Held {
    id: u64,
    method: String,
    gate: Arc<Gate>,
}

/// What happens to one call.
#[derive(Debug, Default)]
pub(super) struct Fate {
    pub(super) gate: Option<Arc<Gate>>,
    pub(super) loss: Option<Loss>,
}

impl Rules {
    pub(super) fn lose(&mut self, method: &str, every: u64, loss: Loss) {
        self.losses.retain(|rule| rule.method != method);
        if every > 0 {
            self.losses.push(Losses { method: method.to_owned(), every, loss, seen: 0 });
        }
    }

    pub(super) fn hold(&mut self, method: &str) -> (u64, Arc<Gate>) {
        self.next_hold += 1;
        let gate = Arc::new(Gate {
            open: CancellationToken::new(),
            arrived: watch::Sender::new(0),
            answers: watch::Sender::new(Vec::new()),
        });
        self.holds.push(Held { id: self.next_hold, method: method.to_owned(), gate: Arc::clone(&gate) });
        (self.next_hold, gate)
    }

    pub(super) fn unhold(&mut self, id: u64) {
        self.holds.retain(|held| held.id != id);
    }

    /// Decides about a call of `path` that has just arrived.
    pub(super) fn decide(&mut self, path: &str) -> Fate {
        let mut fate = Fate::default();
        for rule in self.losses.iter_mut().filter(|rule| path.ends_with(&rule.method)) {
            rule.seen += 1;
            if rule.seen.is_multiple_of(rule.every) {
                fate.loss = Some(rule.loss);
            }
        }
        fate.gate = self.holds.iter().find(|held| path.ends_with(&held.method)).map(|held| Arc::clone(&held.gate));
        fate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_third_answer_is_lost_until_the_rule_ends() {
        let mut rules = Rules::default();
        rules.lose("/Report", 3, Loss::Unavailable);
        let lost = |rules: &mut Rules, path: &str| rules.decide(path).loss.is_some();
        let seen: Vec<bool> = (0..6).map(|_| lost(&mut rules, "/p.S/Report")).collect();
        assert_eq!(seen, [false, false, true, false, false, true]);
        assert!(!lost(&mut rules, "/p.S/ReportStatus"));
        rules.lose("/Report", 0, Loss::Unavailable);
        assert!((0..3).all(|_| !lost(&mut rules, "/p.S/Report")));
    }
}
