//! What stands still is ended, and what goes on is not.

use futures::FutureExt as _;
use postroom_proto::v1::MailboxState;
use tokio::time::{sleep, timeout};

use super::watchdog::{Rhythm, watch_at};
use super::*;
use crate::mailbox::lease::{Switch, Trust};
use crate::mailbox::status::{Board, Teller};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(86_400);

fn look(standing: &Standing, now: Instant) -> Result<Look, Stalled> {
    standing.look(now, &Reading::default(), TICK)
}

fn most(activity: Activity) -> Duration {
    activity.most(&Reading::default(), Duration::ZERO).expect("a largest time")
}

#[test]
fn every_activity_that_stands_still_is_ended_when_its_time_is_over() {
    for activity in Activity::ALL.into_iter().filter(|activity| *activity != Activity::Suspended) {
        let standing = Standing::default();
        let begun = Instant::now();
        let _here = standing.lasting(activity, SECOND * 1000);
        let most = activity.most(&Reading::default(), SECOND * 1000).expect("a largest time");
        let at = look(&standing, begun + most - SECOND).unwrap_or_else(|it| panic!("{it:?}")).at.expect("it is there");
        assert_eq!(at.activity, activity);
        let stalled = look(&standing, begun + most + SECOND).expect_err("it is over");
        assert!(stalled.activity == activity && stalled.lasted >= most, "{stalled:?}");
    }
}

#[test]
fn what_moves_is_not_ended_however_long_it_takes() {
    let (standing, moves) = (Standing::default(), Moves::default());
    let _here = standing.moving(Activity::Fetching, moves.clone());
    let mut now = Instant::now();
    for _ in 0..1000 {
        now += TICK;
        moves.fetch_add(1, Ordering::Relaxed);
        assert!(look(&standing, now).is_ok());
    }
    assert!(look(&standing, now + most(Activity::Fetching) - SECOND).is_ok());
    assert!(look(&standing, now + most(Activity::Fetching)).is_err(), "then it stands still");
    // What has its whole time from the beginning has no more for moving.
    let _signing_in = standing.moving(Activity::SigningIn, moves.clone());
    let begun = Instant::now();
    moves.fetch_add(1, Ordering::Relaxed);
    assert!(look(&standing, begun + most(Activity::SigningIn) + SECOND).is_err());
}

#[test]
fn the_time_of_what_goes_on_within_is_its_own_and_both_tracks_are_watched() {
    let standing = Standing::default();
    let looking = standing.at(Activity::Looking);
    assert!(most(Activity::Looking) < most(Activity::Asking));
    let asking = standing.at(Activity::Asking);
    let now = Instant::now() + most(Activity::Looking) + SECOND;
    assert!(look(&standing, now).is_ok_and(|look| look.at.is_some_and(|at| at.activity == Activity::Asking)));
    drop(asking);
    assert!(look(&standing, Instant::now() + most(Activity::Looking) - SECOND).is_ok(), "it begins anew");
    let committing = standing.beside(Activity::Committing);
    drop(looking);
    let at = |look: Look| look.at.expect("something").activity;
    assert_eq!(look(&standing, Instant::now()).map(at), Ok(Activity::Committing));
    let fetching = standing.at(Activity::Fetching);
    assert_eq!(look(&standing, Instant::now()).map(at), Ok(Activity::Fetching));
    let stalled = |after| look(&standing, Instant::now() + after).expect_err("one of them").activity;
    assert_eq!(stalled(most(Activity::Fetching)), Activity::Fetching, "the shorter comes first");
    drop(fetching);
    assert_eq!(stalled(most(Activity::Committing)), Activity::Committing);
    drop(committing);
    assert_eq!(
        look(&standing, Instant::now() + DAY).map(|look| look.at),
        Ok(None),
        "between two of them nothing is ended"
    );
}

#[test]
fn whoever_may_not_write_is_never_ended_and_what_it_was_at_has_its_time_afterwards() {
    let standing = Standing::default();
    let _settling = standing.at(Activity::Settling);
    let suspended = standing.at(Activity::Suspended);
    let at = |look: Look| look.at.map(|at| (at.activity, at.until));
    let later = Instant::now() + DAY;
    assert_eq!(look(&standing, later).map(at), Ok(Some((Activity::Suspended, None))));
    assert_eq!(look(&standing, later).map(|look| look.again), Ok(later + TICK), "it is looked at, to be told");
    drop(suspended);
    assert!(look(&standing, Instant::now() + most(Activity::Settling) - SECOND).is_ok());
    assert!(look(&standing, Instant::now() + most(Activity::Settling)).is_err());
}

#[test]
fn what_rests_is_looked_at_when_it_is_to_end_and_what_works_every_moment() {
    let standing = Standing::default();
    let now = Instant::now();
    assert_eq!(look(&standing, now).map(|look| look.again), Ok(now + TICK));
    let waiting = standing.lasting(Activity::Waiting, DAY);
    assert!(look(&standing, now).is_ok_and(|look| look.again >= now + DAY));
    drop(waiting);
    assert!(standing.woken().now_or_never().is_some(), "whoever watches is woken");
    let _here = standing.at(Activity::Looking);
    assert_eq!(look(&standing, now).map(|look| look.again), Ok(now + TICK));
}

#[test]
fn whoever_slept_blames_nobody_for_that_time() {
    let standing = Standing::default();
    let _here = standing.at(Activity::SigningIn);
    let later = Instant::now() + DAY;
    assert!(look(&standing, later).is_err());
    standing.forgive(later);
    assert!(look(&standing, later).is_ok());
}

#[tokio::test]
async fn what_lasts_is_told_and_what_stands_still_is_ended() {
    let board = Arc::new(Board::new());
    let teller = Teller::new(board.clone(), "mbx-1", 7);
    teller.works(MailboxState::CatchingUp);
    board.take();
    let rhythm = Rhythm { tick: Duration::from_millis(5), told_after: Duration::from_millis(20) };
    let reading =
        Reading { longest_stall: SECOND * 3600, step_timeout: Duration::from_millis(10), ..Reading::default() };
    let standing = Standing::default();
    let trust = Trust::new();
    let (_switch, lease) = Switch::new(&trust);
    let watching = watch_at(rhythm, standing.clone(), &lease, &reading, teller);
    let session = async {
        let told = async || loop {
            if let Some(told) = board.take().pop() {
                return told.activity;
            }
            sleep(Duration::from_millis(1)).await;
        };
        let turn = standing.at(Activity::Turn);
        let (told_turn, line) = (told().await.expect("an activity"), Activity::Turn.line());
        assert_eq!((told_turn.doing.as_str(), told_turn.next.as_str()), (line.doing, line.next));
        let seconds = |time: Option<prost_types::Timestamp>| time.expect("a time").seconds;
        assert!(seconds(told_turn.until_time) - seconds(told_turn.since_time) > 3500);
        drop(turn);
        assert_eq!(told().await, None, "it is over");
        let _looking = standing.at(Activity::Looking);
        std::future::pending::<()>().await;
    };
    let ended = async {
        tokio::select! {
            stalled = watching => stalled,
            () = session => unreachable!("it stands still"),
        }
    };
    let stalled = timeout(SECOND * 60, ended).await.expect("it is ended");
    assert_eq!(stalled.activity, Activity::Looking);
}

#[tokio::test]
async fn who_waits_for_room_is_ended_only_while_somebody_could_give_it() {
    let trust = Trust::new();
    let (_switch, lease) = Switch::new(&trust);
    let stall = Duration::from_millis(50);
    let (standing, reading) = (Standing::default(), Reading { longest_stall: stall, ..Reading::default() });
    let teller = Teller::new(Arc::new(Board::new()), "mbx-1", 7);
    let _room = standing.at(Activity::Room);
    let rhythm = Rhythm { tick: Duration::from_millis(5), told_after: TICK };
    let mut watching = Box::pin(watch_at(rhythm, standing, &lease, &reading, teller));
    assert!(timeout(stall * 6, &mut watching).await.is_err(), "nobody may commit, so nobody gives room");
    trust.extend(Instant::now() + DAY);
    let stalled = timeout(SECOND * 60, watching).await.expect("it is ended");
    assert_eq!(stalled.activity, Activity::Room);
}
