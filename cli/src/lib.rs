//! The `postroom` command: an operator's hands on a control plane, and the single-machine installation.
//!
//! Reading order: [`args`] (what can be typed) → [`command`] (what each noun and verb does) → [`client`] (calls with
//! deadline and retry) → [`render`] (tables, JSON and YAML). Beside them [`context`] (where the control plane is, and
//! with which token), [`model_file`] (definitions as YAML), [`up`] (everything in one process), [`streams`] and
//! [`progress`] (who reads, and what they see meanwhile), [`interrupt`] (Ctrl-C) and [`error`] (what went wrong, what to
//! do, and the exit code).

use std::ffi::OsString;

use clap::{ColorChoice, FromArgMatches as _};

use crate::render::style::{self, Style};
use crate::streams::Streams;

pub mod args;
pub mod blobs_choice;
pub mod client;
pub mod command;
pub mod context;
pub mod error;
pub mod interrupt;
pub mod model_file;
pub mod progress;
pub mod render;
pub mod store_choice;
pub mod streams;
pub mod up;

/// Looks up an environment variable.
pub type Environment<'a> = &'a (dyn Fn(&str) -> Option<OsString> + Sync);

/// Runs one command line and returns its exit code.
pub async fn run(
    args: impl IntoIterator<Item = OsString>,
    environment: Environment<'_>,
    mut streams: Streams<'_>,
) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let terminal = streams.terminal;
    let parsed = args::command().try_get_matches_from(args).and_then(|matches| args::Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        // What was typed after --color cannot be known when the line as a whole is not understood.
        Err(usage) => return show_usage(&usage, environment, &mut streams),
    };
    let wants = |is_terminal| style::wants_color(cli.color, is_terminal, environment);
    let (color, err_color) = (wants(terminal.out), wants(terminal.err));
    let width = if terminal.out { render::table::terminal_width() } else { None };
    let command = Box::pin(command::run(cli, environment, &mut streams));
    let done = style::scope(Style { color, width }, command).await;
    match done {
        Ok(()) => 0,
        Err(error) if error.is_broken_pipe() => 0,
        Err(error) if error.kind == error::Kind::Interrupted => error.exit_code(),
        Err(error) => {
            // Nothing is left to tell it to when standard error is closed.
            let _ = write!(streams.err, "{}", error.render_in(err_color));
            error.exit_code()
        }
    }
}

/// Help and version are data; everything else clap has to say is a usage error.
fn show_usage(usage: &clap::Error, environment: Environment<'_>, streams: &mut Streams<'_>) -> u8 {
    let to_err = usage.use_stderr();
    let is_terminal = if to_err { streams.terminal.err } else { streams.terminal.out };
    let shown = usage.render();
    let shown = match style::wants_color(ColorChoice::Auto, is_terminal, environment) {
        true => shown.ansi().to_string(),
        false => shown.to_string(),
    };
    if to_err {
        let _ = write!(streams.err, "{shown}");
        return error::Kind::Usage.exit_code();
    }
    let _ = write!(streams.out, "{shown}");
    0
}
