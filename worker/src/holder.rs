//! What this worker may read, and until when. Pure: moments and answers in, actions out.
//!
//! Trust comes from answers to heartbeats and is counted from the moment the heartbeat was *sent*: the leader heard it
//! later than that, so it still waits when this side has stopped. One heartbeat is under way at a time; the answer to
//! one that was abandoned is dropped, since a later heartbeat may have told the leader that a mailbox was let go.
//!
//! When trust lapses the worker suspends: no report, no change to a mailbox, but connections stay open. The next answer
//! resumes what it names with the same epoch (nobody else had it meanwhile) and closes the rest.

use std::collections::BTreeMap;

use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::lease::{LeaseTerms, Moment};

#[cfg(test)]
mod tests;

/// What the rest of the worker must do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Register a session and say so with [`Holder::registered`].
    Register,
    /// Open the mailbox under this lease and read it.
    Open(Offer),
    /// What reading it depends on has changed: open it again under the same lease.
    Reopen(Offer),
    /// Begin nothing new, finish the report under way, log out, then call [`Holder::let_go`].
    Drain(MailboxUid, Epoch),
    /// Stop reading at once. It is let go already.
    Close(MailboxUid, Epoch),
    /// Trust has lapsed: report nothing and change nothing in any mailbox, but keep connections open.
    Suspend,
    /// Trust is back for every mailbox that is held.
    Resume,
}

/// A mailbox that the leader wants this worker to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Which one.
    pub mailbox: MailboxUid,
    /// Epoch of the lease.
    pub epoch: Epoch,
    /// Revision of what reading it depends on.
    pub definition_revision: u64,
}

/// Names a heartbeat. To be given back with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Counts the heartbeats of the session from 1.
    pub sequence: u64,
    /// When it was sent.
    pub sent: Moment,
}

/// A heartbeat to be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// To be given back.
    pub ticket: Ticket,
    /// Who speaks.
    pub session: SessionId,
    /// Term of the last answer taken; 0: none yet.
    pub term: u64,
    /// Everything that is held.
    pub held: Vec<Held>,
    /// The worker is stopping.
    pub draining: bool,
}

/// A mailbox that this worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which one.
    pub mailbox: MailboxUid,
    /// Epoch under which it is held.
    pub epoch: Epoch,
    /// It is being let go.
    pub draining: bool,
    /// Revision of the definition that it is read by, which only its task knows; 0: none yet.
    pub definition_revision: u64,
}

/// What the leader answers to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The leader's term of office.
    pub term: u64,
    /// The terms of leases from now on.
    pub terms: LeaseTerms,
    /// Everything that this session should hold.
    pub offers: Vec<Offer>,
}

/// What this worker holds.
#[derive(Debug)]
pub struct Holder {
    terms: LeaseTerms,
    session: Option<SessionId>,
    term: u64,
    holds: BTreeMap<MailboxUid, Hold>,
    /// Nothing may be written from this moment on.
    trusted_until: Moment,
    suspended: bool,
    stopping: bool,
    sequence: u64,
    last_sent: Option<Moment>,
    in_flight: Option<u64>,
    /// The leader should hear from us before the clock says so.
    urgent: bool,
}

#[derive(Debug)]
struct Hold {
    epoch: Epoch,
    definition_revision: u64,
    draining: bool,
}

impl Holder {
    /// A holder that begins by registering; the caller does that first.
    pub fn new(terms: LeaseTerms) -> Self {
        Self {
            terms,
            session: None,
            term: 0,
            holds: BTreeMap::new(),
            trusted_until: Moment::ZERO,
            suspended: false,
            stopping: false,
            sequence: 0,
            last_sent: None,
            in_flight: None,
            urgent: false,
        }
    }

    /// Begins a session. Nothing may be read before the first answer.
    pub fn registered(&mut self, session: SessionId, terms: LeaseTerms) {
        *self = Self { session: Some(session), stopping: self.stopping, ..Self::new(terms) };
    }

    /// The session, once registered.
    pub fn session(&self) -> Option<&SessionId> {
        self.session.as_ref()
    }

    /// When the next heartbeat is due. `None`: one is under way, or there is no session. `jitter` from -1 to 1 is drawn
    /// by the caller, once a heartbeat, and shifts it by up to 20 % of the interval.
    pub fn heartbeat_due(&self, jitter: f64) -> Option<Moment> {
        if self.session.is_none() || self.in_flight.is_some() {
            return None;
        }
        let Some(last) = self.last_sent else { return Some(Moment::ZERO) };
        // However much there is to tell, heartbeats keep a tenth of their distance.
        let share = if self.urgent { 0.1 } else { 1.0 + 0.2 * jitter.clamp(-1.0, 1.0) };
        Some(last + self.terms.heartbeat.mul_f64(share))
    }

    /// The heartbeat to be sent now; one that is still under way is abandoned. `None`: there is no session.
    pub fn heartbeat(&mut self, now: Moment) -> Option<Heartbeat> {
        let session = self.session.clone()?;
        self.sequence += 1;
        self.last_sent = Some(now);
        self.in_flight = Some(self.sequence);
        self.urgent = false;
        let ticket = Ticket { sequence: self.sequence, sent: now };
        let held = self.holds.iter().map(|(mailbox, hold)| Held {
            mailbox: mailbox.clone(),
            epoch: hold.epoch,
            draining: hold.draining,
            definition_revision: 0,
        });
        Some(Heartbeat { ticket, session, term: self.term, held: held.collect(), draining: self.stopping })
    }

    /// No answer came within [`LeaseTerms::heartbeat_timeout`], or an error that says nothing about the session.
    pub fn abandoned(&mut self, ticket: Ticket) {
        if self.in_flight == Some(ticket.sequence) {
            self.in_flight = None;
        }
    }

    /// The leader answered. An answer of an earlier term than one taken before is dropped: that leader was replaced and
    /// does not know it yet. When trust has lapsed as well, no replaced leader is left that could answer: the store went
    /// back, as by a restore, and this session is of a time that it knows nothing of. Then a new one begins.
    pub fn answered(&mut self, now: Moment, ticket: Ticket, answer: Answer) -> Vec<Action> {
        if self.in_flight != Some(ticket.sequence) {
            return Vec::new();
        }
        self.in_flight = None;
        let Answer { term, terms, offers } = answer;
        if term < self.term {
            return match self.session.clone().filter(|_| now >= self.trusted_until) {
                Some(session) => self.session_ended(&session),
                None => Vec::new(),
            };
        }
        self.term = term;
        self.terms = terms;
        let mut actions = self.tick(now);
        let trusted_until = self.trusted_until.max(ticket.sent + terms.trust());
        if now >= trusted_until {
            return actions;
        }
        self.trusted_until = trusted_until;
        let offers: BTreeMap<_, _> = offers.into_iter().map(|offer| (offer.mailbox.clone(), offer)).collect();
        self.withdraw(&offers, &mut actions);
        if std::mem::take(&mut self.suspended) {
            actions.push(Action::Resume);
        }
        if !self.stopping {
            self.take(offers, &mut actions);
        }
        actions
    }

    /// The control plane says that the session has ended: everything is closed, and a new session is needed. News of
    /// another session than the current one is ignored.
    pub fn session_ended(&mut self, session: &SessionId) -> Vec<Action> {
        if self.session.as_ref() != Some(session) {
            return Vec::new();
        }
        let holds = std::mem::take(&mut self.holds);
        let mut actions: Vec<_> = holds.into_iter().map(|(mailbox, hold)| Action::Close(mailbox, hold.epoch)).collect();
        *self = Self { stopping: self.stopping, ..Self::new(self.terms) };
        if !self.stopping {
            actions.push(Action::Register);
        }
        actions
    }

    /// The leader has something to say: the next heartbeat comes early.
    pub fn nudged(&mut self) {
        self.urgent = true;
    }

    /// A mailbox that was to be drained is closed.
    pub fn let_go(&mut self, mailbox: &MailboxUid, epoch: Epoch) {
        if self.holds.get(mailbox).is_some_and(|hold| hold.draining && hold.epoch == epoch) {
            self.holds.remove(mailbox);
            self.urgent = true;
        }
    }

    /// A call under this lease was refused because the lease is lost: the mailbox is let go at once. If it is ours
    /// after all, the next answer offers it again.
    pub fn lost(&mut self, mailbox: &MailboxUid, epoch: Epoch) -> Vec<Action> {
        if self.holds.get(mailbox).is_none_or(|hold| hold.epoch != epoch) {
            return Vec::new();
        }
        self.holds.remove(mailbox);
        self.urgent = true;
        vec![Action::Close(mailbox.clone(), epoch)]
    }

    /// The worker stops: everything is drained and nothing is taken any more. When [`Holder::is_empty`] says so, the
    /// session can be left.
    pub fn stop(&mut self) -> Vec<Action> {
        self.stopping = true;
        self.urgent = true;
        let mut actions = Vec::new();
        for (mailbox, hold) in self.holds.iter_mut().filter(|(_, hold)| !hold.draining) {
            hold.draining = true;
            actions.push(Action::Drain(mailbox.clone(), hold.epoch));
        }
        actions
    }

    /// To be called when [`Holder::trust_ends`] has come: suspends once trust has lapsed.
    pub fn tick(&mut self, now: Moment) -> Vec<Action> {
        if self.suspended || self.session.is_none() || self.holds.is_empty() || now < self.trusted_until {
            return Vec::new();
        }
        self.suspended = true;
        let mut actions = vec![Action::Suspend];
        // What is being drained has nothing left to wait for.
        self.holds.retain(|mailbox, hold| {
            if hold.draining {
                actions.push(Action::Close(mailbox.clone(), hold.epoch));
            }
            !hold.draining
        });
        actions
    }

    /// When trust lapses unless an answer comes. `None`: it has, or nothing depends on it.
    pub fn trust_ends(&self) -> Option<Moment> {
        (!self.suspended && !self.holds.is_empty()).then_some(self.trusted_until)
    }

    /// True while the leader's last word is young enough to rely on, whether or not anything is held.
    pub fn is_trusted(&self, now: Moment) -> bool {
        self.session.is_some() && now < self.trusted_until
    }

    /// True while a report may be made and the mailbox may be changed under this lease. To be asked right before each.
    pub fn may_write(&self, now: Moment, mailbox: &MailboxUid, epoch: Epoch) -> bool {
        now < self.trusted_until && self.holds(mailbox, epoch)
    }

    /// True when the mailbox is held under this lease, trusted or not.
    pub fn holds(&self, mailbox: &MailboxUid, epoch: Epoch) -> bool {
        self.holds.get(mailbox).is_some_and(|hold| hold.epoch == epoch)
    }

    /// Everything held, in the order of the uids.
    pub fn held(&self) -> impl Iterator<Item = (&MailboxUid, Epoch)> {
        self.holds.iter().map(|(mailbox, hold)| (mailbox, hold.epoch))
    }

    /// True when nothing is held.
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }

    /// Lets go of what is not offered any more, or only under a new epoch.
    fn withdraw(&mut self, offers: &BTreeMap<MailboxUid, Offer>, actions: &mut Vec<Action>) {
        let suspended = self.suspended;
        self.holds.retain(|mailbox, hold| {
            let kept = offers.get(mailbox).is_some_and(|offer| offer.epoch == hold.epoch);
            if kept || hold.draining {
                return true;
            }
            if suspended {
                actions.push(Action::Close(mailbox.clone(), hold.epoch));
                return false;
            }
            hold.draining = true;
            actions.push(Action::Drain(mailbox.clone(), hold.epoch));
            true
        });
    }

    /// Takes what is offered and not held.
    ///
    /// Ordering: what is still being drained is taken only from an answer that comes after it was let go. Until then
    /// our heartbeats do not list the new lease, so the leader may believe that we do not want it.
    fn take(&mut self, offers: BTreeMap<MailboxUid, Offer>, actions: &mut Vec<Action>) {
        for (mailbox, offer) in offers {
            match self.holds.get_mut(&mailbox) {
                Some(hold) if hold.draining || hold.definition_revision >= offer.definition_revision => {}
                Some(hold) => {
                    hold.definition_revision = offer.definition_revision;
                    actions.push(Action::Reopen(offer));
                }
                None => {
                    let Offer { epoch, definition_revision, .. } = offer;
                    self.holds.insert(mailbox, Hold { epoch, definition_revision, draining: false });
                    actions.push(Action::Open(offer));
                }
            }
        }
    }
}
