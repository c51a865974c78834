//! Waits for new mail (RFC 2177), without trusting that the server tells of it.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use super::command::{Error, Stream, Untagged};
use super::connection::Folder;

/// Why waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The server told of a message, or that the last one of the folder is gone.
    Mail,
    /// The time was over: look by yourself.
    Time,
    /// The caller's own reason.
    Stop,
}

/// Waits in IDLE until mail comes, the folder becomes empty, `time` is over or `stop` ends. `* OK Still here` does not
/// prolong it. Does not wait when mail was told before that nobody has looked at.
///
/// A server may tell of a folder that somebody deletes as of one that is emptied, as Cyrus does, and of nothing afterwards,
/// also when a new folder has its name: only who looks is refused, and connects again.
pub async fn wait<S: Stream + fmt::Debug>(
    folder: &mut Folder<S>,
    time: Duration,
    stop: impl Future<Output = ()>,
) -> Result<Woken, Error> {
    if folder.commands.take_news() {
        return Ok(Woken::Mail);
    }
    let (mut mail, mut gone) = (false, false);
    let is_mail = |untagged: &Untagged| matches!(untagged, Untagged::Exists(_));
    let begun = folder.commands.begin_idle(|untagged| {
        mail |= is_mail(&untagged);
        gone |= matches!(untagged, Untagged::Expunged);
    });
    let mut idling = begun.await?;
    mail |= gone && idling.is_empty();
    let timer = tokio::time::sleep(time);
    let (mut timer, mut stop) = (std::pin::pin!(timer), std::pin::pin!(stop));
    let woken = loop {
        if mail {
            break Woken::Mail;
        }
        tokio::select! {
            biased;
            () = &mut stop => break Woken::Stop,
            untagged = idling.next() => mail = match untagged? {
                Untagged::Expunged => idling.is_empty(),
                untagged => is_mail(&untagged),
            },
            () = &mut timer => break Woken::Time,
        }
    };
    idling.end(|untagged| mail |= is_mail(&untagged)).await?;
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
