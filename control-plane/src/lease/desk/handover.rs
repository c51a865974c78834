//! How a mailbox changes hands: left out of the old owner's answers, let go by it, written, offered to the new owner.
//!
//! A mailbox that nobody may have, or that is no longer to be read, is taken from its owner in the same way.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::lease::Moment;

use super::session::Roster;
use super::{Assign, Assignment, Unassign};
use crate::lease::plan::Wanted;

/// How long an owner may take to let a mailbox go before it is given away regardless.
pub const DRAIN_MAX: Duration = Duration::from_secs(60);

/// Everything about mailboxes that is under way.
#[derive(Debug, Default)]
pub(super) struct Handovers {
    asked: HashMap<MailboxUid, Asked>,
    /// To whom; `None`: to nobody.
    writing: HashMap<MailboxUid, Option<SessionId>>,
    /// A write that may still arrive. The mailbox is offered to nobody until a further write settles it: either that
    /// one is committed, and the former's guard fails, or it meets the former's result.
    doubtful: HashSet<MailboxUid>,
    /// Who was asked to let something go since it was last told.
    nudged: BTreeSet<SessionId>,
    /// The plan changed its mind about a mailbox while a write for it was under way.
    missed: bool,
}

/// An owner that was asked to let go, by leaving the mailbox out of its answers.
#[derive(Debug)]
struct Asked {
    epoch: Epoch,
    /// Its latest heartbeat when it was asked. Only a later one can tell that it let go: the answer to this one may
    /// still be on its way and name the mailbox. Numbers instead of clocks, which a frozen process would break.
    known: u64,
    since: Moment,
    /// Nobody else may have it either, so nothing follows from its being let go.
    withheld: bool,
}

impl Handovers {
    /// True: the mailbox is in nobody's answer.
    pub(super) fn under_way(&self, mailbox: &MailboxUid) -> bool {
        self.asked.contains_key(mailbox) || self.writing.contains_key(mailbox) || self.doubtful.contains(mailbox)
    }

    /// True when a step follows from a mailbox's being let go.
    pub(super) fn awaits(&self, mailbox: &MailboxUid) -> bool {
        self.asked.get(mailbox).is_some_and(|asked| !asked.withheld)
    }

    /// True when nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.asked.is_empty() && self.writing.is_empty() && self.doubtful.is_empty()
    }

    /// Brings every mailbox a step closer to whom the plan wants for it, and those of `gone`, which are no longer to be
    /// read, a step closer to nobody.
    pub(super) fn advance<'a>(
        &mut self,
        now: Moment,
        wanted: impl Iterator<Item = (&'a MailboxUid, Wanted<'a>)>,
        gone: &[(MailboxUid, Assignment)],
        assignments: &HashMap<MailboxUid, Assignment>,
        sessions: &Roster,
    ) -> (Vec<Assign>, Vec<Unassign>) {
        let (mut assigns, mut unassigns) = (Vec::new(), Vec::new());
        self.missed = false;
        // What is wanted where it is is not asked for any more.
        let mut asked = std::mem::take(&mut self.asked);
        for (mailbox, wanted) in wanted {
            if let Some(to) = self.writing.get(mailbox) {
                self.missed |= to.as_ref() != wanted.session();
                continue;
            }
            let current = assignments.get(mailbox);
            let doubtful = self.doubtful.contains(mailbox);
            let Wanted::At { session: to, home, reason } = wanted else {
                // There is nothing to write: it is only kept from whoever has it.
                if let Some(current) = current.filter(|current| !doubtful && !sessions.is_over(&current.session)) {
                    self.ask(now, mailbox, current, asked.remove(mailbox), sessions);
                    if let Some(asked) = self.asked.get_mut(mailbox) {
                        asked.withheld = true;
                    }
                }
                continue;
            };
            let forced = match current {
                Some(current) if current.session == *to => {
                    if !doubtful || sessions.is_over(to) {
                        continue;
                    }
                    false
                }
                Some(current) if !doubtful && !sessions.is_over(&current.session) => {
                    match self.ask(now, mailbox, current, asked.remove(mailbox), sessions) {
                        Answer::Waiting => continue,
                        Answer::Released => false,
                        Answer::Overdue => true,
                    }
                }
                _ => false,
            };
            self.asked.remove(mailbox);
            self.writing.insert(mailbox.clone(), Some(to.clone()));
            let former = current.and_then(|current| sessions.worker(&current.session));
            assigns.push(Assign {
                mailbox: mailbox.clone(),
                expected: current.map(|current| current.epoch),
                to: to.clone(),
                home: home.map(Into::into),
                reason,
                former: former.map(Into::into),
                forced,
            });
        }
        for (mailbox, current) in gone {
            if self.writing.contains_key(mailbox) {
                continue;
            }
            if !self.doubtful.contains(mailbox)
                && !sessions.is_over(&current.session)
                && matches!(self.ask(now, mailbox, current, asked.remove(mailbox), sessions), Answer::Waiting)
            {
                continue;
            }
            self.asked.remove(mailbox);
            self.writing.insert(mailbox.clone(), None);
            unassigns.push(Unassign { mailbox: mailbox.clone(), expected: current.epoch });
        }
        (assigns, unassigns)
    }

    /// Leaves a mailbox out of its owner's answers, or goes on doing so, and tells how far the owner is.
    fn ask(
        &mut self,
        now: Moment,
        mailbox: &MailboxUid,
        current: &Assignment,
        before: Option<Asked>,
        sessions: &Roster,
    ) -> Answer {
        let before = before.filter(|asked| asked.epoch == current.epoch);
        let question = match before {
            Some(question) => question,
            None => {
                let Some(question) = Asked::now(now, current, sessions) else { return Answer::Waiting };
                self.nudged.insert(current.session.clone());
                question
            }
        };
        let answer = question.answer(now, mailbox, current, sessions);
        self.asked.insert(mailbox.clone(), Asked { withheld: false, ..question });
        answer
    }

    /// The sessions that were asked to let something go since this was last called.
    pub(super) fn take_nudged(&mut self) -> BTreeSet<SessionId> {
        std::mem::take(&mut self.nudged)
    }

    /// True when the plan changed its mind about a mailbox while a write for it was under way.
    pub(super) fn missed(&self) -> bool {
        self.missed
    }

    /// No write for the mailbox is under way any more.
    pub(super) fn settled(&mut self, mailbox: &MailboxUid) {
        self.writing.remove(mailbox);
    }

    /// As [`Handovers::settled`], but the write may still arrive.
    pub(super) fn doubtful(&mut self, mailbox: &MailboxUid) {
        self.settled(mailbox);
        self.doubtful.insert(mailbox.clone());
    }

    /// As [`Handovers::settled`], and no earlier write can arrive either.
    pub(super) fn certain(&mut self, mailbox: &MailboxUid) {
        self.settled(mailbox);
        self.doubtful.remove(mailbox);
    }

    /// When owners that were asked have had time enough.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Moment> {
        self.asked.values().map(|asked| asked.since + DRAIN_MAX)
    }
}

enum Answer {
    Released,
    Waiting,
    Overdue,
}

impl Asked {
    /// `None`: the owner cannot be asked, because this desk has not heard it yet or is ending it.
    fn now(now: Moment, current: &Assignment, sessions: &Roster) -> Option<Self> {
        let known = sessions.sequence(&current.session)?;
        Some(Self { epoch: current.epoch, known, since: now, withheld: false })
    }

    fn answer(&self, now: Moment, mailbox: &MailboxUid, current: &Assignment, sessions: &Roster) -> Answer {
        if sessions.sequence(&current.session).is_none() {
            Answer::Waiting
        } else if sessions.let_go(&current.session, mailbox, current.epoch, self.known) {
            Answer::Released
        } else if now >= self.since + DRAIN_MAX {
            Answer::Overdue
        } else {
            Answer::Waiting
        }
    }
}
