//! Nobody to report to, for tests of what reports nothing.

use async_trait::async_trait;
use bytes::Bytes;
use postroom_proto::v1;

use super::{Error, Reporter};

/// Never answers.
pub(crate) struct Nobody;

#[async_trait]
impl Reporter for Nobody {
    async fn open(&self, _: v1::MailboxLease) -> Result<v1::OpenedMailbox, Error> {
        std::future::pending().await
    }

    async fn report(&self, _: &v1::ReportRequest) -> Result<v1::ReportResponse, Error> {
        std::future::pending().await
    }

    async fn upload(&self, _: v1::BlobHeader, _: Bytes) -> Result<(), Error> {
        std::future::pending().await
    }

    async fn find_known(&self, _: &v1::FindKnownRequest) -> Result<v1::FindKnownResponse, Error> {
        std::future::pending().await
    }

    async fn status(&self, _: Vec<v1::MailboxStatus>) -> Result<(), Error> {
        Ok(())
    }
}
