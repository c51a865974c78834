//! `explain`.

use clap::Args;

/// What to explain.
#[derive(Debug, Args)]
pub struct Explain {
    /// A code such as AADSTS7000215, 7000215 or TLS_UNTRUSTED, or what a mail server said. Without it
    /// all codes are listed.
    #[arg(value_name = "CODE")]
    pub code: Vec<String>,
}
