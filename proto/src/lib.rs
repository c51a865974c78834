//! The words of Postroom: wire types, ids, lease terms and error reasons.
//!
//! Everything else speaks these. Nothing of this does I/O or knows of a runtime.
//!
//! Reading order: [`v1`] (what is on the wire), [`id`] (who is meant), [`lease`] (the times that worker and leader agree
//! on), [`limits`], [`reason`] (why a call failed), [`catalogue`] (why a mailbox does not work), [`fingerprint`] (a message
//! under whatever key), [`convert`] (values that protobuf spells differently), [`duration`] (lengths of time as people write
//! them), [`version`].
//!
//! Behind the feature `process` stands what the binaries share: `settings` (where a value comes from, and every fault of
//! them) and `metric` (what is measured); and what tells others of a process: `log` (on standard error), `observe` (the
//! listener for metrics and health) and `trace` (what happened to one contact or call, to a collector).

pub mod catalogue;
pub mod convert;
pub mod duration;
pub mod fingerprint;
pub mod folder;
pub mod id;
pub mod lease;
pub mod limits;
#[cfg(feature = "process")]
pub mod log;
#[cfg(feature = "process")]
pub mod metric;
#[cfg(feature = "process")]
pub mod observe;
pub mod reason;
mod redact;
#[cfg(feature = "process")]
pub mod settings;
#[cfg(feature = "process")]
pub mod trace;
pub mod version;

/// Wire types and gRPC stubs, generated from `proto/postroom/v1/*.proto`. Their manual is in those files.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::invalid_html_tags, rustdoc::broken_intra_doc_links)]
pub mod v1 {
    tonic::include_proto!("postroom.v1");

    /// The compiled protos with their comments, for reflection and for the JSON mapping.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.bin"));
}
