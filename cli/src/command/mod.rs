//! What each noun and verb does: one file a noun. A command calls, renders and writes; it decides nothing.

use std::io::Write;

use crate::Environment;
use crate::args::{Cli, Command, Connection, Output};
use crate::client::Client;
use crate::error::Error;
use crate::{context, render, up};

mod contact;
mod definition;
mod mailbox;
mod model;

/// Where a command writes.
pub struct Streams<'a> {
    /// Data.
    pub out: &'a mut (dyn Write + Send),
    /// All else.
    pub err: &'a mut (dyn Write + Send),
}

/// Runs a command.
pub async fn run(cli: Cli, environment: Environment<'_>, streams: &mut Streams<'_>) -> Result<(), Error> {
    let connection = cli.connection;
    if let Command::Up(args) = cli.command {
        let data = context::data_dir(connection.data.as_deref(), environment)?;
        let options = up::Options { data, listen: args.listen, model: args.model, insecure: connection.insecure };
        return Box::pin(up::run(options, environment, streams)).await;
    }
    let mut session = Session { connection: &connection, environment, output: cli.output, streams };
    match cli.command {
        // Handled above, before anything looks for a control plane.
        Command::Up(_) => Ok(()),
        Command::Apply(args) => model::apply(&mut session, &args).await,
        Command::Export => model::export(&mut session).await,
        Command::Instance(verb) => definition::instance(&mut session, verb).await,
        Command::IncomingServer(verb) => definition::incoming_server(&mut session, verb).await,
        Command::Queue(verb) => definition::queue(&mut session, verb).await,
        Command::Mailbox(verb) => mailbox::run(&mut session, verb).await,
        Command::Contact(verb) => contact::run(&mut session, verb).await,
    }
}

/// What every command needs.
struct Session<'a, 'b> {
    connection: &'a Connection,
    environment: Environment<'a>,
    output: Output,
    streams: &'a mut Streams<'b>,
}

impl Session<'_, '_> {
    fn client(&self) -> Result<Client, Error> {
        let context = context::resolve(self.connection, self.environment)?;
        Ok(Client::new(&context, self.connection.insecure)?)
    }

    /// Writes an answer: as JSON, or as the table that `table` makes of it.
    fn show<M: prost::Message + prost::Name>(
        &mut self,
        answer: &M,
        table: impl FnOnce(&M) -> String,
    ) -> Result<(), Error> {
        let text = match self.output {
            Output::Json => render::json::message(answer)?,
            Output::Table => table(answer),
        };
        self.write(text.as_bytes())
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        self.streams.out.write_all(data)?;
        Ok(self.streams.out.flush()?)
    }

    /// Says something that is not data. It is no failure when nobody listens.
    fn note(&mut self, text: &str) {
        let _ = writeln!(self.streams.err, "{}", render::text::lines(text));
    }
}
