//! Which errand waits for which session, and how far each has come. Pure: values and `now` in, values out.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use postroom_proto::convert::to_duration;
use postroom_proto::id::SessionId;
use postroom_proto::lease::Moment;
use postroom_proto::v1;

/// Most errands of one session at one time, waiting and under way.
pub const MOST_OF_A_SESSION: usize = 64;
/// Most errands that a session takes at once.
pub const MOST_AT_ONCE: usize = 16;
/// A session that has not asked for errands for this time is not counted on: longer than its longest wait.
const SILENCE: Duration = Duration::from_secs(45);

/// Too many errands for one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Why a report of an errand is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody waits for it any more, or it is another session's.
    Over,
    /// The one before it is missing.
    Gap,
}

/// What a report of an errand is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// To be handed on.
    News,
    /// It was taken before.
    Known,
}

#[derive(Debug)]
struct Entry {
    session: SessionId,
    errand: v1::Errand,
    until: Moment,
    taken: bool,
    /// Sequence of the report that comes next.
    next: u32,
}

/// The errands of a control plane.
#[derive(Debug, Default)]
pub struct Desk {
    /// In the order in which they were asked for.
    errands: BTreeMap<u64, Entry>,
    numbers: HashMap<String, u64>,
    asked: u64,
    heard: HashMap<SessionId, Moment>,
}

impl Desk {
    /// Puts an errand into the queue of a session. Its `id` must be one that nobody had before.
    pub fn ask(&mut self, session: &SessionId, errand: v1::Errand, until: Moment) -> Result<(), Full> {
        if self.load(session) >= MOST_OF_A_SESSION {
            return Err(Full);
        }
        self.asked += 1;
        self.numbers.insert(errand.id.clone(), self.asked);
        self.errands.insert(self.asked, Entry { session: session.clone(), errand, until, taken: false, next: 1 });
        Ok(())
    }

    /// Hands a session its oldest errands that nobody took yet, each with the time that is left.
    pub fn take(&mut self, now: Moment, session: &SessionId) -> Vec<v1::Errand> {
        self.hear(now, session);
        let waiting = self.errands.values_mut().filter(|entry| entry.session == *session && !entry.taken);
        let mut taken = Vec::new();
        for entry in waiting.filter(|entry| entry.until > now).take(MOST_AT_ONCE) {
            entry.taken = true;
            taken.push(v1::Errand { time_left: Some(to_duration(entry.until - now)), ..entry.errand.clone() });
        }
        taken
    }

    /// A session asks for errands.
    pub fn hear(&mut self, now: Moment, session: &SessionId) {
        self.heard.retain(|_, heard| *heard + SILENCE > now);
        self.heard.insert(session.clone(), now);
    }

    /// A session must not be given errands any more.
    pub fn forget(&mut self, session: &SessionId) {
        self.heard.remove(session);
    }

    /// The sessions that ask for errands, the least busy first.
    pub fn listening(&self, now: Moment) -> Vec<SessionId> {
        let heard = self.heard.iter().filter(|(_, heard)| **heard + SILENCE > now);
        let mut sessions: Vec<_> = heard.map(|(session, _)| (self.load(session), session.clone())).collect();
        sessions.sort();
        sessions.into_iter().map(|(_, session)| session).collect()
    }

    /// Takes a report of an errand; with `ended` nothing more is expected of it.
    pub fn report(&mut self, session: &SessionId, id: &str, sequence: u32, ended: bool) -> Result<Report, Refusal> {
        let number = *self.numbers.get(id).ok_or(Refusal::Over)?;
        let entry = self.errands.get_mut(&number).filter(|entry| entry.session == *session).ok_or(Refusal::Over)?;
        if sequence < entry.next {
            return Ok(Report::Known);
        }
        if sequence > entry.next {
            return Err(Refusal::Gap);
        }
        entry.next += 1;
        if ended {
            self.end(id);
        }
        Ok(Report::News)
    }

    /// Nobody waits for an errand any more.
    pub fn end(&mut self, id: &str) {
        if let Some(number) = self.numbers.remove(id) {
            self.errands.remove(&number);
        }
    }

    fn load(&self, session: &SessionId) -> usize {
        self.errands.values().filter(|entry| entry.session == *session).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_secs(100);
    const LATER: Moment = Moment::from_secs(130);

    fn session(name: &str) -> SessionId {
        SessionId::parse(name).unwrap()
    }

    fn errand(id: &str) -> v1::Errand {
        v1::Errand { id: id.into(), ..v1::Errand::default() }
    }

    fn ids(errands: &[v1::Errand]) -> Vec<&str> {
        errands.iter().map(|errand| errand.id.as_str()).collect()
    }

    #[test]
    fn a_session_takes_its_own_errands_once_and_in_their_order() {
        let (mut desk, a, b) = (Desk::default(), session("a"), session("b"));
        for id in ["3", "1", "2"] {
            desk.ask(&a, errand(id), LATER).unwrap();
        }
        assert_eq!(desk.take(NOW, &b), []);
        let taken = desk.take(NOW, &a);
        assert_eq!(ids(&taken), ["3", "1", "2"]);
        assert_eq!(taken[0].time_left, Some(to_duration(LATER - NOW)));
        assert_eq!(desk.take(NOW, &a), []);
    }

    #[test]
    fn a_report_is_handed_on_once_and_only_from_the_session_that_has_the_errand() {
        let (mut desk, a, b) = (Desk::default(), session("a"), session("b"));
        desk.ask(&a, errand("1"), LATER).unwrap();
        desk.take(NOW, &a);
        assert_eq!(desk.report(&b, "1", 1, false), Err(Refusal::Over));
        assert_eq!(desk.report(&a, "1", 2, false), Err(Refusal::Gap));
        assert_eq!(desk.report(&a, "1", 1, false), Ok(Report::News));
        assert_eq!(desk.report(&a, "1", 1, false), Ok(Report::Known), "its answer was lost");
        assert_eq!(desk.report(&a, "1", 2, true), Ok(Report::News));
        assert_eq!(desk.report(&a, "1", 3, false), Err(Refusal::Over));
    }

    #[test]
    fn an_errand_that_nobody_waits_for_is_over() {
        let (mut desk, a) = (Desk::default(), session("a"));
        desk.ask(&a, errand("1"), LATER).unwrap();
        desk.ask(&a, errand("2"), NOW).unwrap();
        desk.end("1");
        desk.end("unknown");
        assert_eq!(desk.take(NOW, &a), [], "one is over, of the other no time is left");
        assert_eq!(desk.report(&a, "1", 1, false), Err(Refusal::Over));
    }

    #[test]
    fn a_session_has_only_so_many_errands_at_one_time() {
        let (mut desk, a) = (Desk::default(), session("a"));
        for id in 0..MOST_OF_A_SESSION {
            desk.ask(&a, errand(&id.to_string()), LATER).unwrap();
        }
        assert_eq!(desk.ask(&a, errand("more"), LATER), Err(Full));
        assert_eq!(desk.take(NOW, &a).len(), MOST_AT_ONCE);
        assert_eq!(desk.ask(&a, errand("more"), LATER), Err(Full), "those under way count");
        desk.end("0");
        assert_eq!(desk.ask(&a, errand("more"), LATER), Ok(()));
    }

    #[test]
    fn the_least_busy_session_that_still_asks_comes_first() {
        let (mut desk, a, b, c) = (Desk::default(), session("a"), session("b"), session("c"));
        desk.hear(Moment::ZERO, &c);
        desk.hear(NOW, &a);
        desk.hear(NOW, &b);
        assert_eq!(desk.listening(NOW), [a.clone(), b.clone()], "c has gone silent");
        desk.ask(&a, errand("1"), LATER).unwrap();
        assert_eq!(desk.listening(NOW), [b.clone(), a.clone()]);
        desk.forget(&b);
        assert_eq!(desk.listening(NOW), [a]);
    }
}
