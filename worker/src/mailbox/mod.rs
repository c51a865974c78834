//! One mailbox: sign in, catch up, settle, wait, and start again.
//!
//! Reading order: [`session`] (the loop), [`lease`] (whether it may write), [`imap`] (the protocol), [`cursor`] (how far
//! it has read), [`catch_up`] (from the cursor to the last message), [`known`] (what the ledger has of a folder
//! that was numbered anew), [`batch`] (messages into reports), [`commit`]
//! (reports into the ledger), [`status`] (what operators see), [`retry`] (when to try again), [`recall`] (when to ask what
//! else there is to settle), [`backlog`] (how fast old messages come that waited for an operator), [`standing`]
//! (what it is at, and whether that goes on), [`traced`] (what is told of a contact's trace).

pub mod backlog;
pub mod batch;
pub mod care;
pub mod catch_up;
pub mod commit;
pub mod cursor;
pub mod imap;
pub mod known;
pub mod lease;
pub mod recall;
pub mod retry;
pub mod session;
pub mod standing;
pub mod status;
pub mod traced;
