//! One commit: one transaction of etcd, sent once.

use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp};

use super::fault::Kind;
use super::read::signed;
use super::{Etcd, Fault};
use crate::store::{Guard, Outcome, Revision, Write};

impl Etcd {
    /// Writes all of `writes` if the guards hold; those that put something hang on `lease`.
    ///
    /// The revision that it answers with is the one before when the writes change nothing, as when they only remove what
    /// is not there: etcd makes no revision of that.
    pub(super) async fn transact(
        &self,
        guards: &[Guard],
        writes: Vec<Write>,
        lease: Option<i64>,
    ) -> Result<Outcome, Fault> {
        let Some(compares) = guards.iter().map(|guard| self.compare(guard)).collect::<Option<Vec<_>>>() else {
            return Ok(Outcome::Conflict);
        };
        let operations: Vec<TxnOp> = writes.into_iter().map(|write| self.operation(write, lease)).collect();
        let txn = Txn::new().when(compares).and_then(operations);
        let sent = self.members.write(|client: Client| {
            let txn = txn.clone();
            async move { client.kv_client().txn(txn).await }
        });
        match sent.await {
            Ok(answer) if answer.succeeded() => Ok(Outcome::Committed(self.at(answer.header())?)),
            Ok(_) => Ok(Outcome::Conflict),
            Err(fault) if fault.kind == Kind::Doubtful => {
                tracing::warn!(error = %fault, "it is not known whether a commit happened");
                Ok(Outcome::Unknown)
            }
            Err(fault) => Err(fault),
        }
    }

    /// `None`: it cannot hold.
    fn compare(&self, guard: &Guard) -> Option<Compare> {
        match guard {
            Guard::Absent(key) => Some(Compare::create_revision(self.full(key), CompareOp::Equal, 0)),
            // To etcd a key that is not there was last written by revision 0.
            Guard::Unchanged(_, Revision(0)) => None,
            Guard::Unchanged(key, revision) => {
                Some(Compare::mod_revision(self.full(key), CompareOp::Equal, signed(*revision)))
            }
        }
    }

    fn operation(&self, write: Write, lease: Option<i64>) -> TxnOp {
        match write {
            Write::Put(key, value) => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease));
                TxnOp::put(self.full(&key), Vec::from(value), options)
            }
            Write::Delete(key) => TxnOp::delete(self.full(&key), None),
        }
    }
}
