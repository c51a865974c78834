//! The installation, its tokens or its mail server die in the middle.

use std::time::Duration;

use rand::RngExt as _;

use crate::harness::{SERVICE, Stage, USER, assert_each_once, contacts, eventually};

/// Enough to be in the middle of it at any random moment, half in each mailbox.
const HALF: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_ten_random_moments_it_loses_and_doubles_nothing() {
    let stage = Stage::set().await;
    let mut moments = rand::rng();
    for round in 0..10 {
        // More arrives between the crashes, so that there is work at every start.
        stage.deliver(SERVICE, &format!("a{round}"), HALF / 10).await;
        stage.deliver(USER, &format!("b{round}"), HALF / 10).await;
        let up = stage.up().await;
        let moment = Duration::from_millis(moments.random_range(0..2500));
        println!("round {round}: killed {moment:?} after its start");
        tokio::time::sleep(moment).await;
        up.kill();
    }
    let up = stage.up().await;
    let client = up.client();
    eventually("all of them", || async { contacts(&client).await.len() >= 2 * HALF }).await;
    assert_each_once(&contacts(&client).await, &rounds(), HALF / 10);
    eventually("everything is settled", || async { stage.unseen().await == 0 }).await;
    assert_eq!(contacts(&client).await.len(), 2 * HALF);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_expire_in_the_middle_are_no_alarm() {
    let stage = Stage::set().await;
    stage.testbed.tenant.set_token_lifetime(Duration::from_secs(2));
    let up = stage.up().await;
    // Exchange ends a session with its token; Dovecot has to be told. Mail keeps coming over several lives of a token.
    for round in 0..10 {
        stage.deliver(SERVICE, &format!("a{round}"), HALF / 10).await;
        stage.deliver(USER, &format!("b{round}"), HALF / 10).await;
        stage.testbed.dovecot.kick(SERVICE).await.unwrap();
        stage.testbed.dovecot.kick(USER).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let client = up.client();
    eventually("all of them", || async { contacts(&client).await.len() >= 2 * HALF }).await;
    assert_each_once(&contacts(&client).await, &rounds(), HALF / 10);
    let tokens = stage.testbed.tenant.sign_ins(USER);
    assert!(tokens.issued > 1 && tokens.refused == 0, "{tokens:?}");
}

/// The tags of ten rounds of mail to both mailboxes.
fn rounds() -> Vec<String> {
    (0..10).flat_map(|round| [format!("a{round}"), format!("b{round}")]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_restarts_in_the_middle_is_read_on() {
    let stage = Stage::set().await;
    stage.deliver(SERVICE, "a", HALF).await;
    stage.deliver(USER, "b", HALF).await;
    let up = stage.up().await;
    let client = up.client();
    eventually("the first of them", || async { !contacts(&client).await.is_empty() }).await;
    stage.testbed.dovecot.restart().await.unwrap();
    stage.deliver(SERVICE, "c", HALF).await;
    stage.testbed.dovecot.restart().await.unwrap();
    eventually("all of them", || async { contacts(&client).await.len() >= 3 * HALF }).await;
    assert_each_once(&contacts(&client).await, &["a", "b", "c"], HALF);
}
