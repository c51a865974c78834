//! What a check asks an SMTP server, one step at a time, without handing over anything.

use std::sync::Arc;

use postroom_proto::v1::{ClaimedMail, OutgoingDefinition};
use rustls::ClientConfig;

use super::connection::Connection;
use super::{broken, envelope, place, protection, said, sign_in};
use crate::net::{Secure, Wire};
use crate::send::Sending;
use crate::send::claim::Broken;
use crate::send::verdict::Fault;
use crate::send::verdict::smtp::Step;

/// A server that is looked at.
#[derive(Debug)]
pub(crate) struct Probe(Connection);

impl Probe {
    /// Greeting, TLS and what the server offers, on a connection that there is.
    pub(crate) async fn greet(
        sending: &Sending,
        definition: &OutgoingDefinition,
        wire: Wire,
        tls: &Arc<ClientConfig>,
        secured: impl FnOnce(&Secure),
    ) -> Result<Self, Fault> {
        let deadline = sending.shared.reading.connect_timeout;
        let (place, protection) = (place(definition), protection(definition)?);
        Ok(Self(Box::pin(Connection::on(wire, &place, protection, tls, deadline, secured)).await?))
    }

    /// Signs in as sending does: with its tokens, and with passwords only while the lock-out allows it.
    pub(crate) async fn sign_in(&mut self, sending: &Sending, definition: &OutgoingDefinition) -> Result<(), Fault> {
        sign_in::sign_in(sending, definition, &mut self.0).await.map(|_| ())
    }

    /// Whether the server lets the sender begin a mail, which is then taken back.
    pub(crate) async fn begin(&mut self, definition: &OutgoingDefinition, sender: &str) -> Result<String, Fault> {
        let mail = ClaimedMail { sender: sender.to_owned(), ..ClaimedMail::default() };
        let line = envelope::begin(&self.0.offers, &mail, b"")?;
        let reply = said(&mut self.0, Step::Sender, definition.authentication(), &line).await.map_err(fault)?;
        let reset = self.0.command(Step::Sender, "RSET").await;
        reset.map_err(|error| fault(broken(Step::Sender, definition.authentication(), error)))?;
        Ok(reply.to_string())
    }

    /// Says goodbye.
    pub(crate) async fn quit(self) {
        self.0.quit().await;
    }
}

fn fault(broken: Broken) -> Fault {
    match broken {
        Broken::Fault(fault, _) | Broken::Lost(fault) => fault,
        Broken::ClaimLost => Fault::of_server(crate::diagnosis::defect("a check has no claim")),
    }
}
