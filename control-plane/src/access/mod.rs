//! Who may do what, and how secrets rest.

pub mod vault;
