//! Who should hold what. Pure: the same input gives the same plan, and planning a plan that was carried out changes
//! nothing. Ties go to the worker whose name comes first and to the mailbox that the caller names first.
//!
//! The rules, in their order:
//! 1. Who has a mailbox keeps it, unless a newer session of the same worker name lives: that one takes it over.
//! 2. The mailboxes of an ended session go to its worker's name, or wait a while for it when it said it would return.
//! 3. What nobody has goes, heaviest first, to the least loaded.
//! 4. Who carries less than 90 % of the mean is lifted by the most loaded, as long as the giver stays above.
//!
//! Cost: O((mailboxes + workers) log) plus the voluntary moves, each of them logarithmic as a rule.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use postroom_proto::id::{MailboxUid, SessionId};
use postroom_proto::lease::Moment;

use crate::store::Revision;

/// A mailbox that is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Which one.
    pub uid: MailboxUid,
    /// How much work it is, compared with others. Zero counts as one.
    pub weight: u32,
}

/// A session as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// The session.
    pub session: SessionId,
    /// The stable name of the worker.
    pub name: String,
    /// Revision that wrote the session's record: of two sessions of a name the higher one is the newer.
    pub born: Revision,
    /// What may be done with it.
    pub state: State,
}

/// What the planner may do with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It lives and may be given mailboxes.
    Taking,
    /// It keeps what it has and is given nothing: it drains itself, or this leader does not know yet whether it lives.
    Keeping,
    /// It has ended. Its seats are kept for its name until then.
    Ended {
        /// `None`: they are free at once.
        seats_until: Option<Moment>,
    },
}

/// The session that should hold each of `mailboxes`, in their order. `None`: nobody can take it.
///
/// `seat` tells which session has a mailbox now. A wanted session that has ended means that its seat is kept warm.
pub fn plan<'w, 's>(
    now: Moment,
    mailboxes: &[Mailbox],
    workers: &'w [Worker],
    seat: impl Fn(&MailboxUid) -> Option<&'s SessionId>,
) -> Vec<Option<&'w SessionId>> {
    let index: HashMap<&SessionId, usize> =
        workers.iter().enumerate().map(|(i, worker)| (&worker.session, i)).collect();
    let newest = newest_of_each_name(workers);
    let (mut wanted, orphans) = stay(now, mailboxes, workers, &newest, |uid| index.get(seat(uid)?).copied());
    let mut targets: Vec<usize> = newest.into_values().collect();
    targets.sort_unstable_by_key(|&target| &workers[target].name);
    if !targets.is_empty() {
        let mut balance = Balance::new(mailboxes, targets, workers.len(), &wanted);
        balance.spread(orphans, &mut wanted);
        balance.lift(&mut wanted);
    }
    wanted.into_iter().map(|worker| worker.map(|worker| &workers[worker].session)).collect()
}

/// Of each name the newest session that may be given mailboxes.
fn newest_of_each_name(workers: &[Worker]) -> HashMap<&str, usize> {
    let mut newest: HashMap<&str, usize> = HashMap::new();
    for (i, worker) in workers.iter().enumerate().filter(|(_, worker)| worker.state == State::Taking) {
        let known = newest.entry(&worker.name).or_insert(i);
        if age(worker) > age(&workers[*known]) {
            *known = i;
        }
    }
    newest
}

fn age(worker: &Worker) -> (Revision, &SessionId) {
    (worker.born, &worker.session)
}

/// Rules 1 and 2. Answers who keeps or inherits what, and the mailboxes that are left over.
fn stay(
    now: Moment,
    mailboxes: &[Mailbox],
    workers: &[Worker],
    newest: &HashMap<&str, usize>,
    seat: impl Fn(&MailboxUid) -> Option<usize>,
) -> (Vec<Option<usize>>, Vec<usize>) {
    let mut orphans = Vec::new();
    let wanted = mailboxes.iter().enumerate().map(|(i, mailbox)| {
        let keeper = seat(&mailbox.uid).and_then(|owner| {
            let worker = &workers[owner];
            let successor = newest.get(worker.name.as_str()).copied();
            match worker.state {
                State::Taking | State::Keeping => {
                    Some(successor.filter(|&other| age(&workers[other]) > age(worker)).unwrap_or(owner))
                }
                State::Ended { seats_until } => successor.or((seats_until > Some(now)).then_some(owner)),
            }
        });
        if keeper.is_none() {
            orphans.push(i);
        }
        keeper
    });
    (wanted.collect(), orphans)
}

/// The loads of the workers that may be given mailboxes. A place is a worker's position in the order of the names.
struct Balance<'a> {
    mailboxes: &'a [Mailbox],
    targets: Vec<usize>,
    /// Place of each worker; `None` when it may not be given anything.
    places: Vec<Option<usize>>,
    loads: Vec<u64>,
}

impl<'a> Balance<'a> {
    fn new(mailboxes: &'a [Mailbox], targets: Vec<usize>, workers: usize, wanted: &[Option<usize>]) -> Self {
        let mut places = vec![None; workers];
        for (place, &target) in targets.iter().enumerate() {
            places[target] = Some(place);
        }
        let mut loads = vec![0; targets.len()];
        for (mailbox, owner) in mailboxes.iter().zip(wanted) {
            if let Some(place) = owner.and_then(|owner| places[owner]) {
                loads[place] += weight(mailbox);
            }
        }
        Self { mailboxes, targets, places, loads }
    }

    /// Rule 3.
    fn spread(&mut self, mut orphans: Vec<usize>, wanted: &mut [Option<usize>]) {
        orphans.sort_unstable_by_key(|&i| (Reverse(weight(&self.mailboxes[i])), i));
        let mut lightest: BinaryHeap<_> =
            self.loads.iter().enumerate().map(|(place, &load)| Reverse((load, place))).collect();
        for i in orphans {
            if let Some(mut top) = lightest.peek_mut() {
                let Reverse((load, place)) = &mut *top;
                *load += weight(&self.mailboxes[i]);
                self.loads[*place] = *load;
                wanted[i] = Some(self.targets[*place]);
            }
        }
    }

    /// Rule 4. Every move brings two loads closer together, so it ends.
    fn lift(&mut self, wanted: &mut [Option<usize>]) {
        let total: u64 = self.loads.iter().sum();
        let floor = (9 * total).div_ceil(10 * self.loads.len() as u64);
        let mut order: BTreeSet<(u64, usize)> = self.loads.iter().enumerate().map(|(p, &load)| (load, p)).collect();
        if order.first().is_none_or(|&(lowest, _)| lowest >= floor) {
            return;
        }
        let mut carried: Vec<BTreeSet<(u64, usize)>> = vec![BTreeSet::new(); self.loads.len()];
        for (i, owner) in wanted.iter().enumerate() {
            if let Some(place) = owner.and_then(|owner| self.places[owner]) {
                carried[place].insert((weight(&self.mailboxes[i]), i));
            }
        }
        while let Some(&(low, taker)) = order.first().filter(|&&(low, _)| low < floor) {
            let mut donors = order.iter().rev().take_while(|&&(high, _)| high > floor && high - low > 1);
            let gift = donors.find_map(|&(high, giver)| {
                let most = (high - floor).min((high - low) / 2);
                Some((high, giver, *carried[giver].range(..(most + 1, 0)).next_back()?))
            });
            let Some((high, giver, gift)) = gift else { return };
            carried[giver].remove(&gift);
            carried[taker].insert(gift);
            order.remove(&(high, giver));
            order.remove(&(low, taker));
            order.insert((high - gift.0, giver));
            order.insert((low + gift.0, taker));
            wanted[gift.1] = Some(self.targets[taker]);
        }
    }
}

fn weight(mailbox: &Mailbox) -> u64 {
    u64::from(mailbox.weight.max(1))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const NOW: Moment = Duration::from_secs(100);

    fn id(text: &str) -> SessionId {
        SessionId::parse(text).unwrap()
    }

    fn mailbox(number: usize, weight: u32) -> Mailbox {
        Mailbox { uid: MailboxUid::parse(&format!("mbx-{number:024x}")).unwrap(), weight }
    }

    fn worker(session: &str, name: &str, born: u64, state: State) -> Worker {
        Worker { session: id(session), name: name.into(), born: Revision(born), state }
    }

    /// Plans for mailboxes of weight 1 whose seats are named in order; an empty name is no seat.
    fn wanted(workers: &[Worker], seats: &[&str]) -> Vec<Option<String>> {
        let mailboxes: Vec<_> = (0..seats.len()).map(|i| mailbox(i, 1)).collect();
        let seats: HashMap<_, _> = mailboxes
            .iter()
            .zip(seats)
            .filter(|(_, seat)| !seat.is_empty())
            .map(|(mailbox, seat)| (mailbox.uid.clone(), id(seat)))
            .collect();
        let plan = plan(NOW, &mailboxes, workers, |uid| seats.get(uid));
        plan.into_iter().map(|session| session.map(SessionId::to_string)).collect()
    }

    fn all(session: &str, count: usize) -> Vec<Option<String>> {
        vec![Some(session.into()); count]
    }

    #[test]
    fn without_workers_nothing_is_wanted() {
        assert_eq!(wanted(&[], &["", "gone"]), [None, None]);
    }

    #[test]
    fn the_newest_session_of_a_name_inherits() {
        let workers = [worker("old", "w", 1, State::Taking), worker("new", "w", 2, State::Taking)];
        assert_eq!(wanted(&workers, &["old", "new", ""]), all("new", 3));
    }

    #[test]
    fn an_older_session_does_not_take_from_a_newer_one_that_drains() {
        let workers = [worker("old", "w", 1, State::Taking), worker("new", "w", 2, State::Keeping)];
        assert_eq!(wanted(&workers, &["new"]), all("new", 1));
    }

    #[test]
    fn seats_of_the_ended_go_to_their_name_first() {
        let workers = [
            worker("a1", "a", 1, State::Ended { seats_until: None }),
            worker("a2", "a", 2, State::Taking),
            worker("b1", "b", 3, State::Taking),
        ];
        assert_eq!(wanted(&workers, &["a1", "b1"]), [Some("a2".into()), Some("b1".into())]);
    }

    #[test]
    fn seats_are_kept_warm_until_the_time_is_over() {
        let seats_until = Some(NOW + Duration::from_nanos(1));
        let other = worker("b1", "b", 2, State::Taking);
        let left = worker("a1", "a", 1, State::Ended { seats_until });
        assert_eq!(wanted(&[left, other.clone()], &["a1"]), all("a1", 1));
        let left = worker("a1", "a", 1, State::Ended { seats_until: Some(NOW) });
        assert_eq!(wanted(&[left, other], &["a1"]), all("b1", 1));
    }

    #[test]
    fn a_worker_that_joins_is_lifted_and_nobody_falls_below() {
        let workers = [
            worker("a1", "a", 1, State::Taking),
            worker("b1", "b", 2, State::Taking),
            worker("c1", "c", 3, State::Taking),
        ];
        let seats: Vec<_> = (0..30).map(|i| if i % 2 == 0 { "a1" } else { "b1" }).collect();
        let plan = wanted(&workers, &seats);
        let load = |session: &str| plan.iter().filter(|wanted| wanted.as_deref() == Some(session)).count();
        assert_eq!((load("a1"), load("b1"), load("c1")), (11, 10, 9));
    }

    #[test]
    fn one_heavy_mailbox_is_not_passed_around() {
        let workers = [worker("a1", "a", 1, State::Taking), worker("b1", "b", 2, State::Taking)];
        let mailboxes = [mailbox(0, 100), mailbox(1, 1)];
        let a = id("a1");
        let plan = plan(NOW, &mailboxes, &workers, |_| Some(&a));
        assert_eq!(plan, [Some(&workers[0].session), Some(&workers[1].session)]);
    }

    fn any_worker() -> impl Strategy<Value = (u8, u64, State)> {
        let state = prop_oneof![
            4 => Just(State::Taking),
            1 => Just(State::Keeping),
            1 => Just(State::Ended { seats_until: None }),
            1 => Just(State::Ended { seats_until: Some(NOW + Duration::from_secs(1)) }),
        ];
        (0u8..6, 0u64..1000, state)
    }

    prop_compose! {
        fn any_fleet()(
            workers in prop::collection::vec(any_worker(), 0..12),
            mailboxes in prop::collection::vec((0u32..50, prop::option::of(0usize..14)), 0..80),
        ) -> (Vec<Worker>, Vec<Mailbox>, HashMap<MailboxUid, SessionId>) {
            let workers: Vec<_> = workers
                .into_iter()
                .enumerate()
                .map(|(i, (name, born, state))| worker(&format!("s{i}"), &format!("w{name}"), born, state))
                .collect();
            let seats = mailboxes
                .iter()
                .enumerate()
                .filter_map(|(i, (_, seat))| Some((mailbox(i, 1).uid, id(&format!("s{}", (*seat)?)))))
                .collect();
            let mailboxes = mailboxes.into_iter().enumerate().map(|(i, (weight, _))| mailbox(i, weight)).collect();
            (workers, mailboxes, seats)
        }
    }

    proptest! {
        #[test]
        fn planning_a_plan_again_changes_nothing((workers, mailboxes, seats) in any_fleet()) {
            let first = plan(NOW, &mailboxes, &workers, |uid| seats.get(uid));
            let seated: HashMap<_, _> =
                mailboxes.iter().zip(&first).map(|(mailbox, wanted)| (mailbox.uid.clone(), *wanted)).collect();
            let again = plan(NOW, &mailboxes, &workers, |uid| seated[uid]);
            prop_assert_eq!(first, again);
        }

        #[test]
        fn only_those_who_may_take_are_given_anything((workers, mailboxes, seats) in any_fleet()) {
            let plan = plan(NOW, &mailboxes, &workers, |uid| seats.get(uid));
            let taking = workers.iter().any(|worker| worker.state == State::Taking);
            for (mailbox, wanted) in mailboxes.iter().zip(plan) {
                prop_assert!(wanted.is_some() || !taking);
                let Some(wanted) = wanted.filter(|wanted| seats.get(&mailbox.uid) != Some(wanted)) else { continue };
                let worker = workers.iter().find(|worker| worker.session == *wanted).unwrap();
                prop_assert_eq!(worker.state, State::Taking);
                let newer = |other: &&Worker| {
                    other.state == State::Taking && other.name == worker.name && age(other) > age(worker)
                };
                prop_assert!(!workers.iter().any(|other| newer(&other)));
            }
        }

        #[test]
        fn the_order_of_the_workers_does_not_matter((workers, mailboxes, seats) in any_fleet()) {
            let reversed: Vec<_> = workers.iter().rev().cloned().collect();
            let seat = |uid: &MailboxUid| seats.get(uid);
            prop_assert_eq!(plan(NOW, &mailboxes, &workers, seat), plan(NOW, &mailboxes, &reversed, seat));
        }
    }
}
