//! Backup of an installation on one machine while it runs, and its way back.
//!
//! Reading order: [`manifest`] (what an archive says of itself), [`making`] (copies, then sends) over `packing` (bytes
//! in, archive out, pure); [`unpacking`] (archive in, files out, trusting nothing) and [`restoring`] (into a data folder).
//!
//! An archive is a tar in gzip with these members, in this order: `backup.json`, `ledger.db`, `store.db`, `secret.key`
//! (only when asked for), `blobs/xx/…` ascending, `digests.json`. Whatever lacks its last member was cut off.
//!
//! Ordering, while it is made: the keys are held, so that none comes or goes; then the ledger is copied, then the store,
//! then the bodies that the copied ledger names.
//! - Ledger before store: an epoch reaches the ledger after the store minted it, so the store's copy is never behind the
//!   ledger's highest epoch, which a start would refuse. The other way round a lease given between the two would do that.
//! - Ledger before bodies: a body is durable before the report that names it is committed, so all that the copy names are
//!   there. Bodies that come later are named by nobody in it; uploads under way are no matter.
//! - Keys before all: whatever the copies name was sealed with a key that was at hand when they began. A rotation may go on
//!   meanwhile between its first step and its last.
//!
//! Invariant: nothing removes a body while a backup runs. Today nothing ever does; whoever adds a removal must let
//! backups finish first, or keep bodies for longer than a backup takes.
//!
//! What a restored pair then does. It starts as after a crash: sessions of the former process are ended, and leases are
//! given anew, with epochs that the store mints. These are above every fence of the ledger, since the store's revision
//! is. Fences that the lost installation raised later are lost with it, so nothing compares with them.

use postroom_proto::v1;

pub mod making;
pub mod manifest;
mod packing;
pub mod restoring;
pub mod unpacking;

/// Form of the archives made here. A change that an older version would misread raises it.
pub const FORMAT: u32 = 1;

/// Names of the members.
mod member {
    pub(super) use crate::folder::{KEY, LEDGER, STORE};

    /// What the archive holds; comes first.
    pub(super) const MANIFEST: &str = "backup.json";
    /// Digests of the other members; comes last.
    pub(super) const SEAL: &str = "digests.json";

    /// The member of a body, which is also its place in the data folder.
    pub(super) fn body(digest: &str) -> String {
        let (shelf, rest) = digest.split_at_checked(2).unwrap_or(("", digest));
        format!("{}/{shelf}/{rest}", crate::folder::BLOBS)
    }
}

/// What a call that makes a backup is told.
#[derive(Debug)]
pub enum Event {
    /// How far it is.
    Progress(v1::BackupProgress),
    /// The next bytes of the archive.
    Chunk(bytes::Bytes),
    /// It is whole.
    Done(v1::Backup),
}
