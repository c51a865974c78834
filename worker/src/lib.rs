//! The worker: reads mailboxes under leases, reports their messages as contacts, and sends the mail of the outbox.
//!
//! Reading order, which is the way of a message: [`holder`] (what may be read, pure) → [`supervisor`] (one task a
//! mailbox) → [`mailbox`] (sign in, catch up, settle, wait) → [`contact`] (bytes to contact, pure) → [`report`]. The other
//! way goes through [`send`]: what the outbox holds, to SMTP servers and Microsoft Graph.
//! Beside it [`errand`] finds out what the control plane asks, [`nudge`] hears when a heartbeat is due early, and [`pace`]
//! keeps mailboxes from connecting all at once.
//! [`net`], [`http_client`], [`tls`] and [`certificate`] connect, [`token`] signs in, [`control`] talks to the control plane as whoever [`identity`] says, [`diagnosis`] turns errors into causes with
//! remedies, [`app`] says what runs and in which order it stops.

pub mod app;
pub mod certificate;
pub mod config;
pub mod contact;
pub mod control;
pub mod diagnosis;
pub mod errand;
pub mod holder;
pub mod http_client;
pub mod identity;
pub mod mailbox;
pub mod net;
pub mod nudge;
pub mod pace;
pub mod report;
pub mod send;
pub mod supervisor;
pub mod tls;
pub mod token;
