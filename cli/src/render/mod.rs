//! How data is shown: tables for people, JSON for programs.

pub mod json;
pub mod table;
pub mod text;
pub mod time;
pub mod words;
