//! The installation is killed while sixteen clients take and accept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postroom_cli::client::Client;
use postroom_proto::v1::{self, ContactState};
use rand::RngExt as _;

use crate::harness::{INSTANCE, SERVICE, Stage, USER, contacts, eventually};

const TAKERS: usize = 16;
const ROUNDS: usize = 4;
/// Contacts that there are in all, half in each mailbox.
const COUNT: usize = 800;

/// What the clients were told: contacts whose acceptance was confirmed.
type Confirmed = Arc<Mutex<BTreeMap<String, usize>>>;

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_sixteen_take_no_accepted_contact_comes_back_and_no_other_is_lost() {
    let stage = Stage::set().await;
    stage.deliver(SERVICE, "a", COUNT / 2).await;
    stage.deliver(USER, "b", COUNT / 2).await;
    let up = stage.up().await;
    let client = up.client();
    eventually("all of them", || async { contacts(&client).await.len() == COUNT }).await;
    let confirmed = Confirmed::default();
    let mut up = up;
    for _ in 0..ROUNDS {
        let runtime = tokio::runtime::Handle::current();
        let takers: Vec<_> = (0..TAKERS)
            .map(|_| {
                let (client, confirmed, runtime) = (up.client(), confirmed.clone(), runtime.clone());
                std::thread::spawn(move || runtime.block_on(take_until_it_dies(client, confirmed)))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(100..700))).await;
        up.kill();
        for taker in takers {
            taker.join().unwrap();
        }
        up = stage.up().await;
        // What was confirmed stands, however early the kill came after it.
        let accepted = in_state(&up.client(), ContactState::Accepted).await;
        let told = confirmed.lock().unwrap().clone();
        let lost: Vec<_> = told.keys().filter(|id| !accepted.contains(*id)).collect();
        assert!(lost.is_empty(), "accepted, and not so any more: {lost:?}");
    }
    // What nobody accepted waits again once deadlines have passed, and all together are all that came.
    let client = up.client();
    eventually("nobody holds any more", || async { in_state(&client, ContactState::Allocated).await.is_empty() }).await;
    let rest = in_state(&client, ContactState::Queued).await;
    let accepted = in_state(&client, ContactState::Accepted).await;
    assert_eq!((rest.len() + accepted.len(), rest.intersection(&accepted).count()), (COUNT, 0));
    let twice: Vec<_> = confirmed.lock().unwrap().clone().into_iter().filter(|(_, times)| *times > 1).collect();
    assert!(twice.is_empty(), "accepted by two takings: {twice:?}");
}

/// Takes and accepts, as a client does that does not know what comes, until nobody answers any more.
async fn take_until_it_dies(client: Client, confirmed: Confirmed) {
    let client = client.with_deadline(Duration::from_secs(2));
    loop {
        let request_id = uuid::Uuid::new_v4().to_string();
        let request = v1::AllocateContactsRequest {
            instance: INSTANCE.into(),
            max_count: 3,
            wait: None,
            request_id: request_id.clone(),
            // Short, so that what was held when it died is soon to be had again.
            accept_within: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
        };
        let Ok(taken) = client.allocate_contacts(request).await else { return };
        let contacts: Vec<_> = taken
            .contacts
            .into_iter()
            .map(|contact| v1::AllocatedContact { contact: contact.id, request_id: request_id.clone() })
            .collect();
        if contacts.is_empty() {
            return;
        }
        let request = v1::AcceptContactsRequest { instance: INSTANCE.into(), contacts };
        let Ok(answer) = client.accept_contacts(request).await else { return };
        let mut confirmed = confirmed.lock().unwrap();
        for outcome in answer.outcomes.into_iter().filter(|outcome| outcome.reason.is_empty()) {
            *confirmed.entry(outcome.contact).or_insert(0) += 1;
        }
    }
}

async fn in_state(client: &Client, state: ContactState) -> BTreeSet<String> {
    let filter = v1::ListContactsRequest { state: state.into(), ..Default::default() };
    let listed = client.list_contacts(filter, u32::MAX).await.unwrap();
    listed.contacts.into_iter().map(|contact| contact.id).collect()
}
