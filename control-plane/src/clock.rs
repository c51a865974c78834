//! The ledger's clock: the time that deadlines run on and that rows are stamped with.

use std::time::SystemTime;

use postroom_proto::convert;

use crate::ledger::Micros;

/// Now, in microseconds since 1970, by this machine.
pub fn now() -> Micros {
    convert::micros(SystemTime::now())
}
