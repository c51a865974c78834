//! Reading keys: always what the majority has, never what one member remembers.

use etcd_client::{Client, GetOptions, GetResponse, KeyValue, ResponseHeader, Txn, TxnOp, TxnOpResponse};

use super::members::LARGEST_ANSWER;
use super::{Etcd, Fault};
use crate::store::{Entry, Page, Revision, key};

impl Etcd {
    /// The newest revision.
    pub(super) async fn position(&self) -> Result<Revision, Fault> {
        let key = self.full(key::STORE_ID);
        self.at(self.ask(key, Some(GetOptions::new().with_count_only())).await?.header())
    }

    pub(super) async fn read_one(&self, key: &str) -> Result<Option<Entry>, Fault> {
        self.ask(self.full(key), None).await?.take_kvs().into_iter().next().map(|found| self.entry(found)).transpose()
    }

    pub(super) async fn read_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, Fault> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let reads: Vec<TxnOp> = keys.iter().map(|key| TxnOp::get(self.full(key), None)).collect();
        // One transaction, so that all are of one moment.
        let txn = Txn::new().and_then(reads);
        let answer = self.members.read(|client: Client| {
            let txn = txn.clone();
            async move { reading(&client).txn(txn).await }
        });
        let answer = answer.await?;
        let found = answer.op_responses().into_iter().map(|answer| match answer {
            TxnOpResponse::Get(mut found) => found.take_kvs().into_iter().next().map(|it| self.entry(it)).transpose(),
            _ => Err(self.members.strange("something else than keys")),
        });
        found.collect()
    }

    pub(super) async fn read_page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Fault> {
        let limit = i64::try_from(limit.clamp(1, 1000)).unwrap_or(1);
        let (start, end) = (self.full(prefix), prefix_end(&self.full(prefix)));
        let start = match after.filter(|after| *after >= prefix) {
            // The first text behind it.
            Some(after) => [self.full(after).as_slice(), b"\0"].concat(),
            None => start,
        };
        if start >= end {
            return Ok(Page { entries: Vec::new(), revision: self.position().await?, more: false });
        }
        let options = GetOptions::new().with_range(end).with_limit(limit);
        self.page(self.ask(start, Some(options)).await?)
    }

    /// True when a reading at this revision finds that it is gone.
    pub(super) async fn is_gone(&self, revision: Revision) -> Result<bool, Fault> {
        let key = self.full(key::STORE_ID);
        let options = GetOptions::new().with_count_only().with_revision(signed(revision));
        match self.ask(key, Some(options)).await {
            Ok(_) => Ok(false),
            Err(fault) if fault.kind == super::fault::Kind::Compacted => Ok(true),
            // A revision that is still to come.
            Err(fault) if fault.kind == super::fault::Kind::Refused => self.position().await.map(|_| false),
            Err(fault) => Err(fault),
        }
    }

    /// One reading of one key, or of a range.
    pub(super) async fn ask(&self, key: Vec<u8>, options: Option<GetOptions>) -> Result<GetResponse, Fault> {
        let answer = self.members.read(|client: Client| {
            let (key, options) = (key.clone(), options.clone());
            async move { reading(&client).get(key, options).await }
        });
        answer.await
    }

    fn page(&self, mut answer: GetResponse) -> Result<Page, Fault> {
        let revision = self.at(answer.header())?;
        let more = answer.more();
        let entries = answer.take_kvs().into_iter().map(|found| self.entry(found)).collect::<Result<_, _>>()?;
        Ok(Page { entries, revision, more })
    }

    pub(super) fn at(&self, header: Option<&ResponseHeader>) -> Result<Revision, Fault> {
        header.map(|header| unsigned(header.revision())).ok_or_else(|| self.members.strange("no revision"))
    }

    fn entry(&self, found: KeyValue) -> Result<Entry, Fault> {
        let mod_revision = unsigned(found.mod_revision());
        let (key, value) = found.into_key_value();
        Ok(Entry { key: self.own(&key)?, value: value.into(), mod_revision })
    }
}

fn reading(client: &Client) -> etcd_client::KvClient {
    client.kv_client().max_decoding_message_size(LARGEST_ANSWER)
}

/// The first bytes behind all that begin with `prefix`, which ends with UTF-8 and so not with the highest byte.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

pub(super) fn unsigned(revision: i64) -> Revision {
    Revision(revision.max(0).cast_unsigned())
}

pub(super) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
