//! What those who watch the outbox are told. How they are told it is in [`crate::watching`].

use async_trait::async_trait;
use postroom_proto::reason::Failure;
use postroom_proto::v1::{OutboxState, WatchOutboxResponse};

use super::sending::Sending;
use crate::ledger::outbox::{Mail, MailFilter, SharedOutbox};
use crate::watching::{Changes, PAGE, Source};

/// What a snapshot shows: what is not at an end.
const SHOWN: [OutboxState; 3] = [OutboxState::Queued, OutboxState::Sending, OutboxState::Unknown];

/// The mails of an outbox, to be watched. The other one says what keeps mails waiting.
#[derive(Clone)]
pub struct Mails(pub SharedOutbox, pub Sending);

impl std::fmt::Debug for Mails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mails")
    }
}

#[async_trait]
impl Source for Mails {
    type Event = WatchOutboxResponse;
    /// Row of the last mail that was told.
    type Place = i64;

    async fn newest(&self) -> Result<u64, Failure> {
        Ok(self.0.newest_mail_change().await?)
    }

    async fn snapshot(
        &self,
        instance_uid: Option<&str>,
        place: Option<i64>,
    ) -> Result<(Vec<WatchOutboxResponse>, Option<i64>), Failure> {
        let instance_uid = instance_uid.map(ToOwned::to_owned);
        let filter = MailFilter { instance_uid, states: SHOWN.to_vec(), ..Default::default() };
        let mut page = self.0.mails(&filter, place, PAGE as usize).await?;
        self.1.explain(&mut page).await?;
        let next = page.last().filter(|_| page.len() == PAGE as usize).map(|mail| mail.row);
        let told = |mail: Mail| WatchOutboxResponse { revision: 0, mail: Some(mail.mail), snapshot: true };
        Ok((page.into_iter().map(told).collect(), next))
    }

    async fn changes(
        &self,
        instance_uid: Option<&str>,
        after: u64,
    ) -> Result<Option<Changes<WatchOutboxResponse>>, Failure> {
        let Some(read) = self.0.mail_changes(instance_uid, after, PAGE).await? else { return Ok(None) };
        let (revisions, mut mails): (Vec<u64>, Vec<Mail>) = read.changes.into_iter().unzip();
        self.1.explain(&mut mails).await?;
        let told = revisions.into_iter().zip(mails).map(|(revision, mail)| WatchOutboxResponse {
            revision,
            mail: Some(mail.mail),
            snapshot: false,
        });
        Ok(Some(Changes { events: told.collect(), upto: read.upto, newest: read.newest }))
    }

    fn bookmark(&self, revision: u64) -> WatchOutboxResponse {
        WatchOutboxResponse { revision, mail: None, snapshot: false }
    }
}
