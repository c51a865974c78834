//! How data is shown: tables for people, JSON and YAML for programs.

pub mod json;
pub mod style;
pub mod table;
pub mod text;
pub mod time;
pub mod words;
pub mod yaml;
