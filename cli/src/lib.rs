//! The `postroom` command.
