//! What somebody should look at, and what to do about it. Pure.
//!
//! What passes by itself is no concern until it has lasted for [`PATIENCE`]: a status that cries at every restart of a
//! mail server is soon ignored.

use std::collections::BTreeSet;
use std::time::Duration;

use postroom_proto::convert::{from_timestamp, to_timestamp};
use postroom_proto::v1::{self, Concern, ContactState, Disposition, MailboxState, ProblemKind, UnassignedReason};

use crate::binding::fit::Fit;
use crate::lease::desk::Seen;
use crate::lease::desk::look::FleetSeen;
use crate::ledger::Micros;
use crate::ledger::tally::Tally;

/// How long a fault that should pass by itself may last.
pub const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Most mailboxes that are named one by one.
const NAMED: usize = 20;

/// Code of the concern that old messages wait for an operator.
pub const BACKLOG: &str = "BACKLOG";
/// Code of the concern that nobody leads.
pub const NO_LEADER: &str = "NO_LEADER";

/// That the store is not the one that the ledger belongs to.
pub fn of_store(fit: &Fit) -> Option<Concern> {
    let (cause, remedy) = fit.trouble()?;
    Some(whole("STORE_NOT_OURS", &format!("no mailbox is leased: {cause}"), remedy))
}

/// What holds for all workers and keeps mailboxes where they are.
pub fn of_fleet(fleet: &FleetSeen, now: Micros) -> Vec<Concern> {
    let brake = fleet.brake.map(|left| {
        let cause = format!(
            "more than half of the workers are silent at once, so none is given up for another {} s: it is likelier that \
             the network has failed than that all of them died",
            left.as_secs() + 1
        );
        let remedy = "see `postroom worker list` for who is silent, and mend what is between them and the control plane; \
                      if they are really gone, their mailboxes move when the time is over";
        whole("BRAKE", &cause, remedy)
    });
    let frozen = fleet.freeze.as_ref().map(|freeze| {
        let mut cause =
            format!("the fleet is frozen by {}: the mailboxes of a worker that dies are read by nobody", freeze.by);
        if !freeze.note.is_empty() {
            cause += &format!(" ({})", freeze.note);
        }
        let remedy = match freeze.until {
            Some(until) => {
                let left = u64::try_from(until.saturating_sub(now)).map_or(Duration::ZERO, Duration::from_micros);
                format!("it ends by itself in {} s; end it sooner with `postroom worker unfreeze`", left.as_secs())
            }
            None => "end it with `postroom worker unfreeze` when the work is done".into(),
        };
        Concern { since_time: Some(to_timestamp(freeze.since)), ..whole("FROZEN", &cause, &remedy) }
    });
    brake.into_iter().chain(frozen).collect()
}

/// Everything that somebody should look at, worst first: what stops all mailboxes, what stops one, what was put
/// aside, what nobody takes. `sessions` is none when nobody leads.
pub fn concerns(mailboxes: &[v1::Mailbox], tally: &Tally, sessions: Option<&[Seen]>, now: Micros) -> Vec<Concern> {
    let mut concerns = Vec::new();
    let unassigned = || mailboxes.iter().filter(|mailbox| mailbox.state() == MailboxState::Unassigned);
    let full = |mailbox: &&v1::Mailbox| mailbox.unassigned_reason() == UnassignedReason::NoCapacity;
    let (beyond, unread) = (unassigned().filter(full).count(), unassigned().filter(|it| !full(it)).count());
    match sessions {
        None => concerns.push(whole(
            NO_LEADER,
            "no control plane leads, so mailboxes keep their readers and get no new ones",
            "wait a moment and look again; if it lasts, see the control plane's log for why none takes the lead",
        )),
        Some([]) if !mailboxes.is_empty() => concerns.push(whole(
            "NO_WORKER",
            "no worker lives, so no mailbox is read",
            "start a worker, or see its log for why it cannot register; `postroom up` brings one",
        )),
        Some(_) if unread > 0 => concerns.push(whole(
            "UNREAD_MAILBOXES",
            &format!("{} by nobody", are(unread as u64, "mailbox is read", "mailboxes are read")),
            "look again in a moment; if it lasts, start a worker of the pool that their instance names",
        )),
        Some(_) => {}
    }
    if beyond > 0 {
        let pools: BTreeSet<&str> = unassigned().filter(full).map(|mailbox| mailbox.pool.as_str()).collect();
        let pools = pools.into_iter().collect::<Vec<_>>().join(", ");
        concerns.push(whole(
            "NO_CAPACITY",
            &format!(
                "{} by nobody, since the workers of their pool ({pools}) have as many as they can carry",
                are(beyond as u64, "mailbox is read", "mailboxes are read")
            ),
            "start another worker of that pool, or raise the capacity in the settings of those that can carry more",
        ));
    }
    let mut failing: Vec<&v1::Mailbox> = mailboxes.iter().filter(|mailbox| needs_somebody(mailbox, now)).collect();
    failing.sort_by_cached_key(|mailbox| urgency(mailbox, now));
    let unnamed = failing.len().saturating_sub(NAMED);
    concerns.extend(failing.into_iter().take(NAMED).filter_map(of_mailbox));
    if unnamed > 0 {
        concerns.push(whole(
            "FAILING_MAILBOXES",
            &format!("{} besides", are(unnamed as u64, "mailbox does not work", "mailboxes do not work")),
            "see `postroom mailbox list`",
        ));
    }
    concerns.extend(of_backlogs(mailboxes));
    for (disposition, count) in &tally.aside {
        match disposition {
            Disposition::Quarantined => concerns.push(whole(
                "QUARANTINED_MESSAGES",
                &format!("{} in quarantine: no contact could be made of them", are(*count, "message is", "messages are")),
                "see `postroom message list --disposition quarantined`; replay what should be a contact, discard the rest",
            )),
            Disposition::TooLarge => concerns.push(whole(
                "TOO_LARGE_MESSAGES",
                &format!("{} larger than the queue allows", are(*count, "message is", "messages are")),
                "see `postroom message list --disposition too-large`; raise maxMessageBytes and replay, or discard them",
            )),
            _ => {}
        }
    }
    let states = tally.instances.iter().flat_map(|instance| &instance.contacts);
    let dead: u64 = states.filter(|(state, _)| *state == ContactState::Dead).map(|(_, count)| count).sum();
    if dead > 0 {
        concerns.push(whole(
            "DEAD_CONTACTS",
            &format!("{} refused too often and handed out no more", are(dead, "contact was", "contacts were")),
            "see `postroom contact list --state dead`; requeue them once their instance can take them, or transfer them",
        ));
    }
    concerns
}

/// Sorts failing mailboxes: those first that need a person, then by how long it lasts.
pub fn urgency(mailbox: &v1::Mailbox, now: Micros) -> (bool, Micros, String) {
    (!needs_somebody(mailbox, now), since(mailbox).unwrap_or(now), mailbox.email.clone())
}

fn needs_somebody(mailbox: &v1::Mailbox, now: Micros) -> bool {
    let Some(problem) = mailbox.problem.as_ref().filter(|_| mailbox.state() == MailboxState::Failing) else {
        return false;
    };
    let lasts = Duration::from_micros(u64::try_from(now - since(mailbox).unwrap_or(now)).unwrap_or(0));
    match problem.kind() {
        ProblemKind::Transient | ProblemKind::Throttled | ProblemKind::Unspecified => lasts >= PATIENCE,
        _ => true,
    }
}

fn since(mailbox: &v1::Mailbox) -> Option<Micros> {
    mailbox.problem.as_ref().and_then(|problem| problem.since_time.as_ref()).map(from_timestamp)
}

fn of_mailbox(mailbox: &v1::Mailbox) -> Option<Concern> {
    let problem = mailbox.problem.clone()?;
    Some(Concern {
        code: problem.code,
        subject: mailbox.email.clone(),
        cause: problem.cause,
        remedy: problem.remedy,
        since_time: problem.since_time,
    })
}

/// Mailboxes whose old messages wait for an operator.
fn of_backlogs(mailboxes: &[v1::Mailbox]) -> Option<Concern> {
    let backlogs = mailboxes.iter().filter_map(|mailbox| mailbox.backlog.as_ref());
    let waiting: Vec<&v1::Backlog> = backlogs.filter(|backlog| !backlog.remedy.is_empty()).collect();
    let since_time = waiting.iter().filter_map(|it| it.held_time).min_by_key(|time| (time.seconds, time.nanos));
    let found = match waiting.as_slice() {
        [] => return None,
        [only] => Concern { subject: only.email.clone(), ..whole(BACKLOG, &only.cause, &only.remedy) },
        many => whole(
            BACKLOG,
            &format!("{} mailboxes hold back what was in them when they were first read; new mail is read", many.len()),
            "see `postroom mailbox list` for which and how much, and take it with `postroom mailbox backlog approve`",
        ),
    };
    Some(Concern { since_time, ..found })
}

fn whole(code: &str, cause: &str, remedy: &str) -> Concern {
    Concern { code: code.into(), cause: cause.into(), remedy: remedy.into(), ..Concern::default() }
}

fn are(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

#[cfg(test)]
mod tests {
    use postroom_proto::id::SessionId;

    use super::*;
    use crate::lease::decision::Freeze;

    const NOW: Micros = 1_772_366_400_000_000;
    const MINUTE: Micros = 60_000_000;

    fn mailbox(email: &str, state: MailboxState) -> v1::Mailbox {
        v1::Mailbox { email: email.into(), state: state.into(), ..Default::default() }
    }

    fn failing(email: &str, kind: ProblemKind, minutes: i64) -> v1::Mailbox {
        let problem = v1::Problem {
            kind: kind.into(),
            code: "CODE".into(),
            cause: "cause".into(),
            remedy: "remedy".into(),
            since_time: Some(to_timestamp(NOW - minutes * MINUTE)),
            next_attempt_time: None,
        };
        v1::Mailbox { problem: Some(problem), ..mailbox(email, MailboxState::Failing) }
    }

    fn a_worker() -> Vec<Seen> {
        let session = SessionId::random();
        vec![Seen { session, worker: "w".into(), silent_for: None, draining: false, mailboxes: 1 }]
    }

    fn told(mailboxes: &[v1::Mailbox], tally: &Tally, sessions: Option<&[Seen]>) -> Vec<String> {
        let concerns = concerns(mailboxes, tally, sessions, NOW);
        assert!(concerns.iter().all(|concern| !concern.cause.is_empty() && !concern.remedy.is_empty()), "{concerns:?}");
        concerns.into_iter().map(|c| if c.subject.is_empty() { c.code } else { c.subject }).collect()
    }

    #[test]
    fn all_is_well_when_every_mailbox_is_read() {
        let mailboxes = [mailbox("a", MailboxState::Idle), mailbox("b", MailboxState::CatchingUp)];
        assert!(told(&mailboxes, &Tally::default(), Some(&a_worker())).is_empty());
        assert!(told(&[], &Tally::default(), Some(&[])).is_empty(), "nothing to read needs no worker");
    }

    #[test]
    fn what_passes_by_itself_is_a_concern_only_when_it_lasts() {
        let mailboxes = [
            failing("young", ProblemKind::Transient, 14),
            failing("throttled", ProblemKind::Throttled, 1),
            failing("old", ProblemKind::Transient, 16),
        ];
        assert_eq!(told(&mailboxes, &Tally::default(), Some(&a_worker())), ["old"]);
    }

    #[test]
    fn what_stops_all_comes_before_what_stops_one_and_the_oldest_before_the_younger() {
        let mailboxes = [
            failing("young", ProblemKind::Credential, 1),
            failing("old", ProblemKind::Consent, 5),
            mailbox("unread", MailboxState::Unassigned),
        ];
        let tally =
            Tally { aside: vec![(Disposition::Quarantined, 2), (Disposition::Vanished, 1)], ..Tally::default() };
        let expected = ["UNREAD_MAILBOXES", "old", "young", "QUARANTINED_MESSAGES"];
        assert_eq!(told(&mailboxes, &tally, Some(&a_worker())), expected);
        assert_eq!(told(&mailboxes, &tally, Some(&[]))[0], "NO_WORKER");
        assert_eq!(told(&mailboxes, &tally, None)[0], "NO_LEADER");
    }

    #[test]
    fn contacts_that_nobody_takes_are_a_concern() {
        let contacts = |state| crate::ledger::tally::InstanceTally {
            instance_uid: "i".into(),
            instance: "core1".into(),
            contacts: vec![(state, 2)],
            oldest: None,
        };
        let tally = |state| Tally { instances: vec![contacts(state)], ..Tally::default() };
        assert_eq!(told(&[], &tally(ContactState::Dead), Some(&[])), ["DEAD_CONTACTS"]);
        assert!(told(&[], &tally(ContactState::Queued), Some(&[])).is_empty());
    }

    #[test]
    fn what_nobody_can_carry_is_told_apart_from_what_nobody_reads_yet() {
        let mut beyond = mailbox("a", MailboxState::Unassigned);
        beyond.set_unassigned_reason(UnassignedReason::NoCapacity);
        beyond.pool = "north".into();
        assert_eq!(told(&[beyond.clone()], &Tally::default(), Some(&a_worker())), ["NO_CAPACITY"]);
        let both = [beyond, mailbox("b", MailboxState::Unassigned)];
        assert_eq!(told(&both, &Tally::default(), Some(&a_worker())), ["UNREAD_MAILBOXES", "NO_CAPACITY"]);
        assert!(concerns(&both, &Tally::default(), Some(&a_worker()), NOW)[1].cause.contains("(north)"));
    }

    #[test]
    fn old_messages_that_wait_are_a_concern_until_they_are_released() {
        let held = |email: &str, seconds, remedy: &str| {
            let held_time = Some(prost_types::Timestamp { seconds, nanos: 0 });
            let (cause, remedy) = ("they wait".into(), remedy.into());
            let backlog = v1::Backlog { email: email.into(), held_time, cause, remedy, ..Default::default() };
            v1::Mailbox { backlog: Some(backlog), ..mailbox(email, MailboxState::Backlog) }
        };
        let (one, other, released) = (held("a", 9, "approve"), held("b", 5, "approve"), held("c", 1, ""));
        assert_eq!(told(&[released.clone(), one.clone()], &Tally::default(), Some(&a_worker())), ["a"]);
        let both = concerns(&[one, released.clone(), other], &Tally::default(), Some(&a_worker()), NOW);
        assert_eq!((both.len(), both[0].code.as_str(), both[0].since_time.unwrap().seconds), (1, BACKLOG, 5));
        assert!(both[0].cause.starts_with("2 mailboxes"), "{both:?}");
        assert!(told(&[released], &Tally::default(), Some(&a_worker())).is_empty());
    }

    #[test]
    fn a_freeze_and_the_brake_are_concerns() {
        assert!(of_fleet(&FleetSeen::default(), NOW).is_empty());
        let freeze = Some(Freeze::new(NOW - MINUTE, Some(NOW + MINUTE), "ada", "etcd is moved"));
        let fleet = FleetSeen { freeze, brake: Some(Duration::from_secs(9)), ..FleetSeen::default() };
        let told = of_fleet(&fleet, NOW);
        assert_eq!(told.iter().map(|concern| concern.code.as_str()).collect::<Vec<_>>(), ["BRAKE", "FROZEN"]);
        assert!(told[0].cause.contains("another 10 s"), "{told:?}");
        assert!(told[1].cause.contains("by ada") && told[1].cause.contains("etcd is moved"), "{told:?}");
        assert!(told[1].remedy.contains("in 60 s") && told[1].since_time.is_some(), "{told:?}");
    }

    #[test]
    fn only_so_many_mailboxes_are_named() {
        let mailboxes: Vec<_> = (0..NAMED + 3).map(|n| failing(&format!("m{n:02}"), ProblemKind::Mailbox, 1)).collect();
        let told = told(&mailboxes, &Tally::default(), Some(&a_worker()));
        assert_eq!((told.len(), told[0].as_str(), told[NAMED].as_str()), (NAMED + 1, "m00", "FAILING_MAILBOXES"));
    }
}
