//! What each noun and verb does: one file a noun. A command calls, renders and writes; it decides nothing.

use std::path::Path;

use jiff::Timestamp;

use crate::Environment;
use crate::args::{Cli, Command, Connection, Output};
use crate::client::Client;
use crate::error::{Error, Kind};
use crate::progress::{Progress, Shown};
use crate::streams::Streams;
use crate::{context, interrupt, render, up};

mod audit;
mod backlog;
mod backup;
mod change;
mod check;
mod contact;
mod definition;
mod explain;
mod mailbox;
mod message;
mod model;
mod outbox;
mod reconcile;
mod rollout;
mod secret;
mod shell;
mod status;
mod store;
mod token;
mod top;
mod version;
mod worker;

/// Runs a command.
pub async fn run(cli: Cli, environment: Environment<'_>, streams: &mut Streams<'_>) -> Result<(), Error> {
    let connection = cli.connection;
    if let Command::Up(args) = cli.command {
        let data = context::data_dir(connection.data.as_deref(), environment)?;
        let (observe, traces) = (args.observed(), args.traced());
        let store = args.store.choose(environment)?;
        let blobs = args.blobs.choose(environment)?;
        let secret_key = up::secret_key(args.secret_key.clone(), &data, environment)?;
        let up::Args { listen, tls_names, model, .. } = *args;
        let insecure = connection.insecure;
        let options =
            up::Options { data, store, blobs, secret_key, listen, observe, tls_names, model, insecure, traces };
        return Box::pin(up::run(options, environment, streams)).await;
    }
    // Ordering: after `up`, which stops in an order of its own.
    let interrupted = if streams.terminal.is_process { interrupt::watch() } else { Default::default() };
    let mut session =
        Session { connection: &connection, environment, output: cli.output, quiet: cli.quiet, items: 0, streams };
    tokio::select! {
        done = run_verb(cli.command, &mut session) => done,
        () = interrupted.cancelled() => Err(Error::new(Kind::Interrupted, "interrupted")),
    }
}

async fn run_verb(command: Command, session: &mut Session<'_, '_>) -> Result<(), Error> {
    match command {
        // Handled above, before anything looks for a control plane.
        Command::Up(_) => Ok(()),
        Command::Completions(args) => shell::completions(session, &args),
        Command::Man(args) => shell::man(session, &args),
        Command::Version(args) => version::run(session, &args).await,
        Command::Status(args) => status::run(session, &args).await,
        Command::Top(args) => Box::pin(top::run(session, &args)).await,
        Command::Apply(args) => model::apply(session, &args).await,
        Command::Export => model::export(session).await,
        Command::Diff(args) => model::diff(session, &args).await,
        Command::History(args) => model::history(session, &args).await,
        Command::Rollback(args) => model::rollback(session, &args).await,
        Command::Rollout(verb) => rollout::run(session, verb).await,
        Command::System(verb) => definition::system(session, verb).await,
        Command::Instance(verb) => definition::instance(session, verb).await,
        Command::IncomingServer(verb) => definition::incoming_server(session, verb).await,
        Command::OutgoingServer(verb) => definition::outgoing_server(session, verb).await,
        Command::Queue(verb) => definition::queue(session, verb).await,
        Command::Mailbox(verb) => mailbox::run(session, verb).await,
        Command::Worker(verb) => worker::run(session, verb).await,
        Command::Store(verb) => store::run(session, verb).await,
        Command::Contact(verb) => Box::pin(contact::run(session, verb)).await,
        Command::Reply(args) => Box::pin(outbox::compose::reply(session, *args)).await,
        Command::Send(args) => Box::pin(outbox::compose::send(session, *args)).await,
        Command::Outbox(verb) => Box::pin(outbox::run(session, verb)).await,
        Command::Explain(args) => explain::run(session, &args),
        Command::Audit(verb) => audit::run(session, verb).await,
        Command::Secret(verb) => secret::run(session, verb).await,
        Command::Backup(verb) => backup::run(session, verb).await,
        Command::Token(verb) => token::run(session, verb).await,
        Command::Message(verb) => message::run(session, verb).await,
    }
}

/// What every command needs.
struct Session<'a, 'b> {
    connection: &'a Connection,
    environment: Environment<'a>,
    output: Output,
    quiet: bool,
    /// Items of a stream that were shown.
    items: u64,
    streams: &'a mut Streams<'b>,
}

impl Session<'_, '_> {
    fn client(&self) -> Result<Client, Error> {
        let context = context::resolve(self.connection, self.environment)?;
        Ok(Client::new(&context, self.connection.insecure)?)
    }

    /// Writes an answer: as JSON, as YAML, or as the table that `table` makes of it.
    fn show<M: prost::Message + prost::Name>(
        &mut self,
        answer: &M,
        table: impl FnOnce(&M) -> String,
    ) -> Result<(), Error> {
        let text = match self.output {
            Output::Json => render::json::message(answer)?,
            Output::Yaml => render::yaml::message(answer)?,
            Output::Table => table(answer),
        };
        self.write(text.as_bytes())
    }

    /// Writes one message of a stream as it comes: a line of JSON, a YAML document, or the line that `row` makes of it
    /// (with its line break).
    fn show_item<M: prost::Message + prost::Name>(
        &mut self,
        item: &M,
        row: impl FnOnce(&M) -> String,
    ) -> Result<(), Error> {
        let text = match self.output {
            Output::Json => render::json::line(item)?,
            Output::Yaml if self.items > 0 => format!("---\n{}", render::yaml::message(item)?),
            Output::Yaml => render::yaml::message(item)?,
            Output::Table => row(item),
        };
        self.items += 1;
        self.write(text.as_bytes())
    }

    /// Refuses `-o json` and `-o yaml` for what is written byte for byte, before anything is asked for.
    fn only_bytes(&self, instead: &str) -> Result<(), Error> {
        match self.output {
            Output::Table => Ok(()),
            Output::Json | Output::Yaml => {
                let message = "this command writes bytes as they came and knows neither json nor yaml";
                Err(Error::new(Kind::Usage, message).help(format!("leave out -o; {instead}")))
            }
        }
    }

    /// The time that ages are told by.
    fn now(&self) -> Timestamp {
        self.streams.now.unwrap_or_else(Timestamp::now)
    }

    /// Writes data as it is.
    fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        self.streams.out.write_all(data)?;
        Ok(self.streams.out.flush()?)
    }

    /// Says something that is not data. It is no failure when nobody listens.
    fn note(&mut self, text: &str) {
        if !self.quiet {
            let _ = writeln!(self.streams.err, "{}", render::text::lines(text));
        }
    }

    /// The progress of long work, for those who watch it.
    fn progress(&self, what: &str) -> Progress {
        let shown = match self.streams.terminal {
            _ if self.quiet => Shown::Nothing,
            terminal if !terminal.is_process => Shown::Nothing,
            terminal if terminal.err => Shown::Redrawn,
            _ => Shown::Lines,
        };
        Progress::new(what, shown)
    }

    /// A watch that broke off, with how to go on.
    fn resumable(&self, failed: Error, watch: &[&str], instance: Option<&str>, reached: u64) -> Error {
        // One that is too old cannot be gone on from; the failure says what to do.
        if reached == 0 || failed.kind == Kind::Conflict {
            return failed;
        }
        let from = reached.to_string();
        let mut words = watch.to_vec();
        words.extend(["--from", &from]);
        words.extend(instance.iter().flat_map(|instance| ["--instance", instance]));
        failed.help(format!("go on where it broke off: {}", self.next_command(&words)))
    }

    /// A command to run next, ready to be pasted: with the connection that this one was given.
    fn next_command(&self, args: &[&str]) -> String {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let connection = self.connection;
        let mut words = vec!["postroom".to_owned()];
        let flags = [
            ("--data", connection.data.as_deref().map(path)),
            ("--endpoint", connection.endpoint.clone()),
            ("--token-file", connection.token_file.as_deref().map(path)),
            ("--ca-file", connection.ca_file.as_deref().map(path)),
        ];
        for (flag, value) in flags {
            words.extend(value.into_iter().flat_map(|value| [flag.to_owned(), render::text::shell(&value)]));
        }
        if connection.insecure {
            words.push("--insecure".into());
        }
        words.extend(args.iter().map(|arg| render::text::shell(arg)));
        words.join(" ")
    }
}
