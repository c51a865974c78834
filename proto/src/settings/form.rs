//! Texts into values. Each error says what to write instead.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::id::{NAME_RULE, is_name};

/// Any text but an empty one.
pub fn text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("is empty; write something or leave it out".into()) } else { Ok(text.into()) }
}

/// A path.
pub fn path(text: &str) -> Result<PathBuf, String> {
    self::text(text).map(Into::into)
}

/// A name of a worker, pool or replica.
pub fn name(text: &str) -> Result<String, String> {
    if is_name(text) {
        return Ok(text.into());
    }
    Err(format!("{text:?} is no name; write {NAME_RULE}"))
}

/// `true` or `false`.
pub fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("{text:?} is neither true nor false; write one of them"))
}

/// A whole number.
pub fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no number; write a whole one such as 500"))
}

/// A whole number above zero.
pub fn some(text: &str) -> Result<u32, String> {
    match count(text)? {
        0 => Err("is 0, with which nothing would happen; write 1 or more".into()),
        count => Ok(count),
    }
}

/// A length of time, such as `500ms`, `2s` or `1m30s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|parsed| Duration::try_from(parsed).ok());
    parsed.ok_or_else(|| format!("{text:?} is no length of time; write one such as 500ms, 2s or 1m30s"))
}

/// A length of time that is longer than zero.
pub fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("is no time at all; write one such as 500ms, 2s or 1m30s".into()),
        duration => Ok(duration),
    }
}

/// A part of all, from 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{text:?} is no share; write a number from 0 (none) to 1 (all), such as 0.01"))
}

/// A number of bytes, such as `1048576`, `512KiB` or `256MiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    let bytes = digits.trim_end().parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| format!("{text:?} is no size; write one such as 512KiB or 256MiB"))
}

/// An address to listen on.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address; write one such as 127.0.0.1:7430 or [::]:7430"))
}

/// One of several words.
pub fn choice<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        let all = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(" or ");
        found.ok_or_else(|| format!("{text:?} is not known here; write {}", all()))
    }
}

/// Several values with commas between them, at least one.
pub fn list<T>(form: impl Fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Vec<T>, String> {
    move |text| text.split(',').map(|one| form(one.trim())).collect()
}

/// The text, and of a URL in it with a password only the rest.
pub(super) fn without_password(text: &str) -> String {
    let parts = text.split(',').map(|part| {
        let Some((scheme, rest)) = part.split_once("://") else { return part.to_owned() };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        match authority.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => {
                format!("{scheme}://{}:[redacted]@{host}{path}", user.split(':').next().unwrap_or_default())
            }
            _ => part.to_owned(),
        }
    });
    parts.collect::<Vec<_>>().join(",")
}
