//! The key of the secrets is rotated while mail is read, and killed in the middle of it.

use std::process::{Command, Stdio};
use std::time::Duration;

use rand::RngExt as _;

use crate::harness::{SERVICE, Stage, USER, assert_each_once, contacts, eventually, is_elsewhere};

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_read_on_while_the_key_is_rotated() {
    let stage = Stage::set().await;
    stage.deliver(SERVICE, "before-a", 3).await;
    stage.deliver(USER, "before-b", 3).await;
    let up = stage.up().await;
    let client = up.client();
    eventually("six contacts", || async { contacts(&client).await.len() == 6 }).await;
    let key = stage.data().join("secret.key");
    let former = std::fs::read_to_string(&key).unwrap();

    let dry = up.postroom(&["secret", "rotate-key", "--dry-run"]);
    let told = String::from_utf8(dry.stdout).unwrap();
    assert!(dry.status.success() && told.contains("would be sealed again"), "{told}");
    assert_eq!(std::fs::read_to_string(&key).unwrap(), former);
    for round in 0..3 {
        let rotated = up.postroom(&["secret", "rotate-key", "-o", "json"]);
        assert!(rotated.status.success(), "{rotated:?}");
        let told: serde_json::Value = serde_json::from_slice(&rotated.stdout).unwrap();
        assert_eq!(told["secretCount"], "2", "{told}");
        stage.deliver(SERVICE, &format!("a{round}"), 2).await;
        stage.deliver(USER, &format!("b{round}"), 2).await;
    }
    eventually("what came meanwhile", || async { contacts(&client).await.len() == 18 }).await;
    let now = std::fs::read_to_string(&key).unwrap();
    assert!(now != former && now.lines().count() == 1);
    if !is_elsewhere() {
        for name in ["store.db", "store.db-wal", "ledger.db", "ledger.db-wal"] {
            let bytes = std::fs::read(stage.data().join(name)).unwrap();
            let former = former.trim().as_bytes();
            assert!(!bytes.windows(former.len()).any(|window| window == former), "{name} holds the former key");
        }
    }
    // With the new key alone everything signs in again.
    drop(up);
    let up = stage.up_in(&stage.data(), None).await;
    stage.deliver(USER, "after", 2).await;
    let client = up.client();
    eventually("what came after the start", || async { contacts(&client).await.len() == 20 }).await;
    for mailbox in [SERVICE, USER] {
        let checked = up.postroom(&["mailbox", "check", mailbox]);
        assert!(checked.status.success(), "{checked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_of_a_rotation_every_secret_opens_after_the_next_start() {
    let stage = Stage::set().await;
    let mut moments = rand::rng();
    let mut model = Some(stage.model_file());
    for round in 0..8 {
        let up = stage.up_in(&stage.data(), model.take().as_deref()).await;
        let mut rotating = Command::new(env!("CARGO_BIN_EXE_postroom"))
            .arg("--data")
            .arg(stage.data())
            .args(["secret", "rotate-key"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moment = Duration::from_millis(moments.random_range(0..120));
        println!("round {round}: killed {moment:?} after the rotation began");
        tokio::time::sleep(moment).await;
        up.kill();
        rotating.wait().unwrap();
    }
    let up = stage.up_in(&stage.data(), None).await;
    let client = up.client();
    stage.deliver(SERVICE, "a", 2).await;
    stage.deliver(USER, "b", 2).await;
    eventually("mail of both mailboxes", || async { contacts(&client).await.len() == 4 }).await;
    let rotated = up.postroom(&["secret", "rotate-key"]);
    assert!(rotated.status.success(), "{rotated:?}");
    assert_eq!(std::fs::read_to_string(stage.data().join("secret.key")).unwrap().lines().count(), 1);
    assert_each_once(&contacts(&client).await, &["a", "b"], 2);
}
