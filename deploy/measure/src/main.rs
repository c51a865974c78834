//! `postroom-bench`: Postroom beside its peers, on the same server in the same run.
//!
//! Absolute figures belong to a machine and its load; what counts are the ratios of one run, for which the clients take
//! turns. Reading order: [`mailbox`] (what is measured, and in which order) → [`bare`], [`mbsync`], [`postroom`] (the
//! clients) → [`process`] (what a client used) → [`figures`] (medians and ratios) → [`table`] (how it is shown) and
//! [`machine`] (what it ran on). [`fleet`] measures a [`control_plane`] under workers that read no
//! mail, [`model`] one with a large model, [`plan`] the planner alone.

mod bare;
mod control_plane;
mod figures;
mod fleet;
mod machine;
mod mailbox;
mod mbsync;
mod model;
mod plan;
mod postroom;
mod process;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Postroom and its peers side by side.
#[derive(Debug, Parser)]
#[command(name = "postroom-bench", version, max_term_width = 100)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Read one full mailbox: a bare socket reader, mbsync, and Postroom until every contact is durable.
    Mailbox(mailbox::Args),
    /// Run a control plane under many workers that read no mail: what it costs, and what moves when one comes or goes.
    Fleet(fleet::Args),
    /// Apply, export and compare a large model with the real commands: time and memory of both sides.
    Model(model::Args),
    /// Time the planner alone: cold, after a death, after a join, and when nothing has changed.
    Plan(plan::Args),
    /// The bare reader, once; `mailbox` starts it.
    #[command(hide = true)]
    Bare(bare::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Command::parse().verb {
        Verb::Mailbox(args) => Box::pin(mailbox::run(args)).await,
        Verb::Fleet(args) => Box::pin(fleet::run(args)).await,
        Verb::Model(args) => Box::pin(model::run(args)).await,
        Verb::Plan(args) => plan::run(&args),
        Verb::Bare(args) => bare::run(args).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            table::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
