//! The store as the leases use it: linearizable, guarded, all or nothing.

use std::collections::BTreeMap;

use postroom_control_plane::lease::desk::{Assign, Assignment, Decided, EndSession, Forget, Session, Unassign};
use postroom_control_plane::lease::profile::Profile;
use postroom_control_plane::store::Revision;
use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::lease::Moment;

#[derive(Debug, Default)]
pub(crate) struct Store {
    revision: u64,
    leader: Option<Leader>,
    /// Nobody is answered before this moment.
    stalled_until: Moment,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) assignments: BTreeMap<MailboxUid, Assignment>,
    /// What operators have decided.
    pub(crate) decided: Decided,
    /// Every change of an assignment, for those who watch.
    pub(crate) log: Vec<(MailboxUid, Option<Assignment>)>,
    /// The highest epoch of each mailbox, which outlives its assignment.
    epochs: BTreeMap<MailboxUid, Epoch>,
}

/// The leader's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) replica: usize,
    /// Revision that made it the leader.
    pub(crate) term: u64,
    expires: Moment,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Register { session: SessionId, profile: Profile },
    End(EndSession),
    Assign(Assign),
    Unassign(Unassign),
    Forget(Forget),
}

impl Store {
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn leader(&mut self, now: Moment) -> Option<Leader> {
        self.leader = self.leader.filter(|leader| now < leader.expires);
        self.leader
    }

    /// Creates the leader's key, which must not be there.
    pub(crate) fn elect(&mut self, replica: usize, expires: Moment) -> u64 {
        assert_eq!(self.leader, None);
        self.revision += 1;
        self.leader = Some(Leader { replica, term: self.revision, expires });
        self.revision
    }

    pub(crate) fn keep_alive(&mut self, expires: Moment) {
        if let Some(leader) = &mut self.leader {
            leader.expires = expires;
        }
    }

    pub(crate) fn depose(&mut self) {
        self.leader = None;
    }

    /// Answers nobody until then. `renewed`: the leader's key does not run out meanwhile, and has this time once more.
    pub(crate) fn stall(&mut self, now: Moment, until: Moment, renewed: Option<Moment>) {
        self.stalled_until = until.max(self.stalled_until);
        let until = self.stalled_until;
        if let (Some(_), Some(time), Some(leader)) = (self.leader(now), renewed, &mut self.leader) {
            leader.expires = leader.expires.max(until.saturating_add(time));
        }
    }

    /// When it answers again; `None`: it does.
    pub(crate) fn stalled_until(&self, now: Moment) -> Option<Moment> {
        Some(self.stalled_until).filter(|until| now < *until)
    }

    /// `None` for the term: not guarded by the leader's key.
    pub(crate) fn commit(&mut self, now: Moment, term: Option<u64>, ops: &[Op]) -> Option<Revision> {
        let leads = term.is_none_or(|term| self.leader(now).is_some_and(|leader| leader.term == term));
        if !leads || !ops.iter().all(|op| self.guard(op)) {
            return None;
        }
        self.revision += 1;
        let revision = Revision(self.revision);
        for op in ops {
            match op.clone() {
                Op::Register { session: id, profile } => {
                    self.sessions.insert(id.clone(), Session { id, profile, begun: None, ended: None, revision });
                }
                Op::End(EndSession { session, how, .. }) => {
                    let session = self.sessions.get_mut(&session).expect("guarded");
                    session.ended = Some(how);
                    session.revision = revision;
                }
                Op::Assign(Assign { mailbox, to, home, .. }) => {
                    let assignment = Assignment { session: to, epoch: Epoch(self.revision), home };
                    self.assignments.insert(mailbox.clone(), assignment.clone());
                    let former = self.epochs.insert(mailbox.clone(), assignment.epoch);
                    assert!(former.is_none_or(|former| former < assignment.epoch), "epochs only grow");
                    self.log.push((mailbox, Some(assignment)));
                }
                Op::Unassign(Unassign { mailbox, .. }) => {
                    self.assignments.remove(&mailbox);
                    self.log.push((mailbox, None));
                }
                Op::Forget(Forget { session, .. }) => {
                    self.sessions.remove(&session);
                }
            }
        }
        Some(revision)
    }

    fn epoch(&self, mailbox: &MailboxUid) -> Option<Epoch> {
        self.assignments.get(mailbox).map(|found| found.epoch)
    }

    fn guard(&self, op: &Op) -> bool {
        match op {
            Op::Register { session, .. } => !self.sessions.contains_key(session),
            Op::End(end) => self.sessions.get(&end.session).is_some_and(|session| session.revision == end.expected),
            Op::Assign(assign) => self.epoch(&assign.mailbox) == assign.expected,
            Op::Unassign(unassign) => self.epoch(&unassign.mailbox) == Some(unassign.expected),
            Op::Forget(Forget { session, expected }) => {
                self.sessions.get(session).is_some_and(|session| session.revision == *expected)
            }
        }
    }
}
