//! What an answer makes of an attempt to send: sent, to be tried again, refused for good, or not to be known. Pure.
//!
//! Reading order: [`smtp`] (replies of RFC 5321), [`graph`] (answers of Microsoft Graph), then what they are put into here.
//!
//! Invariant: what somebody can mend (a definition, a credential, a right, a full mailbox) is never the end of a mail: it
//! waits. Only what is wrong with the mail itself or with its recipients is.

pub mod graph;
pub mod smtp;

use std::time::Duration;

use postroom_proto::catalogue::send;
use postroom_proto::convert::to_duration;
use postroom_proto::v1::{Claim, RecipientOutcome, RecipientState, SendVerdict, SettleMailRequest};

use crate::diagnosis::{Diagnosis, ProblemKind};
use crate::mailbox::retry;

/// Least pause of a whole mailbox whose server cannot be used, where the server says none.
const LEAST_PAUSE: Duration = Duration::from_secs(30);
/// Pause of a mailbox whose password was refused. With three claims at once, which is the most there are, at most three
/// tries an hour can be made in the whole fleet, over restarts too.
const PASSWORD_PAUSE: Duration = Duration::from_secs(3600);

/// What a refusal means for the mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is refused for good.
    Never,
    /// It is tried again; other mails of the mailbox are not concerned.
    Again,
    /// It is tried again, and so are all mails of the mailbox that sends: none of them can do better now.
    WholeMailbox,
}

/// Why a mail, or a recipient of it, was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Cause and remedy, and how long the server asked to wait.
    pub found: Box<Diagnosis>,
    /// What that means for the mail.
    pub fate: Fate,
    /// Enhanced status code (RFC 3463); empty when there was none.
    pub status: String,
    /// The server's own words; empty when it said nothing.
    pub response: String,
}

impl Fault {
    /// A fault that no answer tells of, for example a connection that cannot be made.
    pub fn of(found: Diagnosis, fate: Fate) -> Self {
        Self { found: Box::new(outgoing(found)), fate, status: String::new(), response: String::new() }
    }

    /// The same with another word on it.
    pub fn told(self, word: impl FnOnce(Diagnosis) -> Diagnosis) -> Self {
        Self { found: Box::new(outgoing(word(*self.found))), ..self }
    }

    /// A fault before the server has seen anything of the mail: no other mail of the mailbox would fare better.
    pub fn of_server(found: Diagnosis) -> Self {
        Self::of(found, Fate::WholeMailbox)
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Which end it took.
    pub verdict: SendVerdict,
    /// Why, with every verdict but SENT and FOUND.
    pub found: Option<Diagnosis>,
    /// The recipients of whom something else is to be said than of the mail.
    pub recipients: Vec<RecipientOutcome>,
    /// The server's own words.
    pub response: String,
    /// With DEFERRED: not before this time has passed.
    pub after: Option<Duration>,
    /// With DEFERRED: no mail of the mailbox is tried before.
    pub whole_mailbox: bool,
}

impl Verdict {
    fn new(verdict: SendVerdict) -> Self {
        Self {
            verdict,
            found: None,
            recipients: Vec::new(),
            response: String::new(),
            after: None,
            whole_mailbox: false,
        }
    }

    /// A server took the mail, for all but `recipients`.
    pub fn sent(response: impl Into<String>, recipients: Vec<RecipientOutcome>) -> Self {
        Self { recipients, response: response.into(), ..Self::new(SendVerdict::Sent) }
    }

    /// It was not taken. `attempt`: which one this was, from 1; `random`: 0.0 to 1.0.
    pub fn refused(fault: Fault, attempt: u32, random: f64) -> Self {
        let Fault { found, fate, response, .. } = fault;
        if fate == Fate::Never {
            return Self { found: Some(*found), response, ..Self::new(SendVerdict::Failed) };
        }
        let whole_mailbox = fate == Fate::WholeMailbox;
        let mut after = retry::delay(&found, attempt.max(1), random);
        if whole_mailbox && found.wait.is_none() {
            let least = if found.kind == ProblemKind::Credential { PASSWORD_PAUSE } else { LEAST_PAUSE };
            after = after.max(least);
        }
        let deferred = Self::new(SendVerdict::Deferred);
        Self { found: Some(*found), response, after: Some(after), whole_mailbox, ..deferred }
    }

    /// It was handed over, and then the answer was lost for the reason that `found` tells.
    pub fn unknown(found: &Diagnosis) -> Self {
        let cause = format!("{}: {}", send::OUTCOME_NOT_KNOWN.title, found.cause);
        let found = Diagnosis::of(&send::OUTCOME_NOT_KNOWN, cause);
        Self { found: Some(found), ..Self::new(SendVerdict::Unknown) }
    }

    /// It was looked for, and is among what was sent.
    pub fn found() -> Self {
        Self::new(SendVerdict::Found)
    }

    /// It was looked for, and is not there.
    pub fn not_found() -> Self {
        let found = Diagnosis::of(&send::NOT_IN_SENT, send::NOT_IN_SENT.title);
        Self { found: Some(found), ..Self::new(SendVerdict::NotFound) }
    }

    /// What is told to the control plane. `now`: microseconds since 1970.
    pub fn request(&self, claim: Claim, now: i64) -> SettleMailRequest {
        let next = now + self.after.map_or(0, |after| i64::try_from(after.as_micros()).unwrap_or(i64::MAX / 2));
        SettleMailRequest {
            claim: Some(claim),
            verdict: self.verdict.into(),
            recipients: self.recipients.clone(),
            problem: self.found.as_ref().map(|found| {
                let mut problem = found.problem(now, next);
                problem.next_attempt_time = problem.next_attempt_time.filter(|_| self.after.is_some());
                problem
            }),
            response: self.response.clone(),
            retry_after: self.after.map(to_duration),
            whole_mailbox: self.whole_mailbox,
        }
    }
}

/// What a server said of one recipient.
pub type Answer = Result<(), Fault>;

/// Whether the data is to be handed over, by what was said of the recipients: to those who were taken, with the others in
/// the outcome; or why not.
///
/// Where nobody was taken and one at least may be later, the mail is tried again for those.
pub fn envelope(answers: Vec<(String, Answer)>) -> Result<Vec<RecipientOutcome>, (Fault, Vec<RecipientOutcome>)> {
    let taken = answers.iter().any(|(_, answer)| answer.is_ok());
    let mut outcomes = Vec::new();
    let mut reasons: Vec<Fault> = Vec::new();
    for (address, answer) in answers {
        let Err(fault) = answer else { continue };
        let state = if fault.fate == Fate::Never { RecipientState::Refused } else { RecipientState::Pending };
        let (status, diagnostic) = (fault.status.clone(), fault.response.clone());
        outcomes.push(RecipientOutcome { address, state: state.into(), status, diagnostic });
        reasons.push(fault);
    }
    if taken {
        return Ok(outcomes);
    }
    let first = |fates: &[Fate]| reasons.iter().position(|fault| fates.contains(&fault.fate));
    let decisive = first(&[Fate::WholeMailbox]).or(first(&[Fate::Again])).or(first(&[Fate::Never]));
    let nobody = || Diagnosis::of(&send::RECIPIENT_REFUSED, "the mail has no recipient that is left");
    let fault = match decisive {
        Some(decisive) => reasons.swap_remove(decisive),
        None => Fault::of(nobody(), Fate::Never),
    };
    Err((fault, outcomes))
}

/// The same problem in the words of what sends: tokens, TLS, hosts and proxies are found out alike for both directions.
pub fn outgoing(mut found: Diagnosis) -> Diagnosis {
    for text in [&mut found.cause, &mut found.remedy] {
        // Told twice it is the same.
        if text.contains(WHOSE_SECRET) {
            continue;
        }
        *text = text.replace("incoming server's", "outgoing server's").replace("IMAP host", "host");
        let whose = if text.contains("secret") { WHOSE_SECRET } else { "outgoing server" };
        *text = text.replace("incoming server", whose);
    }
    found
}

/// With `registration` an outgoing server has neither a client id nor a secret of its own.
const WHOSE_SECRET: &str = "outgoing server, or the incoming server that its `registration` names";

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: ProblemKind, fate: Fate) -> Fault {
        let found = Diagnosis { kind, ..Diagnosis::of(&send::SUBMISSION_LOST, "c") };
        Fault::of(found, fate)
    }

    #[test]
    fn a_mailbox_is_held_up_for_a_while_and_ever_longer() {
        let first = Verdict::refused(fault(ProblemKind::Transient, Fate::WholeMailbox), 1, 0.0);
        assert_eq!((first.verdict, first.whole_mailbox), (SendVerdict::Deferred, true));
        assert_eq!(first.after, Some(LEAST_PAUSE));
        let later = Verdict::refused(fault(ProblemKind::Transient, Fate::WholeMailbox), 8, 0.5);
        assert_eq!(later.after, Some(Duration::from_secs(128)));
        let single = Verdict::refused(fault(ProblemKind::Transient, Fate::Again), 0, 0.5);
        assert_eq!((single.after, single.whole_mailbox), (Some(Duration::from_secs(1)), false));
    }

    #[test]
    fn a_refused_password_rests_for_an_hour_unless_it_is_known_better() {
        let refused = fault(ProblemKind::Credential, Fate::WholeMailbox);
        assert_eq!(Verdict::refused(refused.clone(), 1, 0.0).after, Some(PASSWORD_PAUSE));
        let known = refused.told(|found| found.after(Some(Duration::from_secs(60))));
        assert_eq!(Verdict::refused(known, 1, 0.0).after, Some(Duration::from_secs(60)));
    }

    #[test]
    fn what_is_refused_for_good_has_no_next_attempt() {
        let verdict = Verdict::refused(fault(ProblemKind::Policy, Fate::Never), 3, 0.5);
        let told = verdict.request(Claim::default(), 1_000_000);
        assert_eq!((told.verdict(), told.retry_after), (SendVerdict::Failed, None));
        assert_eq!(told.problem.expect("a problem").next_attempt_time, None);
        let verdict = Verdict::refused(fault(ProblemKind::Transient, Fate::Again), 1, 0.5);
        let told = verdict.request(Claim::default(), 1_000_000);
        assert_eq!(told.problem.expect("a problem").next_attempt_time.expect("a time").seconds, 2);
    }

    #[test]
    fn the_data_goes_to_those_who_are_taken() {
        let refused = || Err(fault(ProblemKind::Mailbox, Fate::Never));
        let later = || Err(fault(ProblemKind::Transient, Fate::Again));
        let answers = vec![("a".into(), Ok(())), ("b".into(), refused()), ("c".into(), later())];
        let outcomes = envelope(answers).expect("a is taken");
        let states: Vec<_> = outcomes.iter().map(|one| (one.address.as_str(), one.state())).collect();
        assert_eq!(states, [("b", RecipientState::Refused), ("c", RecipientState::Pending)]);
        let (stopped, outcomes) = envelope(vec![("b".into(), refused()), ("c".into(), later())]).expect_err("nobody");
        assert_eq!((stopped.fate, outcomes.len()), (Fate::Again, 2));
        assert_eq!(envelope(vec![("b".into(), refused())]).expect_err("nobody").0.fate, Fate::Never);
        assert_eq!(envelope(Vec::new()).expect_err("nobody").0.fate, Fate::Never);
    }

    #[test]
    fn what_the_sender_is_told_is_about_what_sends() {
        let found = outgoing(crate::diagnosis::untrusted("h", "d"));
        assert!(found.remedy.contains("outgoing server's `caFile`"), "{}", found.remedy);
        assert!(!found.remedy.contains("incoming"));
        let host = outgoing(crate::diagnosis::host_invalid("h h"));
        assert_eq!(host.remedy, "correct the host of the outgoing server");
        for code in ["AADSTS7000215", "AADSTS7000222"] {
            let entry = postroom_proto::catalogue::find(code).expect("known");
            let found = outgoing(Diagnosis::of(entry, "c"));
            let whose = "the outgoing server, or the incoming server that its `registration` names";
            assert!(found.remedy.contains(whose), "{}", found.remedy);
            assert_eq!(outgoing(found.clone()), found);
        }
    }
}
