//! A mailbox stays the same mailbox, whatever it is called, wherever it is moved, and however often it is defined again.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use postroom_cli::client::Client;
use postroom_proto::v1;
use tokio::time::sleep;

use crate::harness::{INSTANCE, SERVER, SERVICE, Stage, USER, assert_each_once, contacts, eventually, mailbox};

/// Messages to each mailbox while it is moved.
const FLOW: usize = 40;

/// Runs the command without holding up what else the test does.
async fn postroom(stage: &Stage, args: &[&str]) -> Output {
    let data = stage.data();
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let run = move || Command::new(env!("CARGO_BIN_EXE_postroom")).arg("--data").arg(data).args(args).output().unwrap();
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn done(stage: &Stage, args: &[&str]) -> Output {
    let output = postroom(stage, args).await;
    assert!(output.status.success(), "{args:?}: {output:?}");
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Instance of each contact, by subject.
async fn receivers(client: &Client) -> BTreeMap<String, String> {
    let listed = client.list_contacts(v1::ListContactsRequest::default(), u32::MAX).await.unwrap();
    listed.contacts.into_iter().map(|it| (it.content.unwrap_or_default().subject, it.instance)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_mail_arrives_its_server_is_renamed_and_its_address_goes_to_another_instance() {
    let stage = Stage::set().await;
    stage.deliver(SERVICE, "a-before", 3).await;
    stage.deliver(USER, "b-before", 3).await;
    let up = stage.up().await;
    let client = up.client();
    eventually("the first six", || async { contacts(&client).await.len() == 6 }).await;
    let uids = [mailbox(&client, SERVICE).await.uid, mailbox(&client, USER).await.uid];

    let flow = async |to: &str, tag: &str| {
        for number in 0..FLOW {
            stage.deliver(to, &format!("{tag}-{number:02}"), 1).await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    let moving = async {
        done(&stage, &["incoming-server", "set", SERVER, "--name", "Renamed"]).await;
        // By another queue of another instance; its password is left out and comes along.
        let file = stage.folder.path().join("moved.yaml");
        let moved = format!(
            "instances:\n  - {{name: core2}}\nqueues:\n  - {{name: Billing, instance: core1}}\n  - {{name: Support, instance: core1}}\n  - name: Elsewhere\n    instance: core2\n    addresses:\n      - {{email: {SERVICE}, server: Renamed}}\n      - {{email: {USER}, server: Users}}\n"
        );
        std::fs::write(&file, moved).unwrap();
        let file = file.to_str().unwrap();
        let planned = done(&stage, &["apply", "-f", file, "--dry-run"]).await;
        assert!(said(&planned).contains("nothing was changed"), "{planned:?}");
        let applied = done(&stage, &["apply", "-f", file]).await;
        let note = said(&applied);
        assert!(note.contains("go from instance core1 to core2 stay with core1"), "{applied:?}");
        assert!(note.contains("`postroom contact transfer`"), "{applied:?}");
        done(&stage, &["rollout", "status", "--wait", "--timeout", "120s"]).await;
    };
    tokio::join!(flow(SERVICE, "a"), flow(USER, "b"), moving);
    stage.deliver(SERVICE, "a-after", 3).await;
    stage.deliver(USER, "b-after", 3).await;
    let total = 2 * (3 + FLOW + 3);
    eventually("all of them", || async { contacts(&client).await.len() >= total }).await;

    assert_eq!([mailbox(&client, SERVICE).await.uid, mailbox(&client, USER).await.uid], uids);
    let found = contacts(&client).await;
    assert!(found.values().all(|times| *times == 1), "twice: {found:?}");
    let mut tags: Vec<String> =
        ["a", "b"].iter().flat_map(|tag| (0..FLOW).map(move |n| format!("{tag}-{n:02}"))).collect();
    tags.sort();
    let flowed: BTreeMap<String, usize> = found
        .iter()
        .filter(|(subject, _)| !subject.contains("before") && !subject.contains("after"))
        .map(|(s, n)| (s.clone(), *n))
        .collect();
    assert_each_once(&flowed, &tags, 1);
    let receivers = receivers(&client).await;
    for (subject, instance) in &receivers {
        match subject {
            before if before.contains("before") => assert_eq!(instance, INSTANCE, "{before}"),
            after if after.contains("after") => assert_eq!(instance, "core2", "{after}"),
            _ => {}
        }
    }
    assert_eq!(mailbox(&client, SERVICE).await.instance, "core2");

    // What waits for an instance keeps it from being removed.
    for queue in ["Billing", "Support"] {
        done(&stage, &["queue", "remove", queue]).await;
    }
    let refused = postroom(&stage, &["instance", "remove", INSTANCE]).await;
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(said(&refused).contains("contacts wait for it"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_with_its_server_goes_on_where_it_was_once_it_is_back() {
    let stage = Stage::set().await;
    stage.deliver(SERVICE, "before", 5).await;
    let up = stage.up().await;
    let client = up.client();
    eventually("the first five", || async { contacts(&client).await.len() == 5 }).await;
    let used = postroom(&stage, &["incoming-server", "remove", SERVER]).await;
    assert_eq!(used.status.code(), Some(4));
    assert!(said(&used).contains(SERVICE), "{used:?}");
    done(&stage, &["queue", "remove", "Billing"]).await;
    done(&stage, &["incoming-server", "remove", SERVER]).await;
    eventually("nobody reads it any more", || async { stage.testbed.dovecot.sessions(SERVICE).await.unwrap() == 0 })
        .await;
    stage.deliver(SERVICE, "meanwhile", 5).await;

    // Back by way of history, the secret as it was.
    let history = done(&stage, &["history"]).await;
    assert!(String::from_utf8_lossy(&history.stdout).contains("remove queue Billing"), "{history:?}");
    done(&stage, &["rollback", "1"]).await;
    done(&stage, &["rollout", "status", "--wait", "--timeout", "120s"]).await;
    eventually("the other five", || async { contacts(&client).await.len() >= 10 }).await;
    assert_each_once(&contacts(&client).await, &["before", "meanwhile"], 5);

    // Removed once more, and defined anew under another name.
    done(&stage, &["queue", "remove", "Billing"]).await;
    eventually("nobody reads it again", || async { stage.testbed.dovecot.sessions(SERVICE).await.unwrap() == 0 }).await;
    stage.deliver(SERVICE, "later", 5).await;
    let address = format!("server={SERVER}");
    done(&stage, &["queue", "set", "Invoices", "--create", "instance=core1"]).await;
    done(&stage, &["queue", "set", "Invoices", "--address", SERVICE, &address, "priority=2"]).await;
    eventually("the last five", || async { contacts(&client).await.len() >= 15 }).await;
    assert_each_once(&contacts(&client).await, &["before", "meanwhile", "later"], 5);
    let listed = client.list_contacts(v1::ListContactsRequest::default(), u32::MAX).await.unwrap();
    let later =
        listed.contacts.iter().find(|it| it.content.as_ref().is_some_and(|it| it.subject == "later-0")).unwrap();
    assert_eq!((later.queue.as_str(), later.priority), ("Invoices", 2));
}
