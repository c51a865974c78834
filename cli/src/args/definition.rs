//! `apply` and the definitions.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// Model file (YAML); `-` reads standard input.
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
}

/// Verbs of a definition.
#[derive(Debug, Subcommand)]
pub enum Definition {
    /// List all of them.
    List,
    /// Show one with everything.
    Show {
        /// Name or uid.
        name: String,
    },
}
