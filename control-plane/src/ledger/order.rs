//! The promise of the order, played against a plain model through the real ledger: arrivals, takers, answers, deadlines,
//! transfers and restarts at random. After every step the ledger's answer is the model's: no contact is allocated twice
//! at a time, none is forgotten, and at every allocation the best come first, by both policies.

use std::collections::HashMap;
use std::path::Path;

use postroom_proto::v1::{self, ContactState};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;

use super::sqlite::Sqlite;
use super::suite::{fence, mailbox, message};
use super::{Answer, AnswerOutcome, Batch, ContactFilter, Cursor, Intake, Ledger as _, Micros, Take, Transfer};
use crate::contact::allocation::{LONGEST_HOLD, MOST_REFUSALS, Refused};
use crate::definition::model::Allocation;
use crate::sqlite::Location;

/// Together 100,000 steps.
const WORLDS: u64 = 4;
const STEPS: u32 = 25_000;
/// Steps between two looks at everything.
const AUDIT: u32 = 2500;
/// Contacts that are not ended: enough for a crowd at every priority, few enough to meet each often.
const CROWD: usize = 60;
const MINUTE: Micros = 60_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_a_hundred_thousand_steps_the_ledger_does_what_a_plain_model_does() {
    let first: u64 = rand::random();
    let mut worlds = JoinSet::new();
    for number in 0..WORLDS {
        worlds.spawn(play(first.wrapping_add(number)));
    }
    let (mut taken, mut restarts) = (0, 0);
    while let Some(world) = worlds.join_next().await {
        let world = world.unwrap();
        taken += world.taken;
        restarts += world.restarts;
    }
    println!("seeds from {first}: {taken} contacts handed out, {restarts} restarts");
    assert!(taken > 10_000 && restarts >= WORLDS, "the play meant something: {taken}, {restarts}");
}

/// A contact as it should be.
#[derive(Debug, Clone)]
struct Contact {
    id: String,
    instance: usize,
    priority: u32,
    waiting_since: Micros,
    state: ContactState,
    request: String,
    allocated_at: Micros,
    deadline: Micros,
    refusals: u32,
}

struct World {
    seed: u64,
    step: u32,
    now: Micros,
    random: Xoshiro256PlusPlus,
    ledger: Sqlite,
    location: Location,
    /// In the order of their intake.
    contacts: Vec<Contact>,
    batches: u64,
    requests: u32,
    last_request: [Option<Take>; 2],
    taken: u64,
    restarts: u64,
}

async fn play(seed: u64) -> World {
    // In memory where there is such a folder: the ledger's file is real, its fsyncs need not be.
    let shared = Path::new("/dev/shm");
    let folder = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }.unwrap();
    let location = Location::File(folder.path().join("ledger.db"));
    let ledger = Sqlite::open(&location).await.unwrap();
    ledger.open(&mailbox("a@x.example"), &fence(1, "s1")).await.unwrap().unwrap();
    let random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut world = World {
        seed,
        step: 0,
        now: MINUTE,
        random,
        ledger,
        location,
        contacts: Vec::new(),
        batches: 0,
        requests: 0,
        last_request: [None, None],
        taken: 0,
        restarts: 0,
    };
    while world.step < STEPS {
        world.step += 1;
        world.now += world.random.random_range(0..MINUTE / 2);
        world.one_step().await;
        if world.step.is_multiple_of(AUDIT) {
            world.audit().await;
        }
    }
    world.ledger.close().await;
    world
}

impl World {
    fn at(&self) -> String {
        format!("seed {}, step {}", self.seed, self.step)
    }

    async fn one_step(&mut self) {
        let crowd = self.contacts.iter().filter(|contact| contact.state != ContactState::Ended).count();
        match self.random.random_range(0..100) {
            0..25 if crowd < CROWD => self.arrive().await,
            0..35 => self.allocate().await,
            35..38 => self.repeat_allocate().await,
            38..52 => self.answer(Answer::Accept).await,
            52..64 => self.answer(Answer::Reject).await,
            64..70 => {
                let within = self.random.random_range(1..60) * MINUTE;
                self.answer(Answer::Extend(within)).await;
            }
            70..82 => self.answer(Answer::End("done".into())).await,
            82..86 => self.answer(Answer::Requeue).await,
            86..94 => self.transfer().await,
            94..98 => self.lapse().await,
            _ if self.step.is_multiple_of(20) => self.restart().await,
            _ => self.allocate().await,
        }
    }

    async fn arrive(&mut self) {
        let instance = self.random.random_range(0..2);
        let priority = self.random.random_range(1..5);
        // Many of the same age, so that the order of intake decides too; and some from the future, which wait since now.
        let ages: Vec<Micros> =
            (0..self.random.random_range(1..4)).map(|_| self.random.random_range(-2..20) * MINUTE).collect();
        let received: Vec<Micros> = ages.iter().map(|age| self.now - age).collect();
        let cursor = |number: u64| match number {
            0 => Cursor::default(),
            _ => Cursor { protocol: "imap".into(), value: number.to_be_bytes().to_vec() },
        };
        let messages = received.iter().enumerate();
        let batch = Batch {
            mailbox: mailbox("a@x.example"),
            fence: fence(1, "s1"),
            id: format!("batch-{}", self.batches),
            expected: cursor(self.batches),
            next: cursor(self.batches + 1),
            intake: Intake {
                instance_uid: uid(instance),
                instance: uid(instance),
                queue_uid: "q".into(),
                queue: "q".into(),
                address: "a@x.example".into(),
                priority,
                language: "en".into(),
            },
            messages: messages.map(|(n, at)| message(&format!("{}:{n}", self.batches), *at)).collect(),
            settled: Vec::new(),
            numbering: 0,
            backlog: None,
        };
        self.batches += 1;
        let outcomes = self.ledger.report(batch, self.now).await.unwrap().unwrap().outcomes;
        self.contacts.extend(outcomes.into_iter().zip(received).map(|(outcome, received)| Contact {
            id: outcome.contact,
            instance,
            priority,
            waiting_since: received.min(self.now),
            state: ContactState::Queued,
            request: String::new(),
            allocated_at: 0,
            deadline: 0,
            refusals: 0,
        }));
    }

    async fn allocate(&mut self) {
        let instance = self.random.random_range(0..2);
        self.requests += 1;
        let take = Take {
            instance_uid: uid(instance),
            policy: policy(instance),
            max: self.random.random_range(1..6),
            request_id: format!("r{}", self.requests),
            accept_within: self.random.random_range(1..20) * MINUTE,
        };
        let got = self.ledger.allocate(take.clone(), self.now).await.unwrap().contacts;
        self.lapse_model(Some(instance));
        let waiting = self.contacts.iter().enumerate();
        let mut waiting: Vec<usize> = waiting
            .filter(|(_, it)| it.instance == instance && it.state == ContactState::Queued)
            .map(|(number, _)| number)
            .collect();
        waiting.sort_by(|a, b| self.before(instance, *a, *b));
        waiting.truncate(take.max as usize);
        let expected: Vec<&str> = waiting.iter().map(|number| self.contacts[*number].id.as_str()).collect();
        assert_eq!(ids(&got), expected, "the best of instance {instance}: {}", self.at());
        for number in waiting {
            let contact = &mut self.contacts[number];
            contact.state = ContactState::Allocated;
            contact.request.clone_from(&take.request_id);
            contact.allocated_at = self.now;
            contact.deadline = self.now + take.accept_within;
        }
        self.taken += got.len() as u64;
        if !got.is_empty() {
            self.last_request[instance] = Some(take);
        }
    }

    /// The order, written once more and plainly.
    fn before(&self, instance: usize, a: usize, b: usize) -> std::cmp::Ordering {
        let (left, right) = (&self.contacts[a], &self.contacts[b]);
        let strict = (left.priority, left.waiting_since, a).cmp(&(right.priority, right.waiting_since, b));
        match policy(instance) {
            Allocation::Strict => strict,
            Allocation::TargetTime => {
                let share = |it: &Contact, other: &Contact| {
                    i128::from(self.now - it.waiting_since) * i128::from(other.priority)
                };
                share(right, left).cmp(&share(left, right)).then(strict)
            }
        }
    }

    /// The answer was lost: the same set, as far as it is still held, and nothing new.
    async fn repeat_allocate(&mut self) {
        let instance = self.random.random_range(0..2);
        let Some(take) = self.last_request[instance].clone() else { return };
        let got = self.ledger.allocate(take.clone(), self.now).await.unwrap().contacts;
        let held = self.contacts.iter().filter(|it| {
            let ours = it.state == ContactState::Allocated && it.request == take.request_id && it.instance == instance;
            ours && it.deadline > self.now
        });
        let mut expected: Vec<&str> = held.map(|it| it.id.as_str()).collect();
        let mut got = ids(&got);
        expected.sort_unstable();
        got.sort_unstable();
        assert_eq!(got, expected, "{}", self.at());
    }

    /// A contact that something may happen to.
    fn some_contact(&mut self, likely: ContactState) -> Option<usize> {
        let wanted =
            |state| if self.step.is_multiple_of(8) { state != ContactState::Unspecified } else { state == likely };
        let fitting = self.contacts.iter().enumerate().rev().filter(|(_, it)| wanted(it.state)).take(2 * CROWD);
        let fitting: Vec<usize> = fitting.map(|(number, _)| number).collect();
        (!fitting.is_empty()).then(|| fitting[self.random.random_range(0..fitting.len())])
    }

    /// The request that holds a contact, nobody's in particular, or a wrong one.
    fn some_request(&mut self, number: usize) -> String {
        match self.random.random_range(0..10) {
            0 => "wrong".into(),
            1..3 => String::new(),
            _ => self.contacts[number].request.clone(),
        }
    }

    async fn answer(&mut self, answer: Answer) {
        let likely = match answer {
            Answer::Accept | Answer::Reject | Answer::Extend(_) => ContactState::Allocated,
            Answer::End(_) => ContactState::Accepted,
            Answer::Requeue => ContactState::Dead,
        };
        let Some(number) = self.some_contact(likely) else { return };
        let request = self.some_request(number);
        let foreign = self.random.random_range(0..20) == 0;
        let instance = if foreign { 1 - self.contacts[number].instance } else { self.contacts[number].instance };
        let named = vec![(self.contacts[number].id.clone(), request.clone())];
        let got = self.ledger.answer(&uid(instance), answer.clone(), named, self.now).await.unwrap();
        let expected = if foreign { Err(Refused::Unknown) } else { self.answer_model(number, &answer, &request) };
        let got: Vec<_> = got.iter().map(AnswerOutcome::result).collect();
        let alike = match (&got[0], &expected) {
            (Err(Refused::WrongState(_)), Err(Refused::WrongState(_))) => true,
            (got, expected) => got == expected,
        };
        assert!(alike, "{answer:?} of {:?}: {got:?}, not {expected:?}: {}", self.contacts[number], self.at());
    }

    fn answer_model(&mut self, number: usize, answer: &Answer, request: &str) -> Result<ContactState, Refused> {
        use ContactState as S;
        let now = self.now;
        let it = &mut self.contacts[number];
        let ours = request.is_empty() || request == it.request;
        let late = it.state == S::Allocated && it.deadline <= now;
        match (answer, it.state) {
            (Answer::Requeue, S::Dead) => {
                it.state = S::Queued;
                it.refusals = 0;
            }
            (Answer::Requeue, S::Queued | S::Allocated) => {}
            (Answer::Requeue, _) => return Err(Refused::WrongState("")),
            (Answer::Reject, S::Queued | S::Dead) => {}
            (Answer::Reject, S::Accepted | S::Ended) => return Err(Refused::WrongState("")),
            (Answer::Extend(_), S::Accepted | S::Ended) => return Err(Refused::WrongState("")),
            (_, S::Queued | S::Dead | S::Unspecified) => return Err(Refused::NotAllocated),
            _ if !ours => return Err(Refused::OtherRequest),
            (Answer::Reject, S::Allocated) => refuse_model(it),
            (Answer::Accept | Answer::Extend(_), S::Allocated) if late => return Err(Refused::NotAllocated),
            (Answer::Accept, S::Allocated) => it.state = S::Accepted,
            (Answer::Accept, S::Accepted | S::Ended) => {}
            (Answer::Extend(within), S::Allocated) => {
                it.deadline = it.deadline.max((now + within).min(it.allocated_at + LONGEST_HOLD));
            }
            (Answer::End(_), S::Allocated) => return Err(Refused::WrongState("")),
            (Answer::End(_), S::Accepted | S::Ended) => it.state = S::Ended,
        }
        Ok(it.state)
    }

    async fn transfer(&mut self) {
        let state = [ContactState::Queued, ContactState::Accepted, ContactState::Dead, ContactState::Allocated];
        let likely = state[self.random.random_range(0..4)];
        let Some(number) = self.some_contact(likely) else { return };
        let request = self.some_request(number);
        let from = self.contacts[number].instance;
        let to = self.random.random_range(0..2);
        let priority = self.random.random_range(1..5);
        self.requests += 1;
        let transfer = Transfer {
            request_id: format!("t{}", self.requests),
            contacts: vec![(self.contacts[number].id.clone(), request.clone())],
            instance_uid: uid(to),
            instance: uid(to),
            queue_uid: "q".into(),
            queue: "q".into(),
            priority,
            language: "en".into(),
        };
        let got = self.ledger.transfer(&uid(from), transfer.clone(), self.now).await.unwrap()[0];
        let (now, at) = (self.now, self.at());
        let it = &mut self.contacts[number];
        let ours = request.is_empty() || request == it.request;
        let free = match it.state {
            ContactState::Queued | ContactState::Dead => true,
            ContactState::Allocated => ours || it.deadline <= now,
            ContactState::Accepted => ours,
            ContactState::Ended | ContactState::Unspecified => false,
        };
        assert_eq!(got.refused.is_none(), free, "transfer of {it:?} by {request:?}: {at}");
        if free {
            (it.instance, it.priority, it.refusals) = (to, priority, 0);
            (it.state, it.request) = (ContactState::Queued, String::new());
            // Repeated, it changes nothing.
            let again = self.ledger.transfer(&uid(from), transfer, now).await.unwrap()[0];
            assert_eq!(again.result(), Ok(ContactState::Queued), "{at}");
        }
    }

    async fn lapse(&mut self) {
        self.ledger.lapse(self.now).await.unwrap();
        self.lapse_model(None);
    }

    fn lapse_model(&mut self, instance: Option<usize>) {
        for it in &mut self.contacts {
            let concerned = instance.is_none_or(|instance| instance == it.instance);
            if concerned && it.state == ContactState::Allocated && it.deadline <= self.now {
                refuse_model(it);
            }
        }
    }

    async fn restart(&mut self) {
        self.ledger.close().await;
        self.ledger = Sqlite::open(&self.location).await.unwrap();
        self.restarts += 1;
    }

    /// Every contact stands where it should, and there is no other.
    async fn audit(&self) {
        let mut found = HashMap::new();
        let mut after = None;
        loop {
            let page = self.ledger.contacts(&ContactFilter::default(), after.as_ref(), 1000).await.unwrap();
            let rows =
                page.rows.into_iter().map(|(place, contact)| (contact.id.clone(), (place.instance_uid, contact)));
            for (id, standing) in rows {
                assert!(found.insert(id, standing).is_none(), "listed twice: {}", self.at());
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found.len(), self.contacts.len(), "{}", self.at());
        for it in &self.contacts {
            let (instance, contact) = &found[&it.id];
            let stands = (instance.as_str(), contact.state(), contact.priority, contact.refusal_count);
            let should = (&*uid(it.instance), it.state, it.priority, it.refusals);
            assert_eq!(stands, should, "{it:?}: {}", self.at());
        }
    }
}

fn refuse_model(it: &mut Contact) {
    it.refusals += 1;
    it.state = if it.refusals >= MOST_REFUSALS { ContactState::Dead } else { ContactState::Queued };
    it.request = String::new();
}

fn uid(instance: usize) -> String {
    format!("i{instance}")
}

fn policy(instance: usize) -> Allocation {
    if instance == 0 { Allocation::Strict } else { Allocation::TargetTime }
}

fn ids(contacts: &[v1::Contact]) -> Vec<&str> {
    contacts.iter().map(|contact| contact.id.as_str()).collect()
}
