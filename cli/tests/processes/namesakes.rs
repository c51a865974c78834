//! Two processes of one name, as when a service is started twice or its former process hangs on.

use crate::control_plane::ControlPlane;
use crate::harness::{SERVICE, Stage, USER, assert_each_once, contacts, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_workers_of_one_name_the_newer_reads_and_no_message_comes_twice() {
    let stage = Stage::set().await;
    let plane = ControlPlane::start(&stage, "127.0.0.1:0", "5s").await;
    plane.apply(&stage.model(&stage.secret())).await;
    let mut older = plane.worker_logging("twin", "older.log", &[]);
    let before = plane.read_by("twin").await;
    stage.deliver(SERVICE, "a", 20).await;
    let mut newer = plane.worker_logging("twin", "newer.log", &[]);
    newer.says("registered").await;
    stage.deliver(USER, "b", 20).await;

    let client = plane.client();
    eventually("the newer holds everything", || async {
        let mailboxes = client.list_mailboxes().await.unwrap().mailboxes;
        let session = |it: &postroom_proto::v1::Mailbox| it.holder.clone().map(|holder| holder.session);
        mailboxes.iter().all(|it| session(it).is_some() && session(it) != session(&before[0]))
    })
    .await;
    eventually("all mail is there", || async { contacts(&client).await.len() == 40 }).await;
    stage.deliver(SERVICE, "c", 20).await;
    eventually("the newer reads on", || async { contacts(&client).await.len() == 60 }).await;
    assert_each_once(&contacts(&client).await, &["a", "b", "c"], 20);
    // The older one stays, holds nothing, and does not win the name back by registering again.
    for worker in [&older, &newer] {
        assert_eq!(worker.log().matches("registered worker").count(), 1, "{}", worker.log());
    }
    assert_eq!(client.get_status().await.unwrap().workers.iter().map(|it| it.mailbox_count).max(), Some(2));
    older.terminate();
    assert_eq!(older.ended().await.code(), Some(0), "{}", older.log());
    assert!(plane.read_by("twin").await.iter().all(|it| it.holder != before[0].holder));
}
