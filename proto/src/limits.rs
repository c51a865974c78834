//! Limits that both sides must agree on.

/// Largest message that can be taken in, in bytes. Exchange Online takes 150 MB, which is 205 MB as MIME.
pub const LARGEST_MESSAGE_BYTES: u64 = 256 * 1024 * 1024;
