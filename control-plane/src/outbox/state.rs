//! Where a mail goes after whatever happens to it: an attempt that ends or lapses, what people decide (`decision`), and
//! what comes back (`bounce`). Pure.
//!
//! Invariant: what was marked and has no clear answer is UNKNOWN, and leaves that state only by a look among sent mail, by
//! the late answer of whoever handed it over, by coming back, or by somebody's word. Invariant: what may already have a copy
//! among sent mail, of an attempt that succeeded, is not looked for: that copy says nothing about the last attempt.
//! Invariant: no answer of a server that concerns a definition or a credential ever ends a mail.

use std::time::Duration;

use postroom_proto::catalogue::{Entry, outbox as catalogue};
use postroom_proto::convert::to_timestamp;
use postroom_proto::v1::{self, OutboxState, Problem, ProblemKind, RecipientState, SendVerdict};

use crate::ledger::{Micros, micros};
use crate::outbox::Terms;

mod bounce;
mod decision;

pub use decision::{Decision, WrongState};

/// First wait after an attempt that came to nothing; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// Longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Where a mail stands, as far as it decides where it goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Its state.
    pub state: OutboxState,
    /// True while a worker has it.
    pub claimed: bool,
    /// True when the last claim was to look for it.
    pub looking: bool,
    /// When its data was about to be handed over in the last attempt, as long as it is not known what became of that.
    /// `None`: it was not, or it is known.
    pub marked_at: Option<Micros>,
    /// The server of the last attempt keeps a copy where it can be looked for.
    pub looked_for: bool,
    /// Since when it is tried, the time left out in which nothing could have sent it.
    pub since: Micros,
    /// When it is tried or looked for next.
    pub due_at: Option<Micros>,
    /// Attempts in a row that came to nothing.
    pub deferrals: u32,
    /// When a server took it, or may have, for whomever. Nothing clears it.
    pub sent_at: Option<Micros>,
    /// What is wrong.
    pub problem: Option<Problem>,
    /// The server's own words.
    pub response: String,
    /// Its recipients.
    pub recipients: Vec<Recipient>,
    /// Differs from mail to mail, so that their waits do.
    pub seed: u64,
}

/// A recipient of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Its address in small letters.
    pub key: String,
    /// What became of the mail for it.
    pub state: RecipientState,
    /// Enhanced status code of the last refusal or bounce.
    pub status: String,
    /// What was said of it.
    pub diagnostic: String,
}

/// What a worker says of an attempt.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settlement {
    /// What became of it.
    pub verdict: SendVerdict,
    /// What became of it for some recipients, addresses in small letters.
    pub recipients: Vec<Recipient>,
    /// Why it did not succeed.
    pub problem: Option<Problem>,
    /// The server's own words.
    pub response: String,
    /// Not to be tried before this time has passed.
    pub retry_after: Micros,
    /// It is the sending mailbox that did not work.
    pub whole_mailbox: bool,
}

/// What an attempt that ended means for the limits of its sending mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Toll {
    /// It handed data over, so it counts in the minute.
    pub handed_over: bool,
    /// Recipients that count in the day.
    pub recipients: u64,
    /// What it says of the sending mailbox.
    pub mailbox: MailboxWord,
}

/// What an attempt says of its sending mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MailboxWord {
    /// Nothing.
    #[default]
    Nothing,
    /// It works.
    Works,
    /// It is to be left alone until then.
    LeaveAlone(Micros),
}

impl Standing {
    /// What the last claim is for.
    pub fn task(&self) -> v1::SendTask {
        if self.looking { v1::SendTask::LookFor } else { v1::SendTask::Submit }
    }

    /// Recipients that have not got it.
    pub fn pending(&self) -> usize {
        self.recipients.iter().filter(|recipient| recipient.state == RecipientState::Pending).count()
    }

    fn any(&self, state: RecipientState) -> bool {
        self.recipients.iter().any(|recipient| recipient.state == state)
    }

    /// True when an attempt succeeded for whomever, or came back. Then a copy may be among sent mail already.
    fn was_taken(&self) -> bool {
        self.sent_at.is_some() || self.any(RecipientState::Accepted) || self.any(RecipientState::Bounced)
    }

    /// After its worker has said what became of the attempt, and what that costs. `mailbox_deferrals`: how often in a row
    /// the sending mailbox was left alone before.
    pub fn settle(
        mut self,
        said: Settlement,
        mailbox_deferrals: u32,
        terms: &Terms,
        now: Micros,
    ) -> Result<(Self, Toll), WrongState> {
        use SendVerdict::{Deferred, Failed, Found, NotFound, Sent, Unknown, Unspecified};
        let task = self.task();
        self.claimed = false;
        let mut toll = Toll { handed_over: self.marked_at.is_some(), ..Toll::default() };
        let before = self.pending();
        let verdict = match said.verdict {
            Failed if said.problem.as_ref().is_some_and(|problem| ends_no_mail(problem.kind())) => Deferred,
            verdict => verdict,
        };
        if !said.response.is_empty() {
            self.response.clone_from(&said.response);
        }
        match (task, verdict) {
            (_, Unspecified) => return Err(WrongState("the verdict is missing")),
            (v1::SendTask::LookFor, Found) => {
                self.resolve_pending(RecipientState::Accepted, "", "");
                self.end(terms, now);
                toll.handed_over = false;
            }
            (v1::SendTask::LookFor, NotFound) => {
                // That it has to be sent once more is an attempt that came to nothing, like any other.
                (self.state, self.due_at, self.deferrals) = (OutboxState::Queued, Some(now), 1);
                self.expire(terms, now);
                toll.handed_over = false;
            }
            (v1::SendTask::LookFor, Deferred | Failed | Unknown) => {
                self.state = OutboxState::Unknown;
                let wait = said.retry_after.max(wait(self.deferrals, self.seed));
                (self.due_at, self.deferrals) = (Some(now.saturating_add(wait)), self.deferrals.saturating_add(1));
                self.complain(said.problem, now);
                toll.handed_over = false;
            }
            (_, Found | NotFound) => return Err(WrongState("it was to be handed over, not to be looked for")),
            (v1::SendTask::LookFor, Sent) => return Err(WrongState("it was to be looked for, not to be handed over")),
            (_, Sent) => {
                self.apply(&said.recipients);
                self.resolve_unnamed(&said.recipients, RecipientState::Accepted, "", "");
                toll = Toll { handed_over: true, recipients: before as u64, mailbox: MailboxWord::Works };
                self.sent_at = Some(now);
                self.problem = None;
                self.end(terms, now);
            }
            (_, Failed) => {
                self.apply(&said.recipients);
                self.resolve_unnamed(&said.recipients, RecipientState::Refused, "", &said.response);
                self.resolve_pending(RecipientState::Refused, "", &said.response);
                self.complain(said.problem, now);
                self.end(terms, now);
            }
            (_, Deferred) => {
                self.apply(&said.recipients);
                self.complain(said.problem, now);
                if said.whole_mailbox && self.pending() > 0 {
                    let until = now.saturating_add(said.retry_after.max(wait(mailbox_deferrals, self.seed)));
                    toll.mailbox = MailboxWord::LeaveAlone(until);
                    self.state = OutboxState::Queued;
                    (self.due_at, self.deferrals) = (Some(until), self.deferrals.saturating_add(1));
                    self.expire(terms, now);
                } else {
                    self.defer(said.retry_after, terms, now);
                }
            }
            (_, Unknown) => {
                toll = Toll { handed_over: true, recipients: before as u64, mailbox: MailboxWord::Nothing };
                self.lose(said.problem, terms, now);
            }
        }
        self.marked_at = self.marked_at.filter(|_| self.state == OutboxState::Unknown);
        Ok((self, toll))
    }

    /// After whoever handed it over has said, too late for his claim, that a server took it. `None`: it is too late for
    /// that as well.
    pub fn settle_late(mut self, said: Settlement, terms: &Terms, now: Micros) -> Option<(Self, Toll)> {
        let waits = match self.state {
            // Also while somebody looks for it.
            OutboxState::Unknown => true,
            OutboxState::Queued => !self.claimed,
            _ => false,
        };
        if !waits || said.verdict != SendVerdict::Sent {
            return None;
        }
        (self.looking, self.claimed) = (false, false);
        let (after, toll) = self.settle(said, 0, terms, now).ok()?;
        // Its recipients were charged for when it lapsed.
        Some((after, Toll { recipients: 0, ..toll }))
    }

    /// After the time of its claim is over and nothing was heard.
    pub fn lapse(mut self, terms: &Terms, now: Micros) -> (Self, Toll) {
        let looking = self.task() == v1::SendTask::LookFor;
        self.claimed = false;
        if looking {
            let wait = wait(self.deferrals, self.seed);
            (self.due_at, self.deferrals) = (Some(now.saturating_add(wait)), self.deferrals.saturating_add(1));
            return (self, Toll::default());
        }
        if self.marked_at.is_some() {
            let toll = Toll { handed_over: true, recipients: self.pending() as u64, mailbox: MailboxWord::Nothing };
            self.lose(None, terms, now);
            return (self, toll);
        }
        self.complain(Some(problem(&catalogue::WORKER_LOST, None)), now);
        // A worker that dies says nothing about the mail; one that takes every worker with it does.
        if self.deferrals == 0 && self.pending() > 0 {
            (self.state, self.due_at, self.deferrals) = (OutboxState::Queued, Some(now), 1);
            self.expire(terms, now);
        } else {
            self.defer(0, terms, now);
        }
        (self, Toll::default())
    }

    fn apply(&mut self, said: &[Recipient]) {
        for recipient in self.recipients.iter_mut().filter(|it| it.state == RecipientState::Pending) {
            if let Some(said) = said.iter().find(|said| said.key == recipient.key) {
                recipient.clone_from(said);
            }
        }
    }

    fn resolve_unnamed(&mut self, said: &[Recipient], state: RecipientState, status: &str, diagnostic: &str) {
        let named = |key: &str| said.iter().any(|said| said.key == key);
        for recipient in &mut self.recipients {
            if recipient.state == RecipientState::Pending && !named(&recipient.key) {
                (recipient.state, recipient.status) = (state, status.into());
                recipient.diagnostic = diagnostic.into();
            }
        }
    }

    fn resolve_pending(&mut self, state: RecipientState, status: &str, diagnostic: &str) {
        self.resolve_unnamed(&[], state, status, diagnostic);
    }

    /// Nobody is left to be tried, unless somebody is.
    fn end(&mut self, terms: &Terms, now: Micros) {
        if self.pending() > 0 {
            let said = self.first_word(RecipientState::Pending);
            self.complain(Some(problem(&catalogue::RECIPIENTS_DEFERRED, said.as_deref())), now);
            self.defer(0, terms, now);
            return;
        }
        self.end_resolved(now);
    }

    /// What it has come to, once nobody is left to be tried.
    fn end_resolved(&mut self, now: Micros) {
        (self.due_at, self.deferrals) = (None, 0);
        if self.any(RecipientState::Bounced) {
            self.state = OutboxState::Bounced;
            self.problem = Some(problem(&catalogue::BOUNCED, self.first_word(RecipientState::Bounced).as_deref()));
            self.date_problem(now, None);
            return;
        }
        if !self.any(RecipientState::Accepted) {
            self.state = OutboxState::Failed;
            if self.problem.is_none() {
                self.problem =
                    Some(problem(&catalogue::RECIPIENTS_REFUSED, self.first_word(RecipientState::Refused).as_deref()));
            }
            self.date_problem(now, None);
            return;
        }
        self.state = OutboxState::Sent;
        self.sent_at = self.sent_at.or(self.marked_at).or(Some(now));
        self.problem = None;
        if self.any(RecipientState::Refused) {
            self.problem =
                Some(problem(&catalogue::RECIPIENTS_REFUSED, self.first_word(RecipientState::Refused).as_deref()));
            self.date_problem(now, None);
        }
    }

    /// What was said of the first recipient in a state of whom anything was.
    fn first_word(&self, state: RecipientState) -> Option<String> {
        let said = self.recipients.iter().filter(|it| it.state == state).map(|it| &it.diagnostic);
        said.into_iter().find(|text| !text.is_empty()).cloned()
    }

    /// It is tried again later, or given up.
    fn defer(&mut self, retry_after: Micros, terms: &Terms, now: Micros) {
        if self.pending() == 0 {
            self.end(terms, now);
            return;
        }
        let wait = retry_after.max(wait(self.deferrals, self.seed));
        self.state = OutboxState::Queued;
        (self.due_at, self.deferrals) = (Some(now.saturating_add(wait)), self.deferrals.saturating_add(1));
        self.expire(terms, now);
    }

    /// Gives up what was tried for too long, unless it waits for somebody who has to mend something.
    fn expire(&mut self, terms: &Terms, now: Micros) {
        let waits_for_somebody = self.problem.as_ref().is_some_and(|problem| is_mended_by_somebody(problem.kind()));
        if waits_for_somebody {
            // The time until it is mended does not count.
            self.since = now;
        }
        let tried = now.saturating_sub(self.since);
        if waits_for_somebody || tried < micros(terms.give_up_after) {
            self.date_problem(now, self.due_at);
            return;
        }
        let last = self.problem.as_ref().map(|problem| problem.cause.clone()).unwrap_or_default();
        let accepted = self.any(RecipientState::Accepted);
        self.resolve_pending(RecipientState::Refused, "4.4.7", &last);
        (self.due_at, self.deferrals) = (None, 0);
        self.state = if accepted { OutboxState::Sent } else { OutboxState::Failed };
        self.sent_at = self.sent_at.or(accepted.then_some(now));
        self.problem = Some(problem(&catalogue::EXPIRED, Some(&last)));
        self.date_problem(now, None);
    }

    /// Its data was handed over and the answer was lost.
    fn lose(&mut self, why: Option<Problem>, terms: &Terms, now: Micros) {
        if self.pending() == 0 {
            self.end(terms, now);
            return;
        }
        // The server may be at it until the attempt ends, and take its time for the copy after that.
        let look_at = Some(now.saturating_add(micros(terms.look_after)));
        let decides = self.looked_for && !self.was_taken();
        (self.state, self.due_at, self.deferrals) = (OutboxState::Unknown, look_at.filter(|_| decides), 0);
        self.marked_at = self.marked_at.or(Some(now));
        let said = why.map(|problem| problem.cause);
        self.problem = Some(problem(&catalogue::OUTCOME_LOST, said.as_deref()));
        self.date_problem(now, None);
    }

    /// The problem is this one now; what lasts keeps its beginning.
    fn complain(&mut self, new: Option<Problem>, now: Micros) {
        let Some(mut new) = new else { return };
        let same = self.problem.as_ref().filter(|old| old.code == new.code);
        new.since_time = same.and_then(|old| old.since_time).or(Some(to_timestamp(now)));
        self.problem = Some(new);
    }

    fn date_problem(&mut self, now: Micros, next: Option<Micros>) {
        if let Some(problem) = &mut self.problem {
            problem.since_time.get_or_insert(to_timestamp(now));
            problem.next_attempt_time = next.map(to_timestamp);
        }
    }
}

/// True for problems that somebody has to mend: a definition, a credential, a consent, a policy.
pub fn is_mended_by_somebody(kind: ProblemKind) -> bool {
    use ProblemKind::{Configuration, Consent, Credential, Interaction, Policy};
    matches!(kind, Configuration | Credential | Consent | Interaction | Policy)
}

/// True for problems that say nothing about the mail, so that it waits until they are mended, whatever a server makes of
/// them. A policy may be one about this mail.
fn ends_no_mail(kind: ProblemKind) -> bool {
    is_mended_by_somebody(kind) && kind != ProblemKind::Policy
}

/// A problem of the catalogue, with what was said besides.
pub fn problem(entry: &Entry, said: Option<&str>) -> Problem {
    let cause = match said.filter(|said| !said.is_empty()) {
        Some(said) => format!("{}: {said}", entry.title),
        None => entry.title.to_owned(),
    };
    Problem {
        kind: entry.kind.into(),
        code: entry.code().into(),
        cause,
        remedy: entry.remedy.into(),
        since_time: None,
        next_attempt_time: None,
    }
}

/// How long to wait after so many attempts in a row that came to nothing, the last one not counted: 30 s, doubled each
/// time up to an hour, and up to a fifth longer so that mails that failed together are not tried together.
pub fn wait(deferrals: u32, seed: u64) -> Micros {
    let doubled = FIRST_WAIT.saturating_mul(1u32.checked_shl(deferrals.min(30)).unwrap_or(u32::MAX));
    let wait = micros(doubled.min(LONGEST_WAIT));
    // SplitMix64 of seed and number: spreads what differs little.
    let mut mixed = seed.wrapping_add(u64::from(deferrals).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    wait.saturating_add(wait / 5 * i64::try_from(mixed % 1000).unwrap_or(0) / 1000)
}

#[cfg(test)]
mod tests;
