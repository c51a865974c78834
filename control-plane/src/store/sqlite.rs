//! The store on SQLite: a file for one machine, or memory for tests.
