//! What a stand-in does in place of what it would do: orders that wait at the steps of a conversation for whoever comes by.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{error::Result, wait};

/// What happens to somebody who comes to a step.
#[derive(Clone, Debug)]
enum Act<A> {
    Answer(A),
    Cut,
    Stall(Arc<Gate>),
}

/// How somebody leaves a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Met<A> {
    /// As if nothing had been ordered.
    Nothing,
    /// He is to be answered this.
    Answer(A),
    /// His connection is to break off.
    Cut,
}

/// The orders of one stand-in, for its steps `S` and its answers `A`.
#[derive(Debug)]
pub(crate) struct Script<S, A> {
    orders: Mutex<Vec<Order<S, A>>>,
    /// How often an order was met, by mailbox in lower case.
    met: Mutex<HashMap<String, usize>>,
}

#[derive(Debug)]
struct Order<S, A> {
    step: S,
    /// In lower case; empty: whoever comes.
    mailbox: String,
    /// How many are still to meet it; none: everybody.
    left: Option<usize>,
    act: Act<A>,
}

#[derive(Debug)]
struct Gate {
    arrived: watch::Sender<usize>,
    /// Whether those who wait go on (true) or are cut off.
    open: watch::Sender<Option<bool>>,
}

/// Everybody who comes to a step waits there. Dropping it lets them go on, and holds no further ones.
#[derive(Debug)]
pub struct Stall {
    gate: Arc<Gate>,
}

impl<S: Copy + PartialEq + Debug, A: Clone> Script<S, A> {
    pub(crate) fn new() -> Self {
        Self { orders: Mutex::default(), met: Mutex::default() }
    }

    /// Answers the next `times` (0: all from now on) that come to `step` for `mailbox` (empty: for any).
    pub(crate) fn answer(&self, step: S, mailbox: &str, times: usize, answer: A) {
        self.order(step, mailbox, times, Act::Answer(answer));
    }

    /// Cuts them off.
    pub(crate) fn cut(&self, step: S, mailbox: &str, times: usize) {
        self.order(step, mailbox, times, Act::Cut);
    }

    /// Lets them wait.
    pub(crate) fn stall(&self, step: S, mailbox: &str, times: usize) -> Stall {
        let gate = Arc::new(Gate { arrived: watch::Sender::new(0), open: watch::Sender::new(None) });
        self.order(step, mailbox, times, Act::Stall(Arc::clone(&gate)));
        Stall { gate }
    }

    /// Takes back every order but the stalls, which their handles stand for.
    pub(crate) fn mend(&self) {
        self.orders().retain(|order| matches!(order.act, Act::Stall(_)));
    }

    /// The same for the orders of one mailbox.
    pub(crate) fn mend_for(&self, mailbox: &str) {
        let mailbox = mailbox.to_lowercase();
        self.orders().retain(|order| order.mailbox != mailbox || matches!(order.act, Act::Stall(_)));
    }

    /// How often somebody met an order at the mailbox.
    pub(crate) fn met(&self, mailbox: &str) -> usize {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.get(&mailbox.to_lowercase()).copied().unwrap_or_default()
    }

    /// Comes to a step, and waits where one has to.
    pub(crate) async fn meet(&self, step: S, mailbox: &str) -> Met<A> {
        match self.take(step, mailbox) {
            None => Met::Nothing,
            Some(Act::Answer(answer)) => Met::Answer(answer),
            Some(Act::Cut) => Met::Cut,
            Some(Act::Stall(gate)) => {
                gate.arrived.send_modify(|arrived| *arrived += 1);
                let mut open = gate.open.subscribe();
                // The sender is in the gate, which is held here.
                match open.wait_for(Option::is_some).await.ok().and_then(|open| *open) {
                    Some(false) => Met::Cut,
                    _ => Met::Nothing,
                }
            }
        }
    }

    fn order(&self, step: S, mailbox: &str, times: usize, act: Act<A>) {
        let left = (times > 0).then_some(times);
        self.orders().push(Order { step, mailbox: mailbox.to_lowercase(), left, act });
    }

    fn take(&self, step: S, mailbox: &str) -> Option<Act<A>> {
        let mut orders = self.orders();
        orders.retain(|order| match &order.act {
            Act::Stall(gate) => gate.open.borrow().is_none(),
            _ => true,
        });
        let mailbox = mailbox.to_lowercase();
        let fits = |order: &Order<S, A>| order.step == step && (order.mailbox.is_empty() || order.mailbox == mailbox);
        let place = orders.iter().position(fits)?;
        let act = orders[place].act.clone();
        *self.met.lock().unwrap_or_else(PoisonError::into_inner).entry(mailbox).or_default() += 1;
        if let Some(left) = &mut orders[place].left {
            *left -= 1;
            if *left == 0 {
                orders.remove(place);
            }
        }
        Some(act)
    }

    fn orders(&self) -> MutexGuard<'_, Vec<Order<S, A>>> {
        // Nothing panics while it is locked; poisoned orders would still be whole.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stall {
    /// Waits until `count` have come.
    pub async fn arrived(&self, count: usize) -> Result<()> {
        let what = format!("{count} to come to where they are to wait");
        wait::until(self.gate.arrived.subscribe(), |arrived| (*arrived >= count).then_some(()), what).await
    }

    /// How many have come.
    pub fn count(&self) -> usize {
        *self.gate.arrived.borrow()
    }

    /// Lets those who wait go on, and later ones too.
    pub fn release(&self) {
        self.open(true);
    }

    /// Cuts off those who wait; later ones go on.
    pub fn cut(&self) {
        self.open(false);
    }

    fn open(&self, go_on: bool) {
        self.gate.open.send_if_modified(|open| {
            let first = open.is_none();
            open.get_or_insert(go_on);
            first
        });
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Step {
        First,
        Second,
    }

    #[tokio::test]
    async fn orders_meet_whom_they_are_for_as_often_as_they_say() {
        let script: Script<Step, &str> = Script::new();
        script.answer(Step::First, "A@b.example", 2, "no");
        script.cut(Step::First, "", 1);
        script.answer(Step::Second, "", 0, "never");
        for (step, mailbox, expected) in [
            (Step::First, "c@b.example", Met::Cut),
            (Step::First, "c@b.example", Met::Nothing),
            (Step::First, "a@B.example", Met::Answer("no")),
            (Step::First, "a@b.example", Met::Answer("no")),
            (Step::First, "a@b.example", Met::Nothing),
            (Step::Second, "a@b.example", Met::Answer("never")),
            (Step::Second, "", Met::Answer("never")),
        ] {
            assert_eq!(script.meet(step, mailbox).await, expected, "{step:?} {mailbox}");
        }
        assert_eq!((script.met("A@B.example"), script.met("c@b.example"), script.met("d@b.example")), (3, 1, 0));
        script.answer(Step::First, "e@b.example", 0, "no");
        script.mend_for("E@b.example");
        assert_eq!(script.meet(Step::First, "e@b.example").await, Met::Nothing);
        assert_eq!(script.meet(Step::Second, "").await, Met::Answer("never"));
        script.mend();
        assert_eq!(script.meet(Step::Second, "").await, Met::Nothing);
    }

    #[tokio::test]
    async fn who_is_held_up_goes_on_or_is_cut_off() {
        let script = Arc::new(Script::<Step, &str>::new());
        let come = || {
            let script = Arc::clone(&script);
            tokio::spawn(async move { script.meet(Step::First, "").await })
        };
        let stall = script.stall(Step::First, "", 0);
        script.mend();
        let waiting = [come(), come()];
        stall.arrived(2).await.unwrap();
        stall.cut();
        for one in waiting {
            assert_eq!(one.await.unwrap(), Met::Cut);
        }
        assert_eq!((script.meet(Step::First, "").await, stall.count()), (Met::Nothing, 2));

        let stall = script.stall(Step::First, "", 1);
        let waiting = come();
        stall.arrived(1).await.unwrap();
        assert_eq!(script.meet(Step::First, "").await, Met::Nothing);
        drop(stall);
        assert_eq!(waiting.await.unwrap(), Met::Nothing);
    }
}
