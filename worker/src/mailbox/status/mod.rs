//! How the reading of each mailbox goes, for operators and for later holders.

use std::time::SystemTime;

use postroom_proto::convert::micros;

mod board;
mod pulse;
mod teller;

pub use board::Board;
pub use pulse::{Life, Pulse};
pub use teller::Teller;

/// Microseconds since 1970.
pub(crate) fn now() -> i64 {
    micros(SystemTime::now())
}
