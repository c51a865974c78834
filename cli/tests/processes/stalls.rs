//! A server that gives no answer, and says again and again that it is still there: nothing that waits for silence ever ends
//! that. The mailbox says at what it stands, its reading begins anew, and every message is accounted for.

use std::cell::RefCell;
use std::collections::BTreeMap;

use postroom_proto::v1::{self, MailboxState};
use postroom_testbed::front::{Change, Front, Step};

use crate::control_plane::ControlPlane;
use crate::harness::{SERVER, SERVICE, Stage, eventually, mailbox};

/// Where it happens, and what the mailbox is at then.
const STALLS: [(Step, &str); 4] = [
    (Step::Open, "signs in and opens the folder"),
    (Step::Look, "looks what is new"),
    (Step::Fetch, "fetches messages"),
    (Step::Mark, "marks, moves or deletes what was taken in"),
];

fn email(step: Step) -> String {
    format!("{step:?}@contoso.example").to_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_stands_still_is_told_and_begins_anew() {
    let stage = Stage::set().await;
    let front = Front::start(stage.testbed.dovecot.imap_addr(), stage.testbed.dovecot.authority()).await.unwrap();
    let port = format!("port: {}", stage.testbed.imap_port());
    let rows: String = STALLS
        .iter()
        .map(|(step, _)| format!("      - {{email: {}, server: {}}}\n", email(*step), serde_json::json!(SERVER)))
        .collect();
    let model = stage.model(&stage.secret()).replacen(&port, &format!("port: {}", front.addr().port()), 1);
    let model = model.replacen("  - name: Support\n", &format!("{rows}  - name: Support\n"), 1);
    let plane = ControlPlane::start(&stage, "127.0.0.1:0", "5s").await;
    plane.apply(&model).await;
    let times = ["--reading-step-timeout=1s", "--reading-connect-timeout=2s", "--reading-token-timeout=2s"];
    let _worker = plane.worker("one", &times);
    let client = plane.client();
    eventually("all are read", || async {
        let mailboxes = client.list_mailboxes().await.unwrap().mailboxes;
        mailboxes.iter().all(|mailbox| mailbox.state() == MailboxState::Idle)
    })
    .await;
    for (step, _) in STALLS {
        // Until it is mended: a state that lasts is seen however seldom somebody looks.
        front.change(step, &email(step), 0, Change::Chatter);
        match step {
            // Nobody opens a folder that is open.
            Step::Open => assert_eq!(front.end(&email(step), ""), 1),
            _ => stage.deliver(&email(step), "during", 3).await,
        }
    }
    // Who does not stand still is read meanwhile.
    stage.deliver(SERVICE, "other", 1).await;
    eventually("the others are read", || async { mailbox(&client, SERVICE).await.contact_count == 1 }).await;
    let told = RefCell::new(BTreeMap::new());
    eventually("all are told to stand still", || async {
        for found in client.list_mailboxes().await.unwrap().mailboxes {
            let stalled = found.problem.filter(|problem| problem.code == "STALLED");
            told.borrow_mut().extend(stalled.map(|problem| (found.email, problem)));
        }
        told.borrow().len() == STALLS.len()
    })
    .await;
    for (step, doing) in STALLS {
        let problem = &told.borrow()[&email(step)];
        assert!(problem.cause.contains(doing) && problem.remedy.contains("mail server"), "{problem:?}");
        front.mend_for(&email(step));
    }
    for (step, _) in STALLS {
        stage.deliver(&email(step), "after", 2).await;
    }
    for (step, _) in STALLS {
        let (email, all) = (email(step), if step == Step::Open { 2 } else { 5 });
        eventually(&format!("{email} is read again"), || async {
            let found = mailbox(&client, &email).await;
            let counted = (found.message_count, found.contact_count) == (all, all);
            counted && found.problem.is_none() && found.state() == MailboxState::Idle && found.activity.is_none()
        })
        .await;
        eventually("it is settled", || async {
            stage.testbed.dovecot.count_unseen(&email, "INBOX").await.unwrap() == 0
        })
        .await;
        let request = v1::ListContactsRequest { address: email.clone(), ..Default::default() };
        let listed = client.list_contacts(request, u32::MAX).await.unwrap().contacts;
        let mut subjects: Vec<_> = listed.into_iter().map(|it| it.content.unwrap_or_default().subject).collect();
        subjects.sort();
        subjects.dedup();
        assert_eq!(subjects.len() as u64, all, "{email}: {subjects:?}");
    }
}
