//! Times and sizes as people read them.

use jiff::{Timestamp, Unit};
use postroom_proto::convert;

/// RFC 3339 in UTC, to the second; `-` when there is none.
pub fn time(value: Option<&prost_types::Timestamp>) -> String {
    value.and_then(parse).map_or_else(|| "-".into(), |time| format!("{time:.0}"))
}

/// The same with how long ago (or from now) it is.
pub fn time_and_age(value: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    match value.and_then(parse) {
        Some(time) => format!("{time:.0} ({})", age(time, now)),
        None => "-".into(),
    }
}

/// How long ago, in its largest unit: "3m ago", "in 5s".
pub fn age(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(time).as_secs();
    let amount = match seconds.unsigned_abs() {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    };
    if seconds < 0 { format!("in {amount}") } else { format!("{amount} ago") }
}

/// A size with a binary unit: "25 MiB", "1.4 KiB", "17 B".
pub fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

fn parse(value: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::from_microsecond(convert::from_timestamp(value)).ok()?.round(Unit::Second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        for (time, expected) in [
            ("2026-03-01T12:00:00Z", "0s ago"),
            ("2026-03-01T11:57:01Z", "2m ago"),
            ("2026-03-01T09:00:00Z", "3h ago"),
            ("2026-02-01T12:00:00Z", "28d ago"),
            ("2026-03-01T12:00:05Z", "in 5s"),
        ] {
            assert_eq!(age(time.parse().unwrap(), now), expected);
        }
    }

    #[test]
    fn times_are_utc_to_the_second() {
        let value = convert::to_timestamp(1_772_366_400_123_456);
        assert_eq!(time(Some(&value)), "2026-03-01T12:00:00Z");
        assert_eq!(time(None), "-");
    }

    #[test]
    fn sizes_have_one_unit() {
        for (bytes, expected) in [(17, "17 B"), (1434, "1.4 KiB"), (26_214_400, "25 MiB"), (3 << 30, "3 GiB")] {
            assert_eq!(size(bytes), expected);
        }
    }
}
