//! The shell around the holder: registers, sends heartbeats, and does what the holder makes of their answers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use postroom_proto::lease::{LeaseTerms, Moment};
use postroom_proto::observe::Health;
use postroom_proto::{metric, v1};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::GRACE;
use crate::control::{self, Control};
use crate::holder::{self, Action, Holder, Offer, Ticket};
use crate::mailbox::lease::Trust;
use crate::pace::crowd::Crowd;
use crate::supervisor::{Event, Supervisor};

/// Pause before a registration is tried again. It doubles each time.
const REGISTER_AGAIN: Duration = Duration::from_millis(300);
/// Longest such pause: a control plane that is back must not wait for its workers.
const REGISTER_AT_LEAST: Duration = Duration::from_secs(3);

type Answer = Result<holder::Answer, control::Error>;

/// The shell around the holder: heartbeats out, answers in, actions to the supervisor.
pub(super) struct Leases {
    /// What this worker says of itself.
    pub(super) registration: v1::RegisterRequest,
    /// After a stop its mailboxes wait for a process of the same name.
    pub(super) returning: bool,
    /// Why the control plane does not take this worker.
    pub(super) refused: Arc<OnceLock<String>>,
    pub(super) control: Control,
    /// Tells the reporter, and who takes errands, under which session to call.
    pub(super) reporter: Box<dyn Fn(&str) + Send + Sync>,
    pub(super) holder: Holder,
    pub(super) terms: LeaseTerms,
    pub(super) supervisor: Supervisor,
    pub(super) trust: Trust,
    pub(super) start: Instant,
    pub(super) jitter: f64,
    /// The control plane has taken this worker once.
    pub(super) registered: bool,
    pub(super) crowd: Crowd,
    /// A heartbeat is worth sending before its time.
    pub(super) nudged: Arc<Notify>,
    /// No mail is under way any more, and none will be. The session lives until then: what became of mails is told under it.
    pub(super) sent: CancellationToken,
    pub(super) health: Health,
    /// Whether it was told that there is a session, and that it is trusted.
    pub(super) told: Option<(bool, bool)>,
}

impl Leases {
    pub(super) async fn run(mut self, mut events: mpsc::Receiver<Event>, stopping: CancellationToken) {
        // Invariant: one heartbeat in flight; the answer to an abandoned one is dropped with its future.
        let mut in_flight: Option<BoxFuture<'static, (Ticket, Answer)>> = None;
        let mut until = None;
        loop {
            if !stopping.is_cancelled() {
                self.tell_health();
            }
            if self.holder.session().is_none() {
                tokio::select! {
                    () = stopping.cancelled() => break,
                    taken = self.register() => if !taken { return },
                }
                in_flight = None;
            }
            if stopping.is_cancelled() && until.is_none() {
                until = Some(Instant::now() + GRACE);
                let actions = self.holder.stop();
                self.act(actions);
            }
            let sent = self.sent.is_cancelled();
            if until.is_some_and(|until| self.holder.is_empty() && sent || Instant::now() >= until) {
                break;
            }
            let beat = self.holder.heartbeat_due(self.jitter).map(|due| self.start + due);
            let lapse = self.holder.trust_ends().map(|end| self.start + end);
            tokio::select! {
                () = stopping.cancelled(), if until.is_none() => {}
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                () = self.sent.cancelled(), if until.is_some() && !sent => {}
                Some((ticket, answer)) = OptionFuture::from(in_flight.as_mut()) => {
                    in_flight = None;
                    self.answered(ticket, answer);
                }
                () = sleep_until(beat.unwrap_or_else(Instant::now)), if beat.is_some() => {
                    in_flight = self.beat();
                }
                () = sleep_until(lapse.unwrap_or_else(Instant::now)), if lapse.is_some() => {
                    let actions = self.holder.tick(self.now());
                    self.act(actions);
                }
                () = self.nudged.notified() => self.holder.nudged(),
                Some(event) = events.recv() => self.happened(event),
            }
        }
        self.goodbye().await;
    }

    /// Tells whether the worker can do its work, when that has changed.
    fn tell_health(&mut self) {
        let stands = (self.holder.session().is_some(), self.holder.is_trusted(self.now()));
        if self.told == Some(stands) {
            return;
        }
        self.told = Some(stands);
        metric::TRUSTED.set(&[], if stands.1 { 1.0 } else { 0.0 });
        self.health.set(match stands {
            (false, _) => vec!["it is not registered: see its log for what the control plane said".into()],
            (true, false) => {
                vec!["the control plane is silent: nothing is reported or changed until it answers".into()]
            }
            (true, true) => Vec::new(),
        });
    }

    fn now(&self) -> Moment {
        self.start.elapsed()
    }

    /// Registers, however long it takes. False: the control plane refuses this worker, which it never took before; more
    /// tries would not help. One that it took before may be refused for a moment only, as while it is restored.
    async fn register(&mut self) -> bool {
        let mut pause = REGISTER_AGAIN;
        loop {
            match self.control.register(self.registration.clone()).await {
                Ok((session, terms)) => {
                    tracing::info!(worker = self.registration.worker_name, %session, "registered");
                    (self.reporter)(session.as_str());
                    self.terms = terms;
                    self.registered = true;
                    self.holder.registered(session, terms);
                    return true;
                }
                Err(control::Error::Refused(why)) if !self.registered => {
                    // A second word on it would say the same.
                    let _ = self.refused.set(why);
                    return false;
                }
                Err(error) => {
                    tracing::warn!(%error, delay = ?pause, "this worker is not registered yet; trying again");
                }
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.8..=1.2))).await;
            pause = (pause * 2).min(REGISTER_AT_LEAST);
        }
    }

    fn beat(&mut self) -> Option<BoxFuture<'static, (Ticket, Answer)>> {
        self.jitter = rand::random_range(-1.0..=1.0);
        let mut heartbeat = self.holder.heartbeat(self.now())?;
        for held in &mut heartbeat.held {
            held.definition_revision = self.supervisor.running(&held.mailbox, held.epoch);
        }
        #[allow(clippy::cast_precision_loss)]
        metric::HELD.set(&[], heartbeat.held.len() as f64);
        let (control, patience) = (self.control.clone(), self.terms.heartbeat_timeout);
        Some(Box::pin(async move {
            let begun = Instant::now();
            let answer = control.heartbeat(&heartbeat, patience).await;
            metric::HEARTBEATS.count(&[match &answer {
                Ok(_) => "answered",
                Err(control::Error::SessionEnded) => "session-ended",
                Err(control::Error::Unanswered(_)) => "unanswered",
                Err(control::Error::Refused(_)) => "refused",
            }]);
            if answer.is_ok() {
                metric::HEARTBEAT_TIME.observe(&[], begun.elapsed());
            }
            (heartbeat.ticket, answer)
        }))
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer) {
        let actions = match answer {
            Ok(answer) => {
                self.terms = answer.terms;
                self.holder.answered(self.now(), ticket, answer)
            }
            Err(control::Error::SessionEnded) => match self.holder.session().cloned() {
                Some(session) => self.holder.session_ended(&session),
                None => Vec::new(),
            },
            Err(control::Error::Unanswered(why) | control::Error::Refused(why)) => {
                tracing::debug!(error = why, "a heartbeat was not answered");
                self.holder.abandoned(ticket);
                Vec::new()
            }
        };
        // Ordering: trust first, so that what is opened below may write at once.
        self.extend_trust();
        self.act(actions);
    }

    fn extend_trust(&self) {
        if let Some(end) = self.holder.trust_ends() {
            self.trust.extend(self.start + end);
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        let opens = actions.iter().filter(|action| matches!(action, Action::Open(_))).count();
        let spread = self.crowd.is_one(opens);
        for action in actions {
            match action {
                // The loop registers whenever there is no session.
                Action::Register => {}
                Action::Open(offer) => {
                    let Offer { mailbox, epoch, definition_revision } = offer;
                    tracing::info!(%mailbox, %epoch, "a mailbox is leased to this worker");
                    self.supervisor.open(&mailbox, epoch, definition_revision, spread);
                }
                Action::Reopen(offer) => self.supervisor.reopen(&offer.mailbox, offer.definition_revision),
                Action::Drain(mailbox, _) => self.supervisor.drain(&mailbox),
                Action::Close(mailbox, epoch) => {
                    tracing::info!(%mailbox, %epoch, "a mailbox was let go");
                    self.supervisor.close(&mailbox);
                }
                Action::Suspend => {
                    tracing::warn!("the control plane is silent: nothing is reported or changed until it answers");
                    self.trust.end();
                }
                Action::Resume => {
                    tracing::info!("the control plane answers again");
                    // Ordering: again, for an answer that comes after trust has lapsed suspends before it resumes.
                    self.extend_trust();
                }
            }
        }
    }

    fn happened(&mut self, event: Event) {
        let actions = match event {
            Event::Gone { mailbox, epoch } => {
                tracing::info!(%mailbox, %epoch, "a mailbox was let go");
                self.supervisor.forget(&mailbox, epoch);
                self.holder.let_go(&mailbox, epoch);
                Vec::new()
            }
            Event::LeaseLost { mailbox, epoch } => {
                tracing::warn!(%mailbox, %epoch, "the lease on a mailbox was lost");
                self.supervisor.forget(&mailbox, epoch);
                self.holder.lost(&mailbox, epoch)
            }
            Event::SessionEnded { mailbox, epoch } => {
                self.supervisor.forget(&mailbox, epoch);
                // News of a lease that is not held any more is news of a session before this one.
                match self.holder.session().cloned().filter(|_| self.holder.holds(&mailbox, epoch)) {
                    Some(session) => self.holder.session_ended(&session),
                    None => Vec::new(),
                }
            }
        };
        self.act(actions);
    }

    /// Lets go of what is left, and says so.
    async fn goodbye(self) {
        let session = self.holder.session().cloned();
        if timeout(GRACE, self.supervisor.stop()).await.is_err() {
            tracing::warn!("mailboxes were still being closed");
        }
        if let Some(session) = session
            && let Err(error) = self.control.leave(&session, self.returning).await
        {
            tracing::warn!(%error, "the control plane could not be told goodbye; it will notice the silence");
        }
    }
}

#[cfg(test)]
mod tests {
    use postroom_proto::id::{Epoch, MailboxUid, SessionId};

    use super::*;
    use crate::config::{Config, Reading};
    use crate::mailbox::lease::{Lease, Switch};
    use crate::mailbox::session::Shared;
    use crate::mailbox::status::Board;
    use crate::report::nobody::Nobody;

    /// A registered worker that holds one mailbox under epoch 7 since a heartbeat sent `before` now.
    fn holding(before: Duration) -> (Leases, MailboxUid, Lease, Switch) {
        let trust = Trust::new();
        let (switch, lease) = Switch::new(&trust);
        let shared = Shared::new(Reading::default(), Arc::new(Nobody), Arc::new(Board::new()));
        let (supervisor, _) = Supervisor::new(shared, trust.clone());
        let mut leases = Leases {
            registration: v1::RegisterRequest::default(),
            returning: true,
            refused: Arc::default(),
            control: Control::new(&Config::new("http://127.0.0.1:1", "t".into(), "w")).expect("a URL"),
            reporter: Box::new(|_| {}),
            holder: Holder::new(LeaseTerms::default()),
            terms: LeaseTerms::default(),
            supervisor,
            trust,
            start: Instant::now().checked_sub(before).expect("the machine runs longer"),
            jitter: 0.0,
            registered: false,
            crowd: Crowd::new(50),
            nudged: Arc::default(),
            sent: CancellationToken::new(),
            health: Health::starting(),
            told: None,
        };
        leases.holder.registered(SessionId::parse("s").expect("a session"), LeaseTerms::default());
        let mailbox = MailboxUid::derive("a", "INBOX", "x.example");
        let ticket = leases.holder.heartbeat(Moment::ZERO).expect("registered").ticket;
        let actions = leases.holder.answered(Moment::ZERO, ticket, offering(&mailbox));
        leases.act(actions);
        (leases, mailbox, lease, switch)
    }

    fn offering(mailbox: &MailboxUid) -> holder::Answer {
        let offer = Offer { mailbox: mailbox.clone(), epoch: Epoch(7), definition_revision: 1 };
        holder::Answer { term: 1, terms: LeaseTerms::default(), offers: vec![offer] }
    }

    #[tokio::test]
    async fn the_answer_that_ends_a_silence_allows_to_write_at_once() {
        let terms = LeaseTerms::default();
        let (mut leases, mailbox, mut lease, _switch) = holding(terms.trust() + Duration::from_secs(1));
        let ticket = leases.holder.heartbeat(leases.now()).expect("registered").ticket;
        leases.answered(ticket, Ok(offering(&mailbox)));
        assert_eq!(futures::FutureExt::now_or_never(lease.may_write(|| ())), Some(Ok(())));
    }

    #[tokio::test]
    async fn only_a_lease_that_is_held_can_tell_that_the_session_is_over() {
        let (mut leases, mailbox, _lease, _switch) = holding(Duration::ZERO);
        leases.happened(Event::SessionEnded { mailbox: mailbox.clone(), epoch: Epoch(6) });
        assert!(leases.holder.session().is_some(), "a straggler of the session before");
        leases.happened(Event::SessionEnded { mailbox, epoch: Epoch(7) });
        assert!(leases.holder.session().is_none());
    }
}
