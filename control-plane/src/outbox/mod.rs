//! Mail on its way out: composed, stored, sent by workers within the limits of the mailbox that sends, and told about.
//!
//! Pure: [`draft`] (what is to be sent, checked), [`compose`] (the mail's bytes), [`guard`] (machines that answer each
//! other), [`state`] (where a mail goes after whatever happens to it), [`allowance`] (when a sending mailbox may send
//! next), [`turns`] (whose mail is next). Shells: [`composing`], [`sending`] (claims and what becomes of them),
//! [`watching`].
//!
//! Invariant: a mail is handed over to a server only after that was recorded, so what may have arrived is never sent
//! again without somebody's word.

use std::time::Duration;

pub mod allowance;
pub mod compose;
pub mod composing;
pub mod draft;
pub mod guard;
pub mod sending;
pub mod state;
pub mod turns;
pub mod watching;

/// What an installation lets its outbox do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Largest mail as it is sent, in bytes.
    pub max_mail_bytes: u64,
    /// Largest attachment before it is encoded, in bytes.
    pub max_attachment_bytes: u64,
    /// Claims of one sending mailbox at one time.
    pub connections: u32,
    /// Mails of one sending mailbox within [`minute`](Self::minute).
    pub per_minute: u32,
    /// What a minute is; tests shorten it.
    pub minute: Duration,
    /// Recipients of one sending mailbox within 24 h.
    pub per_day: u32,
    /// How long a worker has until it hands a mail over, besides what its size takes.
    pub claim_time: Duration,
    /// How long it has from then on until the server has answered, besides what its size takes. RFC 5321 section
    /// 4.5.3.2.6 gives a server ten minutes.
    pub answer_time: Duration,
    /// How long after the end of an attempt whose outcome is unknown its mail is looked for.
    pub look_after: Duration,
    /// After this time without success a mail is given up, unless somebody has to mend a definition first.
    pub give_up_after: Duration,
    /// Most mails from one address to another within an hour.
    pub breaker: u32,
    /// The same for mails that nobody wrote.
    pub breaker_automatic: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            max_mail_bytes: 100 * 1024 * 1024,
            max_attachment_bytes: 10 * 1024 * 1024,
            connections: 3,
            per_minute: 30,
            minute: Duration::from_secs(60),
            per_day: 10_000,
            claim_time: Duration::from_secs(120),
            answer_time: Duration::from_secs(10 * 60 + 15),
            look_after: Duration::from_secs(10 * 60),
            give_up_after: Duration::from_secs(5 * 24 * 3600),
            breaker: 20,
            breaker_automatic: 5,
        }
    }
}

/// Bytes that are counted on to be handed over in a second.
const BYTES_A_SECOND: u64 = 256 * 1024;

impl Terms {
    /// How long a worker has for a mail of this size until it marks it, before its claim lapses.
    pub fn time_to_begin(&self, size_bytes: u64) -> Duration {
        self.claim_time + Duration::from_secs(size_bytes / BYTES_A_SECOND)
    }

    /// How long it has from the mark on, before its claim lapses.
    pub fn time_to_end(&self, size_bytes: u64) -> Duration {
        self.answer_time + Duration::from_secs(size_bytes / BYTES_A_SECOND)
    }
}
