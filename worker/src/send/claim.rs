//! One claimed mail under way: how long there is, whether its data was handed over, and what an attempt may come to.
//!
//! Invariant: nothing of a mail is handed over before [`UnderWay::mark`] has returned, nor after the time of the claim, and
//! whatever goes wrong after [`UnderWay::handing_over`] without a clear answer is an outcome that is not known.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postroom_proto::v1::{Claim, RecipientOutcome};
use tokio::time::{Instant, sleep};

use super::outbox::{Error, Outbox};
use super::verdict::{Fault, Verdict};
use crate::mailbox::status::now;

/// Pause before a call that was not answered is made again. It doubles each time.
pub(super) const AGAIN: Duration = Duration::from_millis(100);
/// Longest such pause.
pub(super) const AGAIN_AT_LEAST: Duration = Duration::from_secs(2);

/// Why an attempt did not come to its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Broken {
    /// It was clearly not taken; of some recipients more may be known.
    Fault(Fault, Vec<RecipientOutcome>),
    /// There was no clear answer: what that means hangs on whether the data was handed over.
    Lost(Fault),
    /// The claim is over: the mail is nothing to this worker any more.
    ClaimLost,
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault, Vec::new())
    }
}

/// A moment after which nothing may be handed over any more, because the mail may be another's then.
///
/// By two clocks: the one that timers go by stands still while the machine is suspended, and the one on the wall can be
/// set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    instant: Instant,
    /// Microseconds since 1970.
    wall: i64,
}

impl Deadline {
    /// `time` from now on.
    pub fn after(time: Duration) -> Self {
        Self::since(Instant::now(), now(), time)
    }

    fn since(instant: Instant, wall: i64, time: Duration) -> Self {
        Self { instant: instant + time, wall: wall.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)) }
    }

    /// True once either clock says so.
    pub fn is_past(&self) -> bool {
        Instant::now() >= self.instant || now() >= self.wall
    }
}

/// A claimed mail under way.
pub struct UnderWay {
    outbox: Arc<dyn Outbox>,
    claim: Claim,
    until: Mutex<Deadline>,
    handed_over: AtomicBool,
}

impl std::fmt::Debug for UnderWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnderWay").field("mail", &self.claim.mail).finish_non_exhaustive()
    }
}

impl UnderWay {
    /// A claim that lapses then.
    pub fn new(outbox: Arc<dyn Outbox>, claim: Claim, until: Deadline) -> Self {
        Self { outbox, claim, until: Mutex::new(until), handed_over: AtomicBool::new(false) }
    }

    /// When the claim lapses.
    pub fn until(&self) -> Instant {
        self.deadline().instant
    }

    fn deadline(&self) -> Deadline {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it recorded, durably, that the data is handed over now. Repeated until it is answered: a mark whose answer
    /// was lost is no leave to hand anything over. The time of the claim ends that.
    pub async fn mark(&self) -> Result<(), Broken> {
        let mut pause = AGAIN;
        loop {
            // Ordering: before it is asked, so that we never believe to have more time than there is.
            let (asked, asked_by_the_wall) = (Instant::now(), now());
            match self.outbox.mark(self.claim.clone()).await {
                Ok(left) => {
                    let until = Deadline::since(asked, asked_by_the_wall, left);
                    *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
                    // The answer may have lain here while this process did not run.
                    return if until.is_past() { Err(Broken::ClaimLost) } else { Ok(()) };
                }
                Err(Error::ClaimLost | Error::SessionEnded) => return Err(Broken::ClaimLost),
                Err(Error::Unavailable(why)) => {
                    tracing::debug!(mail = self.claim.mail, error = why, "a mark is made again")
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(AGAIN_AT_LEAST);
        }
    }

    /// From now on the server may take the mail; unless the time of the claim is over, when nothing may be handed over any
    /// more. What is answered holds for what is still to be sent of it.
    pub fn handing_over(&self) -> Result<Deadline, Broken> {
        let deadline = self.deadline();
        if deadline.is_past() {
            return Err(Broken::ClaimLost);
        }
        self.handed_over.store(true, Ordering::SeqCst);
        Ok(deadline)
    }

    /// What an attempt has come to; `None`: nothing that there is anybody to tell. `attempt`: which one, from 1; `random`:
    /// 0.0 to 1.0.
    pub fn verdict(&self, end: Result<Verdict, Broken>, attempt: u32, random: f64) -> Option<Verdict> {
        Some(match end {
            Ok(verdict) => verdict,
            Err(Broken::Fault(fault, recipients)) => Verdict { recipients, ..Verdict::refused(fault, attempt, random) },
            Err(Broken::Lost(fault)) if self.handed_over.load(Ordering::SeqCst) => Verdict::unknown(&fault.found),
            Err(Broken::Lost(fault)) => Verdict::refused(fault, attempt, random),
            Err(Broken::ClaimLost) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use postroom_proto::v1::SendVerdict;

    use super::*;
    use crate::send::peer::Ledger;
    use crate::send::verdict::smtp::{Step, lost};

    fn under_way() -> UnderWay {
        UnderWay::new(Arc::new(Ledger::default()), Claim::default(), Deadline::after(Duration::from_secs(60)))
    }

    #[test]
    fn a_lost_answer_is_unknown_only_after_the_data_was_handed_over() {
        let under_way = under_way();
        let lost = || Err(Broken::Lost(lost(Step::End, "gone")));
        let before = under_way.verdict(lost(), 1, 0.5).expect("a verdict");
        assert_eq!(before.verdict, SendVerdict::Deferred);
        under_way.handing_over().expect("in time");
        let after = under_way.verdict(lost(), 1, 0.5).expect("a verdict");
        assert_eq!(after.verdict, SendVerdict::Unknown);
        assert!(after.found.expect("a problem").cause.contains("gone"));
        assert!(under_way.verdict(Err(Broken::ClaimLost), 1, 0.5).is_none());
    }

    #[tokio::test]
    async fn a_mark_is_repeated_until_it_is_answered_and_gives_new_time() {
        let ledger = Arc::new(Ledger::default());
        ledger.marks([Err(Error::Unavailable("no".into())), Ok(Duration::from_secs(600))]);
        let under_way = UnderWay::new(ledger.clone(), Claim::default(), Deadline::after(Duration::ZERO));
        under_way.mark().await.expect("marked");
        assert!(under_way.until() > Instant::now() + Duration::from_secs(500));
        ledger.marks([Err(Error::ClaimLost)]);
        assert_eq!(under_way.mark().await, Err(Broken::ClaimLost));
    }

    #[tokio::test]
    async fn nothing_is_handed_over_once_the_time_is_over() {
        let ledger = Arc::new(Ledger::default());
        ledger.marks([Ok(Duration::ZERO), Ok(Duration::from_secs(600))]);
        let under_way = UnderWay::new(ledger, Claim::default(), Deadline::after(Duration::from_secs(60)));
        assert_eq!(under_way.mark().await, Err(Broken::ClaimLost), "its answer came too late");
        assert_eq!(under_way.handing_over(), Err(Broken::ClaimLost));
        under_way.mark().await.expect("marked");
        assert!(under_way.handing_over().is_ok_and(|deadline| !deadline.is_past()));
    }

    #[test]
    fn a_machine_that_slept_is_late_by_the_clock_on_the_wall() {
        let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
        let hour_ago = now() - 3_600_000_000;
        assert!(!Deadline::since(Instant::now(), now(), minute).is_past());
        assert!(Deadline::since(Instant::now(), hour_ago, minute).is_past());
        assert!(!Deadline::since(Instant::now(), hour_ago, hour + minute).is_past());
    }
}
