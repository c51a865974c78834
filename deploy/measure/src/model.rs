//! A large model: what an operator's commands take with it, and what they and the control plane use.
//!
//! Every command is the real `postroom` in a process of its own, one after the other, against one control plane process.
//! Each must say what is right of a model of which one address is changed; a wrong answer ends the measurement.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::process::Command;
use tokio::time::Instant;

use crate::control_plane::{self, ControlPlane, Store};
use crate::machine::{self, Machine};
use crate::output::Output;
use crate::process::{self, Usage};
use crate::{postroom, table};

/// No worker comes: how often they would be heard decides nothing.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// `model`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Addresses in the model.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    addresses: u32,
    /// Addresses of each queue.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    of_a_queue: u32,
    /// Where the control plane keeps definitions; etcd is a real one, started for this.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    #[command(flatten)]
    output: Output,
    /// The postroom-control-plane binary [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    control_plane: Option<PathBuf>,
    /// The postroom binary [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    postroom: Option<PathBuf>,
}

/// All that was measured, and on what.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    pub(crate) addresses: u32,
    pub(crate) queues: u32,
    pub(crate) store: Store,
    pub(crate) machine: Machine,
    /// Load at the start and at the end.
    pub(crate) load: [f64; 2],
    /// Size of the model file.
    pub(crate) file_bytes: usize,
    pub(crate) steps: Vec<Step>,
}

/// One command.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Step {
    pub(crate) what: &'static str,
    pub(crate) seconds: f64,
    /// What it printed.
    pub(crate) output_bytes: usize,
    /// The command's own. `None`: it was no command.
    pub(crate) client: Option<Usage>,
    /// The control plane's, during this command.
    pub(crate) control_plane: Usage,
}

/// Measures and prints.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let program = args.control_plane.clone().map_or_else(control_plane::beside_this, Ok)?;
    let postroom = args.postroom.clone().map_or_else(postroom::beside_this, Ok)?;
    let dir = tempfile::Builder::new().prefix("postroom-bench").tempdir_in(&args.output.dir)?;
    let (machine, load) = (Machine::of(dir.path()), machine::load());
    let control_plane = ControlPlane::start(&program, dir.path(), args.store, HEARTBEAT, "info").await?;
    let mut stage = Stage { postroom, dir: dir.path().to_owned(), control_plane, steps: Vec::new() };
    let text = text(&args, None);
    stage.commands(&args, &text).await?;
    let measured = Measured {
        addresses: args.addresses,
        queues: args.addresses.div_ceil(args.of_a_queue),
        store: args.store,
        machine,
        load: [load, machine::load()],
        file_bytes: text.len(),
        steps: stage.steps,
    };
    args.output.print(&measured, table::render_model)
}

struct Stage {
    postroom: PathBuf,
    dir: PathBuf,
    control_plane: ControlPlane,
    steps: Vec<Step>,
}

impl Stage {
    async fn commands(&mut self, args: &Args, text: &str) -> anyhow::Result<()> {
        let unchanged = "nothing to change\n";
        let file = self.file("model.yaml", text)?;
        let said = self.command("apply -f, all new", &["apply", "-f", &file]).await?;
        let created = said.lines().filter(|line| line.starts_with("create queue")).count();
        ensure!(created == args.addresses.div_ceil(args.of_a_queue) as usize, "{created} queues were created");
        ensure!(said.ends_with("\nrevision 1\n"), "it ends with {:?}", said.lines().last());
        let said = self.command("apply -f, nothing new", &["apply", "-f", &file]).await?;
        ensure!(said == format!("{unchanged}revision 1\n"), "applied again it says {said:.200}");

        let exported = self.command("export", &["export"]).await?;
        let exported = self.file("exported.yaml", &exported)?;
        let said = self.command("diff -f, of the export", &["diff", "-f", &exported]).await?;
        ensure!(said == unchanged, "the export differs: {said:.200}");

        let changed = self.file("changed.yaml", &self::text(args, Some(args.addresses / 2)))?;
        let said = self.command("apply -f, one address changed", &["apply", "-f", &changed]).await?;
        ensure!(said.lines().count() == 3 && said.ends_with("\nrevision 2\n"), "the change of one is {said:.200}");
        let said = self.command("diff 1 2", &["diff", "1", "2"]).await?;
        ensure!(said.lines().count() == 2, "two revisions differ in {said:.200}");
        let said = self.command("history", &["history"]).await?;
        ensure!(said.lines().count() == 3, "history: {said:.200}");
        let said = self.command("rollback 1", &["rollback", "1"]).await?;
        ensure!(said.ends_with("\nrevision 3\n"), "the rollback says {said:.200}");

        let begun = Instant::now();
        self.control_plane.restart().await?;
        let (seconds, control_plane) = (begun.elapsed().as_secs_f64(), self.control_plane.usage()?);
        let what = "control plane killed and started";
        self.steps.push(Step { what, seconds, output_bytes: 0, client: None, control_plane });
        Ok(())
    }

    /// Runs the operator's command; what it printed.
    async fn command(&mut self, what: &'static str, arguments: &[&str]) -> anyhow::Result<String> {
        table::note(what);
        self.control_plane.forget_peak()?;
        let before = self.control_plane.usage()?;
        let mut command = Command::new(&self.postroom);
        command.arg("--quiet").arg("--data").arg(self.control_plane.data()).args(arguments);
        let finished = process::measure(what, command).await?;
        let after = self.control_plane.usage()?;
        self.steps.push(Step {
            what,
            seconds: finished.seconds,
            output_bytes: finished.output.len(),
            client: Some(finished.usage),
            control_plane: Usage { cpu_seconds: after.cpu_seconds - before.cpu_seconds, ..after },
        });
        Ok(finished.output)
    }

    fn file(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.dir.join(name);
        std::fs::write(&path, text)?;
        Ok(Path::to_str(&path).context("the folder's path is no text")?.to_owned())
    }
}

/// The model file. Nobody signs in to its mailboxes. `changed`: this address has another priority.
fn text(args: &Args, changed: Option<u32>) -> String {
    let mut text = "instances:\n  - {name: core1}\nincomingServers:\n  - name: nowhere\n\
                    \x20   address: https://login.microsoftonline.com/contoso.example\n\
                    \x20   authentication: oauth-service\n    clientId: 9f2a5f6e-0000-4000-8000-000000000000\n\
                    \x20   secret: {value: nobody signs in with it}\nqueues:\n"
        .to_owned();
    for number in 0..args.addresses {
        if number.is_multiple_of(args.of_a_queue) {
            let queue = number / args.of_a_queue;
            let _ = write!(text, "  - name: Queue {queue}\n    instance: core1\n    priority: 10\n    addresses:\n");
        }
        let priority = if changed == Some(number) { 2 } else { 1 };
        let _ = writeln!(
            text,
            "      - {{email: mailbox-{number}@contoso.example, priority: {priority}, language: fi, server: nowhere}}"
        );
    }
    text
}
