//! What those who watch contacts are told. How they are told it is in [`crate::watching`].

use async_trait::async_trait;
use postroom_proto::reason::Failure;
use postroom_proto::v1::watch_contacts_response::Event;
use postroom_proto::v1::{self, ContactState, WatchContactsResponse};

use crate::ledger::{ContactFilter, ContactPosition, SharedLedger};
use crate::watching::{Changes, PAGE, Source};

/// What a snapshot shows, in this order.
const SHOWN: [ContactState; 4] =
    [ContactState::Queued, ContactState::Allocated, ContactState::Accepted, ContactState::Dead];

/// The contacts of a ledger, to be watched.
#[derive(Clone)]
pub struct Contacts(pub SharedLedger);

impl std::fmt::Debug for Contacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Contacts")
    }
}

#[async_trait]
impl Source for Contacts {
    type Event = WatchContactsResponse;
    /// Index into `SHOWN`, and the last contact that was told.
    type Place = (usize, Option<ContactPosition>);

    async fn newest(&self) -> Result<u64, Failure> {
        Ok(self.0.newest_contact_change().await?)
    }

    async fn snapshot(
        &self,
        instance_uid: Option<&str>,
        place: Option<Self::Place>,
    ) -> Result<(Vec<WatchContactsResponse>, Option<Self::Place>), Failure> {
        let (index, after) = place.unwrap_or_default();
        let Some(state) = SHOWN.get(index) else { return Ok((Vec::new(), None)) };
        let instance_uid = instance_uid.map(ToOwned::to_owned);
        let filter = ContactFilter { instance_uid, state: Some(*state), ..Default::default() };
        let page = self.0.contacts(&filter, after.as_ref(), PAGE as usize).await?;
        let told = page.rows.into_iter().map(|(_, contact)| WatchContactsResponse {
            revision: 0,
            snapshot: true,
            event: Some(Event::Contact(contact)),
        });
        let next = match page.next {
            None => (index + 1, None),
            after => (index, after),
        };
        Ok((told.collect(), (next.0 < SHOWN.len()).then_some(next)))
    }

    async fn changes(
        &self,
        instance_uid: Option<&str>,
        after: u64,
    ) -> Result<Option<Changes<WatchContactsResponse>>, Failure> {
        let Some(read) = self.0.contact_changes(instance_uid, after, PAGE).await? else { return Ok(None) };
        let told = read.changes.into_iter().map(|change| WatchContactsResponse {
            revision: change.revision,
            snapshot: false,
            event: Some(if change.left { Event::Left(change.contact.id) } else { Event::Contact(change.contact) }),
        });
        Ok(Some(Changes { events: told.collect(), upto: read.upto, newest: read.newest }))
    }

    fn bookmark(&self, revision: u64) -> WatchContactsResponse {
        WatchContactsResponse { revision, snapshot: false, event: Some(Event::Bookmark(v1::Bookmark {})) }
    }
}
