//! Waits for new mail (RFC 2177), without trusting that the server tells of it.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use super::command::{Error, Stream, Untagged};
use super::connection::Folder;

/// Why waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The server told of a message.
    Mail,
    /// The time was over: look by yourself.
    Time,
    /// The caller's own reason.
    Stop,
}

/// Waits in IDLE until mail comes, `time` is over or `stop` ends. `* OK Still here` does not prolong it. Does not wait
/// when mail was told before that nobody has looked at.
pub async fn wait<S: Stream + fmt::Debug>(
    folder: &mut Folder<S>,
    time: Duration,
    stop: impl Future<Output = ()>,
) -> Result<Woken, Error> {
    if folder.commands.take_news() {
        return Ok(Woken::Mail);
    }
    let mut mail = false;
    let is_mail = |untagged: Untagged| matches!(untagged, Untagged::Exists(_));
    let mut idling = folder.commands.begin_idle(|untagged| mail |= is_mail(untagged)).await?;
    let timer = tokio::time::sleep(time);
    let (mut timer, mut stop) = (std::pin::pin!(timer), std::pin::pin!(stop));
    let woken = loop {
        if mail {
            break Woken::Mail;
        }
        tokio::select! {
            biased;
            () = &mut stop => break Woken::Stop,
            untagged = idling.next() => mail = is_mail(untagged?),
            () = &mut timer => break Woken::Time,
        }
    };
    idling.end(|untagged| mail |= is_mail(untagged)).await?;
    Ok(if mail && woken == Woken::Time { Woken::Mail } else { woken })
}

/// Waits without IDLE, for servers that have none. Like [`wait`], not when there is news already.
pub async fn poll<S: Stream + fmt::Debug>(
    folder: &mut Folder<S>,
    time: Duration,
    stop: impl Future<Output = ()>,
) -> Result<Woken, Error> {
    if folder.commands.take_news() {
        return Ok(Woken::Mail);
    }
    tokio::select! {
        biased;
        () = stop => return Ok(Woken::Stop),
        () = tokio::time::sleep(time) => {}
    }
    folder.commands.run("NOOP", |_| {}).await?;
    Ok(Woken::Time)
}
