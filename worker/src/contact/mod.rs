//! From raw bytes to what a contact shows. Pure.

pub mod classify;
pub mod parse;
