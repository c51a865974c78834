//! What a server asks of one worker holds for the next.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postroom_proto::convert::from_timestamp;
use postroom_proto::v1::{Mailbox, MailboxState};
use postroom_testbed::front::{Front, Step, answers};
use tokio::time::sleep;

use crate::control_plane::ControlPlane;
use crate::harness::{SERVICE, Stage, contacts, eventually, mailbox};

/// Longer than the death of a worker is noticed and its mailboxes go to the next.
const ASKED: Duration = Duration::from_secs(18);

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

fn next_attempt(mailbox: &Mailbox) -> Option<i64> {
    let problem = mailbox.problem.as_ref().filter(|problem| problem.code == "THROTTLED")?;
    problem.next_attempt_time.as_ref().map(from_timestamp)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asked_a_worker_to_wait_is_left_alone_by_the_one_that_takes_over() {
    let stage = Stage::set().await;
    stage.deliver(SERVICE, "a", 3).await;
    let front = Front::start(stage.testbed.dovecot.imap_addr(), stage.testbed.dovecot.authority()).await.unwrap();
    let port = format!("port: {}", stage.testbed.imap_port());
    let model = stage.model(&stage.secret()).replacen(&port, &format!("port: {}", front.addr().port()), 1);
    let plane = ControlPlane::start(&stage, "127.0.0.1:0", "5s").await;
    front.answer(Step::Open, SERVICE, 0, &answers::throttled("BAD", ASKED));
    plane.apply(&model).await;
    let first = plane.worker("first", &[]);
    let client = plane.client();
    eventually("the wish of the server is recorded", || async {
        next_attempt(&mailbox(&client, SERVICE).await).is_some()
    })
    .await;
    // Ordering: the server would take everybody again from here on, so only the recorded wish keeps them away.
    first.kill();
    front.mend();
    let until = next_attempt(&mailbox(&client, SERVICE).await).unwrap();
    assert!(until > now() + i64::try_from(ASKED.as_micros()).unwrap() / 2, "the machine is too slow for this test");
    let sign_ins = front.sign_ins().len();
    let second = plane.worker("second", &[]);
    let mut taken_over = false;
    while now() < until {
        assert_eq!(front.sign_ins().len(), sign_ins, "{}", second.log());
        let mailbox = mailbox(&client, SERVICE).await;
        if mailbox.holder.as_ref().is_some_and(|holder| holder.worker == "second") {
            taken_over = true;
            assert!(next_attempt(&mailbox).is_some(), "it stays told: {mailbox:?}");
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert!(taken_over, "{}", second.log());
    eventually("it is read when the time has come", || async {
        mailbox(&client, SERVICE).await.state() == MailboxState::Idle && contacts(&client).await.len() == 3
    })
    .await;
    assert!(front.sign_ins().len() > sign_ins, "through the front");
}
