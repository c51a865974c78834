//! Lists: what narrows them, and their pages.

use postroom_proto::convert::from_timestamp;
use postroom_proto::reason::Failure;
use postroom_proto::v1::{self, ContactKind, ContactState};

use super::Contacts;
use crate::access::role::Role;
use crate::api::page::Page;
use crate::ledger::{ContactFilter, ContactPosition};

/// Longest text that is looked for in From, in bytes.
const LONGEST_SENDER: usize = 200;

impl Contacts {
    pub(super) async fn list(
        &self,
        role: &Role,
        request: v1::ListContactsRequest,
    ) -> Result<v1::ListContactsResponse, Failure> {
        let filter = self.filter(role, &request)?;
        // Whatever narrows the list binds the token.
        let page = Page::read(request.page_size, &request.page_token, &["contacts", &format!("{filter:?}")])?;
        let after = page.after.as_deref().map(position).transpose()?;
        let found = self.ledger.contacts(&filter, after.as_ref(), page.size).await?;
        let next_page_token = match &found.next {
            Some(position) => page.next(&serde_json::json!(position).to_string()),
            None => String::new(),
        };
        let contacts = found.rows.into_iter().map(|(_, contact)| contact).collect();
        Ok(v1::ListContactsResponse { contacts, next_page_token })
    }

    fn filter(&self, role: &Role, request: &v1::ListContactsRequest) -> Result<ContactFilter, Failure> {
        let state = ContactState::try_from(request.state)
            .map_err(|_| Failure::invalid_field("state", format!("{} is no state", request.state)))?;
        let kind = ContactKind::try_from(request.kind)
            .map_err(|_| Failure::invalid_field("kind", format!("{} is no kind", request.kind)))?;
        if request.sender.len() > LONGEST_SENDER {
            return Err(Failure::invalid_field("sender", format!("is longer than {LONGEST_SENDER} bytes")));
        }
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        // Contacts outlive their queue; its uid finds them even when the model has it no more.
        let queue_uid = named(&request.queue).map(|queue| {
            let model = self.scope.model.borrow();
            model.queue(&queue).map_or(queue, |queue| queue.uid.clone())
        });
        Ok(ContactFilter {
            instance_uid: self.scope.instance_or_all(role, &request.instance)?,
            state: (state != ContactState::Unspecified).then_some(state),
            queue_uid,
            thread: named(&request.thread),
            priority: (request.priority != 0).then_some(request.priority),
            address: named(&request.address),
            kind: (kind != ContactKind::Unspecified).then_some(kind),
            received_since: request.received_since_time.as_ref().map(from_timestamp),
            received_until: request.received_until_time.as_ref().map(from_timestamp),
            sender: request.sender.to_lowercase(),
        })
    }
}

/// The place that a page token names.
fn position(key: &str) -> Result<ContactPosition, Failure> {
    serde_json::from_str(key)
        .map_err(|_| Failure::invalid_field("page_token", "was not made here; start again without a token"))
}
