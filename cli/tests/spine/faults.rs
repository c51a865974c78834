//! One mailbox does not work: the other goes on, the operator is told why, and it heals by itself once mended.

use crate::harness::{SERVICE, Stage, USER, Up, contacts, eventually, mailbox};

async fn shows(up: &Up, email: &str, code: &str) {
    let client = up.client();
    eventually(&format!("{email} shows {code}"), || async {
        let problem = mailbox(&client, email).await.problem.unwrap_or_default();
        problem.code.contains(code)
    })
    .await;
    let problem = mailbox(&client, email).await.problem.unwrap_or_default();
    assert!(!problem.cause.is_empty() && !problem.remedy.is_empty(), "{problem:?}");
    let listed = up.postroom(&["mailbox", "list"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(code), "{listed}");
    let words = |text: &str| text.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let flat = listed.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains(&words(&problem.cause)) && flat.contains(&words(&problem.remedy)), "{listed}");
}

async fn reads(up: &Up, stage: &Stage, email: &str, tag: &str) {
    stage.deliver(email, tag, 1).await;
    let client = up.client();
    let subject = format!("{tag}-0");
    eventually(&format!("{email} is read"), || async { contacts(&client).await.contains_key(&subject) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_tried_three_times_an_hour_even_over_restarts() {
    let stage = Stage::set().await;
    let wrong = stage.model_with(&stage.testbed.tenant.authority(), &stage.secret(), "not-the-password");
    std::fs::write(stage.model_file(), wrong).unwrap();
    let up = stage.up().await;
    shows(&up, USER, "AADSTS50126").await;
    reads(&up, &stage, SERVICE, "other").await;
    up.kill();
    for round in 0..4 {
        let up = stage.up().await;
        shows(&up, USER, "AADSTS50126").await;
        // Whoever reads this one has had time enough to sign in to the other as well.
        reads(&up, &stage, SERVICE, &format!("round-{round}")).await;
        up.kill();
    }
    let refused = stage.testbed.tenant.sign_ins(USER).refused;
    assert!((1..=3).contains(&refused), "{refused} sign-ins with a refused password");

    let up = stage.up().await;
    up.apply(&stage, &stage.model(&stage.secret()));
    reads(&up, &stage, USER, "healed").await;
}
