//! What is measured beside the calls: from time to time a look at everything, of which the gauges are made. The names stand
//! in [`postroom_proto::metric`].
//!
//! Reading order: [`look`] (when it is looked), [`mailboxes`] (which mailboxes have numbers of their own, pure), [`calls`]
//! (every call, as it is answered), [`traces`] (what was done to a contact), [`readiness`] (whether it can serve).

pub mod calls;
pub mod look;
pub mod mailboxes;
pub mod readiness;
pub mod traces;

/// The value of an enum of the wire as metrics say it: `catching-up` for `MAILBOX_STATE_CATCHING_UP`.
pub fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', "-")
}

/// A number for Prometheus, which has no others.
#[allow(clippy::cast_precision_loss)]
fn number(count: u64) -> f64 {
    count as f64
}

/// A time in seconds since 1970.
#[allow(clippy::cast_precision_loss)]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}
