//! Calls about contacts.

use std::time::Duration;

use postroom_proto::{convert, v1};

use super::{Client, Error, Parts, Repeat, page_size};

/// Bookmarks come every 10 s; a watch that is silent for longer is broken.
const WATCH_PATIENCE: Duration = Duration::from_secs(30);

impl Client {
    /// The first `limit` contacts that pass the filter. `next_page_token` stays when there are more. Page size and token
    /// of the filter do not matter.
    pub async fn list_contacts(
        &self,
        filter: v1::ListContactsRequest,
        limit: u32,
    ) -> Result<v1::ListContactsResponse, Error> {
        let mut all = v1::ListContactsResponse::default();
        loop {
            let missing = limit - u32::try_from(all.contacts.len()).unwrap_or(limit).min(limit);
            let page = v1::ListContactsRequest {
                page_size: page_size(Some(missing)),
                page_token: all.next_page_token,
                ..filter.clone()
            };
            let page = self.read(page, async |r| self.contacts().list_contacts(r).await).await?;
            all.contacts.extend(page.contacts);
            self.progress.at(all.contacts.len() as u64, 0);
            all.next_page_token = page.next_page_token;
            if all.next_page_token.is_empty() || all.contacts.len() >= limit as usize {
                return Ok(all);
            }
        }
    }

    /// One contact with everything.
    pub async fn get_contact(&self, contact: String) -> Result<v1::Contact, Error> {
        self.read(v1::GetContactRequest { contact }, async |r| self.contacts().get_contact(r).await).await
    }

    /// Takes contacts. The request id is repeated with the request, so a lost answer takes nothing twice.
    pub async fn allocate_contacts(
        &self,
        request: v1::AllocateContactsRequest,
    ) -> Result<v1::AllocateContactsResponse, Error> {
        let wait = request.wait.as_ref().and_then(convert::from_duration).unwrap_or_default();
        self.call(Repeat::Call, wait, request, async |r| self.contacts().allocate_contacts(r).await).await
    }

    /// Accepts taken contacts.
    pub async fn accept_contacts(
        &self,
        request: v1::AcceptContactsRequest,
    ) -> Result<v1::AcceptContactsResponse, Error> {
        self.read(request, async |r| self.contacts().accept_contacts(r).await).await
    }

    /// Gets more time to accept taken contacts.
    pub async fn extend_contacts(
        &self,
        request: v1::ExtendContactsRequest,
    ) -> Result<v1::ExtendContactsResponse, Error> {
        self.read(request, async |r| self.contacts().extend_contacts(r).await).await
    }

    /// Gives taken contacts back.
    pub async fn reject_contacts(
        &self,
        request: v1::RejectContactsRequest,
    ) -> Result<v1::RejectContactsResponse, Error> {
        self.read(request, async |r| self.contacts().reject_contacts(r).await).await
    }

    /// Ends accepted contacts.
    pub async fn end_contacts(&self, request: v1::EndContactsRequest) -> Result<v1::EndContactsResponse, Error> {
        self.read(request, async |r| self.contacts().end_contacts(r).await).await
    }

    /// Puts dead contacts back.
    pub async fn requeue_contacts(
        &self,
        request: v1::RequeueContactsRequest,
    ) -> Result<v1::RequeueContactsResponse, Error> {
        self.read(request, async |r| self.contacts().requeue_contacts(r).await).await
    }

    /// Moves contacts to another queue. The request id is repeated with the request.
    pub async fn transfer_contacts(
        &self,
        request: v1::TransferContactsRequest,
    ) -> Result<v1::TransferContactsResponse, Error> {
        self.read(request, async |r| self.contacts().transfer_contacts(r).await).await
    }

    /// Contacts and their changes, without end.
    pub async fn watch_contacts(
        &self,
        request: v1::WatchContactsRequest,
    ) -> Result<Parts<v1::WatchContactsResponse>, Error> {
        self.parts(request, WATCH_PATIENCE, async |r| self.contacts().watch_contacts(r).await).await
    }

    /// The raw message of a contact.
    pub async fn get_raw_message(&self, contact: String) -> Result<Parts<v1::RawMessageChunk>, Error> {
        let request = v1::GetRawMessageRequest { contact };
        self.parts(request, self.deadline, async |r| self.contacts().get_raw_message(r).await).await
    }

    /// One attachment of a contact, decoded.
    pub async fn get_attachment(&self, contact: String, index: u32) -> Result<Parts<v1::AttachmentChunk>, Error> {
        let request = v1::GetAttachmentRequest { contact, index };
        self.parts(request, self.deadline, async |r| self.contacts().get_attachment(r).await).await
    }
}
