//! How long leases last, and how large a scenario is.

use std::time::Duration;

/// Lease terms of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terms {
    /// As short as they may be: etcd keeps the key of a leader that is gone for 5 s.
    Short,
    /// Those that hold when nobody sets any.
    Usual,
}

impl Terms {
    /// Settings of the control plane.
    pub(crate) fn args(self) -> &'static [&'static str] {
        match self {
            Self::Short => {
                &["--lease-heartbeat=300ms", "--lease-leader-ttl=5s", "--lease-margin=500ms", "--lease-ttl=9s"]
            }
            Self::Usual => &[],
        }
    }

    /// After so long in silence a worker is given up.
    pub(crate) fn ttl(self) -> Duration {
        Duration::from_secs(if self == Self::Short { 9 } else { 12 })
    }

    /// How long a worker trusts an answer.
    pub(crate) fn trust(self) -> Duration {
        self.ttl() - Duration::from_millis(if self == Self::Short { 500 } else { 1000 })
    }
}

/// How large a scenario is. Set by the environment for longer runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) mailboxes: usize,
    /// Messages that are sent at least.
    pub(crate) messages: usize,
}

impl Scale {
    /// So many mailboxes; five times as many with POSTROOM_FLEET_LONG, or as many as POSTROOM_FLEET_MAILBOXES says.
    /// POSTROOM_FLEET_MESSAGES: how many messages.
    pub(crate) fn of(mailboxes: usize) -> Self {
        let times = if std::env::var_os("POSTROOM_FLEET_LONG").is_some() { 5 } else { 1 };
        Self {
            mailboxes: number("POSTROOM_FLEET_MAILBOXES").unwrap_or(mailboxes * times),
            messages: number("POSTROOM_FLEET_MESSAGES").unwrap_or(2000),
        }
    }
}

/// A number in the environment. `None`: it is not set.
pub(crate) fn number(variable: &str) -> Option<usize> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}
