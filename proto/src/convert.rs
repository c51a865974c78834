//! Values that protobuf spells differently from Rust.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A duration for the wire. Longer than protobuf's 10,000 years becomes that.
pub fn to_duration(value: Duration) -> prost_types::Duration {
    const MAX_SECONDS: u64 = 315_576_000_000;
    prost_types::Duration {
        seconds: value.as_secs().min(MAX_SECONDS).cast_signed(),
        nanos: value.subsec_nanos().cast_signed(),
    }
}

/// A duration from the wire. `None` when it is negative.
pub fn from_duration(value: &prost_types::Duration) -> Option<Duration> {
    Duration::try_from(*value).ok()
}

/// A time for the wire, from microseconds since 1970 as the ledger keeps them.
pub fn to_timestamp(micros: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0),
    }
}

/// Microseconds since 1970 from the wire. Times outside the years 1 to 9999 are held to them.
pub fn from_timestamp(value: &prost_types::Timestamp) -> i64 {
    const YEAR_1: i64 = -62_135_596_800;
    const YEAR_9999: i64 = 253_402_300_799;
    value.seconds.clamp(YEAR_1, YEAR_9999) * 1_000_000 + i64::from(value.nanos.clamp(0, 999_999_999)) / 1_000
}

/// Microseconds since 1970 of a system time. Times before 1970 count as 1970.
pub fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_survive_the_wire(micros in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
            prop_assert_eq!(from_timestamp(&to_timestamp(micros)), micros);
        }

        #[test]
        fn durations_survive_the_wire(nanos in 0u64..u64::MAX) {
            let value = Duration::from_nanos(nanos);
            prop_assert_eq!(from_duration(&to_duration(value)), Some(value));
        }

        #[test]
        fn absurd_times_do_not_overflow(seconds: i64, nanos: i32) {
            from_timestamp(&prost_types::Timestamp { seconds, nanos });
        }
    }
}
