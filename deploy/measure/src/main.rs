//! `postroom-bench`: Postroom beside its peers, on the same server in the same run.
//!
//! Absolute figures belong to a machine and its load; what counts are the ratios of one run, for which the clients take
//! turns. Reading order: [`reading`] (what is measured, and in which order) → [`filling`] (the messages) → [`bare`],
//! [`mbsync`], [`imapflow`], [`postroom`] (the clients) → [`process`] (what a client used) → [`figures`] (medians and
//! ratios) → [`table`] (how it is shown) and [`machine`] (what it ran on). [`large`] measures
//! an [`installation`] that reads messages of the largest kind, [`idle`] and [`latency`] one in which little happens. [`fleet`] measures a [`control_plane`] under workers that read no mail,
//! [`model`] one with a large model, [`plan`] the planner alone.

mod bare;
mod control_plane;
mod definition;
mod figures;
mod filling;
mod fleet;
mod idle;
mod imapflow;
mod installation;
mod large;
mod latency;
mod machine;
mod mbsync;
mod model;
mod output;
mod plan;
mod postroom;
mod process;
mod reading;
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
    Mailbox(reading::MailboxArgs),
    /// Read one mailbox of what people write: text, HTML and attachments, 150 MB of them.
    Mixed(reading::MixedArgs),
    /// Read many mailboxes at once.
    Boxes(reading::BoxesArgs),
    /// Read messages of 150 MB, several at once: how fast, and how much memory that takes.
    Large(large::Args),
    /// Memory of mailboxes in which nothing happens, in a worker and in a bare client.
    Idle(idle::Args),
    /// From a delivery to the contact in the hands of a waiting instance, beside a bare IDLE client.
    Latency(latency::Args),
    /// Run a control plane under many workers that read no mail: what it costs, and what moves when one comes or goes.
    Fleet(fleet::Args),
    /// Apply, export and compare a large model with the real commands: time and memory of both sides.
    Model(model::Args),
    /// Time the planner alone: cold, after a death, after a join, and when nothing has changed.
    Plan(plan::Args),
    /// The bare reader, once; `mailbox` starts it.
    #[command(hide = true)]
    Bare(bare::Args),
    /// The bare client that waits; `idle` starts it.
    #[command(hide = true)]
    BareIdle(bare::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Command::parse().verb {
        Verb::Mailbox(args) => Box::pin(reading::mailbox(args)).await,
        Verb::Mixed(args) => Box::pin(reading::mixed(args)).await,
        Verb::Boxes(args) => Box::pin(reading::boxes(args)).await,
        Verb::Fleet(args) => Box::pin(fleet::run(args)).await,
        Verb::Model(args) => Box::pin(model::run(args)).await,
        Verb::Plan(args) => plan::run(&args),
        Verb::Large(args) => Box::pin(large::run(args)).await,
        Verb::Idle(args) => Box::pin(idle::run(args)).await,
        Verb::Latency(args) => Box::pin(latency::run(args)).await,
        Verb::Bare(args) => bare::run(args).await,
        Verb::BareIdle(args) => bare::idle(args).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            table::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
