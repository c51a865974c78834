//! The words of Postroom: wire types, ids, lease terms and error reasons.
//!
//! Everything else speaks these. Nothing here does I/O or knows of a runtime.
//!
//! Reading order: [`v1`] (what is on the wire), [`id`] (who is meant), [`lease`] (the times that worker and leader agree
//! on), [`limits`], [`reason`] (why a call failed), [`catalogue`] (why a mailbox
//! does not work), [`fingerprint`] (a message under whatever key), [`convert`] (values that protobuf spells differently), [`span`] (lengths
//! of time as people write them), [`version`].
//!
//! Behind the feature `process` stands what the binaries share: `settings` (where a value comes from, and every fault of
//! them), `log` (the only thing here that writes), `metric` (what is measured), `trace` (what happened to one contact or
//! call) and `observe` (the listener for metrics and health).

pub mod catalogue;
pub mod convert;
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
pub mod span;
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
