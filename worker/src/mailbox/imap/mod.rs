//! IMAP (RFC 3501) as Postroom needs it, over async-imap held on a short leash.
//!
//! Reading order: [`guard`] and [`mod@line`] (what may come in), [`command`] (a command ends by its tagged OK or is an
//! error), [`connection`] (connect, sign in, select), [`fetch`], [`search`], [`idle`], [`settle`].
//!
//! Invariant: UIDs only, `BODY.PEEK[]` only, nothing from sizes, sequence numbers or BODYSTRUCTURE is believed.
//! Invariant: the log target `async_imap` is never enabled at TRACE, where it prints tokens and messages: filter it with
//! `async_imap=off`. Its io errors are never printed, for they quote what was received.

pub mod command;
pub mod connection;
pub mod fetch;
pub mod guard;
pub mod idle;
pub mod line;
pub mod search;
pub mod settle;

#[cfg(test)]
pub(crate) mod peer;
#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod tests;
