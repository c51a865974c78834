//! Lengths of time as people write them in definitions: `7d`, `12h`, `90m`, `45s`, `1h30m`.

use std::time::Duration;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Reads one: numbers with a unit behind each. `None`: it is none, or is too long to count.
pub fn read(text: &str) -> Option<Duration> {
    let mut seconds = 0u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let amount: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?;
        let length = match unit {
            'd' => DAY,
            'h' => HOUR,
            'm' => MINUTE,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(amount.checked_mul(length)?)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    Some(Duration::from_secs(seconds))
}

/// Writes whole seconds in the largest unit that needs no other.
pub fn write(seconds: u64) -> String {
    let (length, unit) = [(DAY, 'd'), (HOUR, 'h'), (MINUTE, 'm')]
        .into_iter()
        .find(|(length, _)| seconds.is_multiple_of(*length))
        .unwrap_or((1, 's'));
    match seconds {
        0 => "0s".to_owned(),
        _ => format!("{}{unit}", seconds / length),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_of_time_are_read() {
        let seconds = |text: &str| read(text).map(|read| read.as_secs());
        for (text, expected) in [("7d", 604_800), (" 12h", 43_200), ("1h30m", 5400), ("45s", 45), ("0d", 0)] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "7", "d", "7w", "-7d", "1.5h", "7d ago", "99999999999999999999d", "400000000000000000d", "7ü"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn they_are_written_in_one_unit() {
        let written: Vec<_> = [0, 1, 60, 90, 5400, 86_400, 90_000, 604_800].map(write).into();
        assert_eq!(written, ["0s", "1s", "1m", "90s", "90m", "1d", "25h", "7d"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds: u64) {
            prop_assert_eq!(read(&write(seconds)), Some(Duration::from_secs(seconds)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,12}") {
            let _ = read(&text);
        }
    }
}
