//! The control plane: keeps definitions, hands out mailbox leases, holds the ledger and allocates contacts.
//!
//! Reading order, which is the way of a message: [`definition`] → [`lease`] → [`ledger`] → [`contact`] → [`outbox`]. Beside it
//! [`errand`] (what only a worker can find out, for example by a [`check`]). Below them
//! stand [`store`] (definitions, assignments, sessions; [`binding`] says whether it is the ledger's), [`blob`] (large bodies) and [`access`] (who may do what) and [`audit`] (who did what);
//! above them [`api`] (decode, call, encode), [`backup`], [`rotation`] (of the key of the secrets), [`telemetry`] (what is measured) and [`app`] (what runs, and in which order it stops).

pub mod access;
pub mod api;
pub mod app;
pub mod audit;
pub mod backlog;
pub mod backup;
pub mod binding;
pub mod blob;
pub mod check;
pub mod clock;
pub mod config;
pub mod contact;
pub mod definition;
pub mod errand;
mod failure;
pub mod fleet;
pub mod folder;
pub mod intake;
pub mod lease;
pub mod ledger;
pub mod message;
pub mod observation;
pub mod outbox;
pub mod rotation;
pub mod sqlite;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod watching;
