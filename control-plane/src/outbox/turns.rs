//! Whose mail is next: sending mailboxes take turns, and at each of them the queues that send from it. Pure.

use crate::ledger::Micros;

/// A sending mailbox and what waits at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender<M> {
    /// Most mails that it may send now.
    pub mails: u32,
    /// Most recipients of those together.
    pub recipients: u64,
    /// When it had its last turn; the smaller, the longer ago.
    pub turn: i64,
    /// The queues that send from it.
    pub queues: Vec<Queue<M>>,
}

/// A queue's mail at one sending mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue<M> {
    /// When it had its last turn; the smaller, the longer ago.
    pub turn: i64,
    /// What waits, in the order in which it is to be sent, each with the number of its recipients.
    pub waiting: Vec<(M, u64)>,
}

/// A mail whose turn has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn<M> {
    /// Index of the sending mailbox.
    pub sender: usize,
    /// Index of its queue.
    pub queue: usize,
    /// The turn that the queue has had with it.
    pub turn: i64,
    /// The mail.
    pub mail: M,
}

/// Shares at most `max` turns out, which are numbered from `now` on: each goes to the sending mailbox whose last turn is
/// longest ago, and there to such a queue. A queue's mails keep their order: one with too many recipients for what is left
/// holds up its queue, and no other.
pub fn share<M>(senders: Vec<Sender<M>>, now: Micros, max: usize) -> Vec<Turn<M>> {
    let mut senders: Vec<Sender<M>> = senders;
    for queue in senders.iter_mut().flat_map(|sender| &mut sender.queues) {
        queue.waiting.reverse();
    }
    let mut turns = Vec::new();
    let queues = senders.iter().flat_map(|sender| &sender.queues).map(|queue| queue.turn);
    let mut next = senders.iter().map(|sender| sender.turn).chain(queues).max().unwrap_or(0).max(now);
    while turns.len() < max {
        let Some((sender, queue)) = first(&senders) else { break };
        let Some((mail, recipients)) = senders[sender].queues[queue].waiting.pop() else { break };
        next = next.saturating_add(1);
        senders[sender].turn = next;
        senders[sender].queues[queue].turn = next;
        senders[sender].mails -= 1;
        senders[sender].recipients = senders[sender].recipients.saturating_sub(recipients);
        turns.push(Turn { sender, queue, turn: next, mail });
    }
    turns
}

/// Whose turn it is. `None`: nobody may send any more, or nobody wants to.
fn first<M>(senders: &[Sender<M>]) -> Option<(usize, usize)> {
    let able = |sender: &Sender<M>, queue: &Queue<M>| {
        sender.mails > 0 && queue.waiting.last().is_some_and(|(_, recipients)| *recipients <= sender.recipients)
    };
    let of_one = |(index, sender): (usize, &Sender<M>)| {
        let queues = sender.queues.iter().enumerate().filter(|(_, queue)| able(sender, queue));
        let queue = queues.min_by_key(|(_, queue)| queue.turn)?.0;
        Some((sender.turn, index, queue))
    };
    senders.iter().enumerate().filter_map(of_one).min().map(|(_, sender, queue)| (sender, queue))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queue(turn: i64, waiting: &[(u32, u64)]) -> Queue<u32> {
        Queue { turn, waiting: waiting.to_vec() }
    }

    fn mails(turns: &[Turn<u32>]) -> Vec<u32> {
        turns.iter().map(|turn| turn.mail).collect()
    }

    #[test]
    fn queues_of_one_mailbox_take_turns_and_keep_their_order() {
        let busy = queue(5, &[(11, 1), (12, 1), (13, 1), (14, 1)]);
        let quiet = queue(9, &[(21, 1), (22, 1)]);
        let sender =
            |mails| vec![Sender { mails, recipients: u64::MAX, turn: 9, queues: vec![busy.clone(), quiet.clone()] }];
        assert_eq!(mails(&share(sender(9), 0, 9)), [11, 21, 12, 22, 13, 14]);
        assert_eq!(mails(&share(sender(3), 0, 9)), [11, 21, 12]);
        assert_eq!(mails(&share(sender(9), 0, 2)), [11, 21]);
    }

    #[test]
    fn a_mail_to_too_many_holds_up_its_own_queue_only() {
        let sender = Sender {
            mails: 9,
            recipients: 3,
            turn: 3,
            queues: vec![queue(1, &[(11, 4), (12, 1)]), queue(2, &[(21, 2), (22, 2)]), queue(3, &[(31, 1)])],
        };
        assert_eq!(mails(&share(vec![sender], 0, 9)), [21, 31]);
    }

    type Waiting = Vec<Vec<Vec<u64>>>;

    fn senders(waiting: &Waiting, allowed: &[(u32, u64)], turns: &[i64]) -> Vec<Sender<(usize, usize, usize)>> {
        let sender = |(s, queues): (usize, &Vec<Vec<u64>>)| {
            let (mails, recipients) = allowed[s % allowed.len()];
            let queue = |(q, mails): (usize, &Vec<u64>)| Queue {
                turn: turns[(s + q) % turns.len()],
                waiting: mails.iter().enumerate().map(|(n, recipients)| ((s, q, n), *recipients)).collect(),
            };
            Sender { mails, recipients, turn: 0, queues: queues.iter().enumerate().map(queue).collect() }
        };
        waiting.iter().enumerate().map(sender).collect()
    }

    proptest! {
        #[test]
        fn nobody_exceeds_what_is_allowed_and_no_turn_is_wasted(
            waiting in prop::collection::vec(prop::collection::vec(prop::collection::vec(1..6u64, 0..6), 0..4), 0..4),
            allowed in prop::collection::vec((0..6u32, 0..20u64), 1..4),
            turns in prop::collection::vec(-3..9i64, 1..5),
            max in 0..20usize,
        ) {
            let given = senders(&waiting, &allowed, &turns);
            let shared = share(given.clone(), 0, max);
            prop_assert!(shared.len() <= max);
            for (s, sender) in given.iter().enumerate() {
                let mine: Vec<_> = shared.iter().filter(|turn| turn.sender == s).collect();
                prop_assert!(mine.len() <= sender.mails as usize);
                let recipients: u64 = mine.iter().map(|turn| waiting[s][turn.mail.1][turn.mail.2]).sum();
                prop_assert!(recipients <= sender.recipients);
                for (q, queue) in sender.queues.iter().enumerate() {
                    let got: Vec<usize> = mine.iter().filter(|turn| turn.queue == q).map(|turn| turn.mail.2).collect();
                    prop_assert_eq!(&got, &(0..got.len()).collect::<Vec<_>>(), "in order, without gaps");
                    // With turns left, a queue stops only where it is done or where its next mail does not fit.
                    if shared.len() < max && mine.len() < sender.mails as usize && got.len() < queue.waiting.len() {
                        prop_assert!(recipients + queue.waiting[got.len()].1 > sender.recipients);
                    }
                }
            }
            prop_assert!(shared.windows(2).all(|pair| pair[0].turn < pair[1].turn));
        }

        /// Over many rounds of little each, queues that always have mail are served alike, whatever others do.
        #[test]
        fn queues_that_always_wait_are_served_alike(counts in prop::collection::vec(1..4u32, 20..60), queues in 2..6usize) {
            let (mut turns, mut served) = (vec![0; queues], vec![0u32; queues]);
            for mails in counts {
                let waiting = |q: usize| queue(turns[q], &[(q as u32, 1), (q as u32, 1), (q as u32, 1)]);
                let sender = Sender { mails, recipients: u64::MAX, turn: 0, queues: (0..queues).map(waiting).collect() };
                for turn in share(vec![sender], 0, 64) {
                    served[turn.queue] += 1;
                    turns[turn.queue] = turn.turn;
                }
                let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
                prop_assert!(most - least <= 1, "{served:?}");
            }
        }
    }
}
