//! Who may do what, and how secrets rest.
//!
//! Reading order: [`role`] (one table from RPC to role), [`gate`] (in front of every RPC) over [`directory`] (who is known)
//! and [`standing`] (one credential in force). What stands in the store: [`credential`] and [`authority`] (the
//! installation's own CA); [`issuing`] makes and ends them. [`tls`] and [`listening`] are the port.

pub mod authority;
pub mod caller;
pub mod certificate;
pub mod context;
pub mod credential;
pub mod directory;
mod ending;
pub mod gate;
pub mod issuing;
pub mod listening;
pub mod pace;
pub mod role;
pub mod sessions;
pub mod standing;
pub mod tls;
pub mod token;
pub mod usage;
pub mod vault;
