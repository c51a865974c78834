//! The `postroom` command: an operator's hands on a control plane, and the single-machine installation.
//!
//! Reading order: [`args`] (what can be typed) → [`command`] (what each noun and verb does) → [`client`] (calls with
//! deadline and retry) → [`render`] (tables and JSON). Beside them [`context`] (where the control plane is, and with
//! which token), [`model_file`] (definitions as YAML), [`up`] (everything in one process) and [`error`] (what went
//! wrong, what to do, and the exit code).

use std::ffi::OsString;
use std::io::Write;

use clap::Parser as _;

pub mod args;
pub mod client;
pub mod command;
pub mod context;
pub mod error;
pub mod logging;
pub mod model_file;
pub mod render;
pub mod up;

/// Looks up an environment variable.
pub type Environment<'a> = &'a (dyn Fn(&str) -> Option<OsString> + Sync);

/// Runs one command line and returns its exit code. Data goes to `out`, all else to `err`.
pub async fn run(
    args: impl IntoIterator<Item = OsString>,
    environment: Environment<'_>,
    out: &mut (dyn Write + Send),
    err: &mut (dyn Write + Send),
) -> u8 {
    let cli = match args::Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(usage) => return show_usage(&usage, out, err),
    };
    match command::run(cli, environment, &mut command::Streams { out, err: &mut *err }).await {
        Ok(()) => 0,
        Err(error) if error.is_broken_pipe() => 0,
        Err(error) => {
            // Nothing is left to tell it to when standard error is closed.
            let _ = write!(err, "{}", error.render());
            error.exit_code()
        }
    }
}

/// Help and version are data; everything else clap has to say is a usage error.
fn show_usage(usage: &clap::Error, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let shown = usage.render();
    if usage.use_stderr() {
        let _ = write!(err, "{shown}");
        return error::Kind::Usage.exit_code();
    }
    let _ = write!(out, "{shown}");
    0
}
