//! Who may begin to connect, and when. Pure: moments and draws in, moments out.
//!
//! Only whoever has room at host and tenant draws on the worker's allowance. So of a host that answers nobody at most
//! as many wait with a share of it as may connect there at once, and the others wait for that host alone.

use std::collections::{HashMap, VecDeque};

use postroom_proto::lease::Moment;

use super::bucket::Bucket;
use crate::config::Start;

/// What starts have in common that wait in one line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line {
    /// Host of the mail server.
    pub host: String,
    /// Authority that gives tokens, with its tenant. Empty: none, which has no limit.
    pub tenant: String,
}

/// The starts of a worker.
#[derive(Debug)]
pub struct Ramp {
    limits: Start,
    bucket: Bucket,
    hosts: HashMap<String, u32>,
    tenants: HashMap<String, u32>,
    lines: HashMap<Line, VecDeque<u64>>,
    next: u64,
}

impl Ramp {
    /// Nobody has begun.
    pub fn new(limits: Start) -> Self {
        let bucket = Bucket::new(limits.burst, limits.rate);
        Self { limits, bucket, hosts: HashMap::new(), tenants: HashMap::new(), lines: HashMap::new(), next: 0 }
    }

    /// Takes a place at the end of a line.
    pub fn ask(&mut self, line: Line) -> u64 {
        self.next += 1;
        self.lines.entry(line).or_default().push_back(self.next);
        self.next
    }

    /// Whose turn it is, and the moment from which on it may begin: of those that have room, the one that asked first.
    /// `draw`, from 0 to 1, spreads what comes after the burst. To be called until nobody is left who has room.
    pub fn admit(&mut self, now: Moment, draw: f64) -> Option<(u64, Moment)> {
        let first = |(line, waiting): (&Line, &VecDeque<u64>)| Some((*waiting.front()?, line.clone()));
        let with_room = self.lines.iter().filter(|(line, _)| self.has_room(line));
        let (id, line) = with_room.filter_map(first).min_by_key(|(id, _)| *id)?;
        let waiting = self.lines.get_mut(&line)?;
        waiting.pop_front();
        if waiting.is_empty() {
            self.lines.remove(&line);
        }
        *self.hosts.entry(line.host).or_default() += 1;
        *self.tenants.entry(line.tenant).or_default() += 1;
        let moment = self.bucket.take(now);
        let jitter = self.bucket.interval().mul_f64(draw.clamp(0.0, 1.0));
        Some((id, if moment > now { moment + jitter } else { moment }))
    }

    /// It has connected, failed, or given up before its turn. `used`: it has reached a server.
    pub fn leave(&mut self, line: &Line, id: u64, used: bool) {
        if let Some(waiting) = self.lines.get_mut(line)
            && let Some(place) = waiting.iter().position(|other| *other == id)
        {
            waiting.remove(place);
            if waiting.is_empty() {
                self.lines.remove(line);
            }
            return;
        }
        free(&mut self.hosts, &line.host);
        free(&mut self.tenants, &line.tenant);
        if !used {
            self.bucket.put_back();
        }
    }

    fn has_room(&self, line: &Line) -> bool {
        let taken = |places: &HashMap<String, u32>, name: &str| places.get(name).copied().unwrap_or(0);
        taken(&self.hosts, &line.host) < self.limits.per_host
            && (line.tenant.is_empty() || taken(&self.tenants, &line.tenant) < self.limits.per_tenant)
    }
}

fn free(places: &mut HashMap<String, u32>, name: &str) {
    if let Some(taken) = places.get_mut(name) {
        *taken = taken.saturating_sub(1);
        if *taken == 0 {
            places.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(host: &str, tenant: &str) -> Line {
        Line { host: host.into(), tenant: tenant.into() }
    }

    fn ramp(burst: u32, per_host: u32, per_tenant: u32) -> Ramp {
        Ramp::new(Start { burst, rate: 10, per_host, per_tenant, spread: Duration::ZERO })
    }

    fn admitted(ramp: &mut Ramp, now: Moment) -> Vec<(u64, Moment)> {
        std::iter::from_fn(|| ramp.admit(now, 0.0)).collect()
    }

    const NOW: Moment = Duration::from_secs(100);

    #[test]
    fn those_without_room_draw_nothing_from_the_allowance() {
        let mut ramp = ramp(10, 2, 100);
        let dead: Vec<u64> = (0..1000).map(|_| ramp.ask(line("dead", ""))).collect();
        let alive: Vec<u64> = (0..2).map(|_| ramp.ask(line("alive", ""))).collect();
        let turns = admitted(&mut ramp, NOW);
        assert_eq!(turns, [dead[0], dead[1], alive[0], alive[1]].map(|id| (id, NOW)), "in the order of asking");
        // The dead host keeps its two places; the other goes on as if it were alone.
        for id in alive {
            ramp.leave(&line("alive", ""), id, true);
        }
        for _ in 0..6 {
            let id = ramp.ask(line("alive", ""));
            assert_eq!(admitted(&mut ramp, NOW), [(id, NOW)]);
            ramp.leave(&line("alive", ""), id, true);
        }
        let late = ramp.ask(line("alive", ""));
        assert_eq!(admitted(&mut ramp, NOW), [(late, NOW + Duration::from_millis(100))], "the burst of 10 is over");
    }

    #[test]
    fn a_host_that_refuses_at_once_uses_nothing_up() {
        let mut ramp = ramp(3, 1, 100);
        for _ in 0..1000 {
            let id = ramp.ask(line("refusing", ""));
            assert_eq!(admitted(&mut ramp, NOW), [(id, NOW)]);
            ramp.leave(&line("refusing", ""), id, false);
        }
        let id = ramp.ask(line("alive", ""));
        assert_eq!(admitted(&mut ramp, NOW), [(id, NOW)]);
    }

    #[test]
    fn a_tenant_has_its_own_limit_whatever_host_it_is_at() {
        let mut ramp = ramp(100, 3, 2);
        let slow: Vec<u64> = (0..5).map(|_| ramp.ask(line("exchange", "slow"))).collect();
        let quick: Vec<u64> = (0..5).map(|_| ramp.ask(line("exchange", "quick"))).collect();
        let turns: Vec<u64> = admitted(&mut ramp, NOW).into_iter().map(|(id, _)| id).collect();
        assert_eq!(turns, [slow[0], slow[1], quick[0]], "two of the slow tenant, and three at the host");
        ramp.leave(&line("exchange", "quick"), quick[0], true);
        assert_eq!(admitted(&mut ramp, NOW), [(quick[1], NOW)]);
        // Without a tenant only the host counts.
        for _ in 0..3 {
            ramp.ask(line("other", ""));
        }
        assert_eq!(admitted(&mut ramp, NOW).len(), 3);
    }

    #[test]
    fn who_gives_up_leaves_its_line() {
        let mut ramp = ramp(100, 1, 1);
        let (first, second, third) = (ramp.ask(line("a", "t")), ramp.ask(line("a", "t")), ramp.ask(line("a", "t")));
        assert_eq!(admitted(&mut ramp, NOW), [(first, NOW)]);
        ramp.leave(&line("a", "t"), second, false);
        assert!(admitted(&mut ramp, NOW).is_empty(), "the first is still there");
        ramp.leave(&line("a", "t"), first, true);
        assert_eq!(admitted(&mut ramp, NOW), [(third, NOW)]);
        ramp.leave(&line("a", "t"), third, true);
        assert!(ramp.hosts.is_empty() && ramp.tenants.is_empty() && ramp.lines.is_empty(), "nothing is kept");
    }

    #[test]
    fn what_comes_after_the_burst_is_spread() {
        let mut ramp = ramp(1, 10, 10);
        for _ in 0..3 {
            ramp.ask(line("a", ""));
        }
        let moments: Vec<_> = std::iter::from_fn(|| ramp.admit(NOW, 0.5)).map(|(_, moment)| moment - NOW).collect();
        assert_eq!(moments, [0, 150, 250].map(Duration::from_millis));
    }
}
