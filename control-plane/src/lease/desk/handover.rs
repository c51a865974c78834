//! How a mailbox changes hands: left out of the old owner's answers, let go by it, written, offered to the new owner.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postroom_proto::id::{Epoch, MailboxUid, SessionId};
use postroom_proto::lease::Moment;
use postroom_proto::v1::MoveReason;

use super::session::Roster;
use super::{Assign, Assignment};

/// How long an owner may take to let a mailbox go before it is given away regardless.
pub const DRAIN_MAX: Duration = Duration::from_secs(60);

/// Everything about mailboxes that is under way.
#[derive(Debug, Default)]
pub(super) struct Handovers {
    asked: BTreeMap<MailboxUid, Asked>,
    writing: BTreeSet<MailboxUid>,
    /// A write that may still arrive. The mailbox is offered to nobody until a further write settles it: either that
    /// one is committed, and the former's guard fails, or it meets the former's result.
    doubtful: BTreeSet<MailboxUid>,
}

/// An owner that was asked to let go, by leaving the mailbox out of its answers.
#[derive(Debug)]
struct Asked {
    epoch: Epoch,
    /// Its latest heartbeat when it was asked. Only a later one can tell that it let go: the answer to this one may
    /// still be on its way and name the mailbox. Numbers instead of clocks, which a frozen process would break.
    known: u64,
    since: Moment,
}

impl Handovers {
    /// True: the mailbox is in nobody's answer.
    pub(super) fn under_way(&self, mailbox: &MailboxUid) -> bool {
        self.asked.contains_key(mailbox) || self.writing.contains(mailbox) || self.doubtful.contains(mailbox)
    }

    /// Brings every mailbox a step closer to whom the plan wants for it.
    pub(super) fn advance<'a>(
        &mut self,
        now: Moment,
        wanted: impl Iterator<Item = (&'a MailboxUid, Option<&'a SessionId>)>,
        assignments: &BTreeMap<MailboxUid, Assignment>,
        sessions: &Roster,
    ) -> Vec<Assign> {
        let mut writes = Vec::new();
        // Mailboxes that are no longer to be read, or are wanted where they are, are not asked for any more.
        let mut asked = std::mem::take(&mut self.asked);
        for (mailbox, wanted) in wanted {
            let Some(wanted) = wanted.filter(|_| !self.writing.contains(mailbox)) else { continue };
            let current = assignments.get(mailbox);
            let forced = match current {
                Some(current) if current.session == *wanted => {
                    if !self.doubtful.contains(mailbox) || sessions.is_over(wanted) {
                        continue;
                    }
                    false
                }
                Some(current) if !self.doubtful.contains(mailbox) && !sessions.is_over(&current.session) => {
                    let question = asked.remove(mailbox).filter(|asked| asked.epoch == current.epoch);
                    let question = question.or_else(|| Asked::now(now, current, sessions));
                    let Some(question) = question else { continue };
                    match question.answer(now, mailbox, current, sessions) {
                        Answer::Released => false,
                        Answer::Overdue => true,
                        Answer::Waiting => {
                            self.asked.insert(mailbox.clone(), question);
                            continue;
                        }
                    }
                }
                _ => false,
            };
            self.writing.insert(mailbox.clone());
            let expected = current.map(|current| current.epoch);
            let reason = if current.is_none() { MoveReason::New } else { MoveReason::Unspecified };
            writes.push(Assign {
                mailbox: mailbox.clone(),
                expected,
                to: wanted.clone(),
                home: None,
                reason,
                former: None,
                forced,
            });
        }
        writes
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
        Some(Self { epoch: current.epoch, known, since: now })
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
