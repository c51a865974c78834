//! Mailboxes in numbers: of all of them together, and of a bounded number each.
//!
//! A mailbox has about four series of its own. With 100,000 mailboxes that would be more than most Prometheus servers are
//! made for, and nobody looks at the series of one that works. So those that fail come first, then those that nobody reads,
//! then the others in the order of their uids, which keeps the choice the same from one look to the next.

use std::collections::BTreeMap;

use postroom_proto::convert::{from_duration, from_timestamp};
use postroom_proto::id::MailboxUid;
use postroom_proto::metric;
use postroom_proto::v1::{self, MailboxState, ProblemKind, UnassignedReason};

use super::{number, seconds, word};
use crate::intake::lives::Lives;
use crate::ledger::Micros;

/// Makes gauges of all mailboxes, and of `most` of them each.
pub(super) fn show(mailboxes: &[v1::Mailbox], lives: &Lives, most: usize) {
    let wait =
        |mailbox: &v1::Mailbox| MailboxUid::parse(&mailbox.uid).ok().and_then(|uid| lives.of(&uid).proof_or_wait());
    whole(mailboxes, wait);
    let shown = chosen(mailboxes, most);
    metric::MAILBOXES_WITHOUT_SERIES.set(&[], number((mailboxes.len() - shown.len()) as u64));
    metric::MAILBOX_STATE.replace(shown.iter().map(|it| {
        let [mailbox, folder, instance, queue] = place(it);
        ([mailbox, folder, instance, queue, state(it)], 1.0)
    }));
    metric::MAILBOX_PROBLEM.replace(shown.iter().filter(|it| it.state() == MailboxState::Failing).filter_map(|it| {
        let problem = it.problem.as_ref()?;
        let since = seconds(from_timestamp(problem.since_time.as_ref()?));
        let [mailbox, folder, instance, queue] = place(it);
        Some(([mailbox, folder, instance, queue, kind(problem), problem.code.clone()], since))
    }));
    metric::MAILBOX_PROOF.replace(shown.iter().filter_map(|it| Some((place(it), seconds(wait(it)?)))));
    let unfetched = |it: &v1::Mailbox| Some(seconds(from_timestamp(it.unfetched_time.as_ref()?)));
    metric::MAILBOX_UNFETCHED.replace(shown.iter().filter_map(|it| Some((place(it), unfetched(it)?))));
    let lag = |it: &v1::Mailbox| Some(from_duration(it.delivery_lag.as_ref()?)?.as_secs_f64());
    metric::MAILBOX_LAG.replace(shown.iter().filter_map(|it| Some((place(it), lag(it)?))));
}

fn whole(mailboxes: &[v1::Mailbox], wait: impl Fn(&v1::Mailbox) -> Option<Micros>) {
    let mut states: BTreeMap<[String; 2], u64> = BTreeMap::new();
    let mut problems: BTreeMap<[String; 3], u64> = BTreeMap::new();
    let mut reasons: BTreeMap<[String; 2], u64> = BTreeMap::new();
    let mut proofs: BTreeMap<[String; 1], Micros> = BTreeMap::new();
    let mut unfetched: BTreeMap<[String; 1], Micros> = BTreeMap::new();
    let oldest = |of: &mut BTreeMap<[String; 1], Micros>, instance: &str, time: Micros| {
        of.entry([instance.to_owned()]).and_modify(|known| *known = time.min(*known)).or_insert(time);
    };
    for it in mailboxes {
        *states.entry([it.instance.clone(), state(it)]).or_default() += 1;
        if let Some(problem) = it.problem.as_ref().filter(|_| it.state() == MailboxState::Failing) {
            *problems.entry([it.instance.clone(), kind(problem), problem.code.clone()]).or_default() += 1;
        }
        if it.state() == MailboxState::Unassigned {
            let reason = word(it.unassigned_reason().as_str_name(), "UNASSIGNED_REASON_");
            *reasons.entry([it.pool.clone(), reason]).or_default() += 1;
        }
        if let Some(time) = wait(it) {
            oldest(&mut proofs, &it.instance, time);
        }
        if let Some(time) = &it.unfetched_time {
            oldest(&mut unfetched, &it.instance, from_timestamp(time));
        }
    }
    metric::MAILBOXES.replace(states.into_iter().map(|(labels, count)| (labels, number(count))));
    metric::MAILBOXES_FAILING.replace(problems.into_iter().map(|(labels, count)| (labels, number(count))));
    metric::MAILBOXES_UNASSIGNED.replace(reasons.into_iter().map(|(labels, count)| (labels, number(count))));
    metric::OLDEST_PROOF.replace(proofs.into_iter().map(|(labels, time)| (labels, seconds(time))));
    metric::OLDEST_UNFETCHED.replace(unfetched.into_iter().map(|(labels, time)| (labels, seconds(time))));
}

/// Those that have series of their own.
fn chosen(mailboxes: &[v1::Mailbox], most: usize) -> Vec<&v1::Mailbox> {
    let mut all: Vec<&v1::Mailbox> = mailboxes.iter().collect();
    if all.len() > most {
        all.sort_unstable_by_key(|it| {
            let passes = |it: &v1::Mailbox| {
                let kind = it.problem.as_ref().map(v1::Problem::kind);
                matches!(kind, Some(ProblemKind::Transient | ProblemKind::Throttled | ProblemKind::Unspecified) | None)
            };
            let rank = match it.state() {
                MailboxState::Failing if !passes(it) => 0,
                MailboxState::Failing => 1,
                MailboxState::Unassigned if it.unassigned_reason() != UnassignedReason::Moving => 2,
                _ => 3,
            };
            (rank, it.uid.as_str())
        });
        all.truncate(most);
    }
    all
}

fn place(mailbox: &v1::Mailbox) -> [String; 4] {
    [mailbox.email.clone(), mailbox.folder.clone(), mailbox.instance.clone(), mailbox.queue.clone()]
}

fn state(mailbox: &v1::Mailbox) -> String {
    word(mailbox.state().as_str_name(), "MAILBOX_STATE_")
}

fn kind(problem: &v1::Problem) -> String {
    word(problem.kind().as_str_name(), "PROBLEM_KIND_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(uid: &str, state: MailboxState, kind: ProblemKind) -> v1::Mailbox {
        let problem = v1::Problem { kind: kind.into(), code: "CODE".into(), ..Default::default() };
        v1::Mailbox {
            uid: uid.into(),
            state: state.into(),
            problem: (state == MailboxState::Failing).then_some(problem),
            ..Default::default()
        }
    }

    #[test]
    fn what_fails_has_series_whatever_their_number() {
        let all = [
            mailbox("a", MailboxState::Idle, ProblemKind::Unspecified),
            mailbox("b", MailboxState::Unassigned, ProblemKind::Unspecified),
            mailbox("c", MailboxState::Failing, ProblemKind::Transient),
            mailbox("d", MailboxState::Failing, ProblemKind::Credential),
            mailbox("e", MailboxState::CatchingUp, ProblemKind::Unspecified),
        ];
        let uids = |most| chosen(&all, most).into_iter().map(|it| it.uid.as_str()).collect::<Vec<_>>();
        assert_eq!(uids(5), ["a", "b", "c", "d", "e"]);
        assert_eq!(uids(4), ["d", "c", "b", "a"]);
        assert_eq!(uids(1), ["d"]);
        assert!(uids(0).is_empty());
    }

    #[test]
    fn the_wire_s_words_become_those_of_metrics() {
        assert_eq!(state(&mailbox("a", MailboxState::CatchingUp, ProblemKind::Unspecified)), "catching-up");
    }
}
