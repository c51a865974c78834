//! The worker's part in the trace of a contact: how its message was fetched. It is told once the contact has a name, which
//! it has when it is committed.

use std::time::SystemTime;

use postroom_proto::trace;
use postroom_proto::v1::{MessageOutcome, ReportedMessage};

/// When messages were fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    begun: SystemTime,
    ended: SystemTime,
}

impl Fetched {
    /// From `begun` until now.
    pub fn since(begun: SystemTime) -> Self {
        Self { begun, ended: SystemTime::now() }
    }

    /// Tells it of those that became contacts whose traces are told.
    pub fn tell(&self, mailbox: &str, messages: &[ReportedMessage], outcomes: &[MessageOutcome]) {
        for (message, outcome) in messages.iter().zip(outcomes).filter(|(_, outcome)| !outcome.traceparent.is_empty()) {
            let span = trace::of_caller(&outcome.traceparent).and_then(|of| trace::first(&of, "fetch"));
            let Some(span) = span else { continue };
            span.since(self.begun)
                .with("contact", outcome.contact.clone())
                .with("mailbox", mailbox.to_owned())
                .with("source_key", message.source_key.clone())
                .with("bytes", i64::try_from(message.size_bytes).unwrap_or(i64::MAX))
                .end_at(self.ended);
        }
    }
}
