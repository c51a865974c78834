//! Looks at where a session stands, tells it when it lasts, and ends the session that stands still.

use std::time::Duration;

use postroom_proto::convert::to_timestamp;
use postroom_proto::v1::MailboxActivity;
use tokio::time::{Instant, sleep_until};

use super::{Activity, At, Stalled, Standing};
use crate::config::Reading;
use crate::mailbox::lease::Lease;
use crate::mailbox::status::{Teller, now};

/// How often is looked, and from when on is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rhythm {
    /// How often is looked at a session that works.
    pub(super) tick: Duration,
    /// An activity is told once it has lasted this long: most take a moment, and nobody could follow them.
    pub(super) told_after: Duration,
}

const USUAL: Rhythm = Rhythm { tick: Duration::from_secs(10), told_after: Duration::from_secs(10) };

/// Who wakes up so much later than planned was stopped, or had no processor: what stood still meanwhile is not to blame.
const OVERSLEPT: Duration = Duration::from_secs(5);

/// Watches until an activity has lasted longer than it may.
pub async fn watch(standing: Standing, lease: &Lease, reading: &Reading, teller: Teller) -> Stalled {
    watch_at(USUAL, standing, lease, reading, teller).await
}

pub(super) async fn watch_at(
    rhythm: Rhythm,
    standing: Standing,
    lease: &Lease,
    reading: &Reading,
    teller: Teller,
) -> Stalled {
    let mut planned = Instant::now();
    loop {
        let moment = Instant::now();
        if moment > planned + OVERSLEPT {
            standing.forgive(moment);
        }
        if lease.is_suspended() {
            // Nobody commits, so nobody gives room.
            standing.forgive_what(moment, |activity| activity == Activity::Room);
        }
        let look = match standing.look(moment, reading, rhythm.tick) {
            Ok(look) => look,
            Err(stalled) => return stalled,
        };
        teller.stands(look.at.and_then(|at| told(&at, moment, rhythm.told_after)));
        planned = look.again;
        tokio::select! {
            () = sleep_until(look.again) => {}
            () = standing.woken() => planned = Instant::now(),
        }
    }
}

/// What is told of an activity. `None`: nothing; it has just begun, or its state says it all.
fn told(at: &At, moment: Instant, after: Duration) -> Option<MailboxActivity> {
    let lasted = moment.saturating_duration_since(at.since);
    if at.activity.is_rest() || lasted < after {
        return None;
    }
    let line = at.activity.line();
    let micros = |length: Duration| i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
    let now = now();
    let until = at.until.map(|until| now.saturating_add(micros(until.saturating_duration_since(moment))));
    Some(MailboxActivity {
        doing: line.doing.into(),
        since_time: Some(to_timestamp(now.saturating_sub(micros(lasted)))),
        until_time: until.map(to_timestamp),
        next: line.next.into(),
    })
}
