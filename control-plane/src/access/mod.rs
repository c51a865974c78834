//! Who may do what, and how secrets rest.

pub mod caller;
pub mod context;
pub mod gate;
pub mod role;
pub mod token;
pub mod vault;
