//! What a leader could hear, recorded apart from its desk, and what must hold for those whom it ends for their silence.
//!
//! While most of the workers have just fallen silent, nobody is ended: it is likelier that the network failed. And
//! nobody is ended for silence that was the leader's: whoever runs and has been trying all the while is ended only after
//! time enough for two of its heartbeats in which the leader was awake and trusted, and did not hear it.

use std::collections::BTreeMap;
use std::ops::Range;

use postroom_control_plane::lease::desk::{BRAKE, EndSession, Heartbeat};
use postroom_proto::id::SessionId;
use postroom_proto::lease::{LeaseTerms, Moment};

use crate::world::World;

/// Up to so many may be silent at once.
const FEW: usize = 3;

/// One term of office.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    /// The sessions that live: number of the latest heartbeat, and when there was a sign of life.
    heard: BTreeMap<SessionId, (u64, Moment)>,
    /// When it slept or was not trusted.
    deaf: Vec<Range<Moment>>,
}

impl Attention {
    /// There is such a session, which may have been known before.
    pub(crate) fn meets(&mut self, now: Moment, session: &SessionId) {
        self.heard.entry(session.clone()).or_insert((0, now));
    }

    pub(crate) fn hears(&mut self, now: Moment, heartbeat: &Heartbeat) {
        if let Some((sequence, at)) = self.heard.get_mut(&heartbeat.session)
            && heartbeat.sequence > *sequence
        {
            (*sequence, *at) = (heartbeat.sequence, now);
        }
    }

    pub(crate) fn misses(&mut self, deaf: Range<Moment>) {
        self.deaf.push(deaf);
    }

    /// Time between two moments in which it could hear.
    fn could_hear(&self, since: Moment, now: Moment) -> Moment {
        let mut deaf = self.deaf.clone();
        deaf.sort_by_key(|deaf| deaf.start);
        let (mut time, mut from) = (Moment::ZERO, since);
        for Range { start, end } in deaf {
            time += start.min(now).saturating_sub(from);
            from = from.max(end);
        }
        time + now.saturating_sub(from)
    }

    /// True while more than half, and more than a few, fell silent within the last minute.
    fn mass_silence(&self, now: Moment, terms: LeaseTerms) -> bool {
        let silent = |(_, at): &&(u64, Moment)| now >= *at + terms.ttl / 2 && now < *at + BRAKE;
        let silent = self.heard.values().filter(silent).count();
        silent > FEW && silent * 2 > self.heard.len()
    }
}

/// A leader has decided these ends. Tells what is wrong with them.
pub(crate) fn judge(world: &World, attention: &mut Attention, ends: &[EndSession]) -> Option<String> {
    let (now, terms) = (world.now, world.terms);
    let mass = attention.mass_silence(now, terms);
    for end in ends {
        let Some((_, heard)) = attention.heard.remove(&end.session) else { continue };
        if !end.how.silent {
            continue;
        }
        let session = &end.session;
        if mass {
            return Some(format!("{session} is ended while most of the workers have just fallen silent"));
        }
        let tried = world.processes.iter().any(|process| process.tries(session, heard));
        let heard_for = attention.could_hear(heard, now);
        if tried && heard_for < terms.heartbeat.mul_f64(2.4) {
            let (silent, heard_for) = (now - heard, heard_for);
            return Some(format!(
                "{session} has been trying and is ended for {silent:?} of silence, of which its leader could hear \
                 {heard_for:?}"
            ));
        }
    }
    None
}
