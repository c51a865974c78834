//! What must be true in the end, whatever happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::SignedDuration;
use postroom_cli::client::Client;
use postroom_proto::v1::{self, Disposition};

use crate::harness::eventually;
use crate::worker::Held;

/// How much later than it is so a log may tell that trust has lapsed.
const TOLD_LATE: SignedDuration = SignedDuration::from_secs(2);

/// Contacts that there are, whatever their state. `None`: the control plane does not answer.
pub(crate) async fn contact_count(client: &Client) -> Option<usize> {
    let status = client.get_status().await.ok()?;
    let tallies = status.instances.iter().flat_map(|instance| &instance.contacts);
    usize::try_from(tallies.map(|tally| tally.count).sum::<u64>()).ok()
}

/// Waits until there are as many contacts as were sent, and fails unless each message is one of them: by its Message-ID
/// under its mailbox, and as one row of the ledger.
pub(crate) async fn each_is_one_contact(client: &Client, sent: &BTreeMap<String, String>) {
    let count = sent.len();
    eventually(&format!("{count} messages are contacts"), || async { contact_count(client).await >= Some(count) })
        .await;
    let listed = client.list_contacts(v1::ListContactsRequest::default(), u32::MAX).await.unwrap().contacts;
    let mut found: BTreeMap<(String, String), usize> = BTreeMap::new();
    for contact in listed {
        let id = contact.content.unwrap_or_default().message_id;
        *found.entry((id, contact.address)).or_default() += 1;
    }
    let wanted: BTreeSet<_> = sent.iter().map(|(id, mailbox)| (id.clone(), mailbox.clone())).collect();
    let missing: Vec<_> = wanted.iter().filter(|message| !found.contains_key(message)).take(10).collect();
    let strange: Vec<_> = found.iter().filter(|(it, times)| **times != 1 || !wanted.contains(it)).take(10).collect();
    assert!(missing.is_empty() && strange.is_empty(), "missing: {missing:?}; too often or unknown: {strange:?}");

    let messages = client.list_messages(v1::ListMessagesRequest::default(), u32::MAX).await.unwrap().messages;
    let keys: BTreeSet<_> = messages.iter().map(|message| (&message.mailbox, &message.source_key)).collect();
    let others: Vec<_> = messages.iter().filter(|it| it.disposition() != Disposition::Contact).take(10).collect();
    assert!(others.is_empty(), "recorded as something else than a contact: {others:?}");
    assert_eq!((messages.len(), keys.len()), (count, count), "rows of the ledger, and different source keys");
}

/// Fails when two processes believed at one time that they hold a mailbox.
pub(crate) fn nobody_overlapped(mut held: Vec<Held>, trust: Duration) {
    held.sort_by(|a, b| (&a.mailbox, a.from).cmp(&(&b.mailbox, b.from)));
    for (at, one) in held.iter().enumerate() {
        for other in held[at + 1..].iter().take_while(|other| other.mailbox == one.mailbox) {
            let late = if one.lapsed { TOLD_LATE } else { SignedDuration::ZERO };
            assert!(
                one.until <= other.from + late || other.until <= one.from,
                "{} and {} at one time, with leases trusted for {trust:?}: {one:?} and {other:?}",
                one.worker,
                other.worker
            );
        }
    }
}
