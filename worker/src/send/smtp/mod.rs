//! Hands mail to an SMTP server: submission (RFC 6409) with STARTTLS or TLS, by token, by password, or as one whose network
//! address is trusted.
//!
//! Reading order: `lines` (replies put into form) and `transport` (the stream), `connection` (one command at a time),
//! `offers`, `sign_in`, `envelope`, [`pool`] (who may connect, and what is kept), then the way of a mail here.
//!
//! Ordering: every recipient is asked for first, then the control plane records that the data is handed over now, and only
//! then DATA is said.

mod connection;
mod envelope;
mod lines;
mod offers;
pub mod pool;
pub(crate) mod probe;
pub(super) mod sign_in;
mod transport;

use bytes::Bytes;
use postroom_proto::catalogue::send;
use postroom_proto::v1::{ClaimedMail, OutgoingAuthentication, OutgoingDefinition, SmtpSecurity};
use tokio::time::Instant;

use self::connection::{Connection, Error, Protection};
use self::pool::{Expectation, Seat};
use super::Sending;
use super::claim::{Broken, UnderWay};
use super::verdict::smtp::{Reply, Step};
use super::verdict::{self, Fault, Verdict};
use crate::diagnosis::Diagnosis;
use crate::net::Place;

/// Connections that are kept for further mails.
pub type Pool = pool::Pool<Kept>;

/// A connection on which somebody has signed in.
#[derive(Debug)]
pub struct Kept(Connection);

impl Kept {
    /// Says goodbye.
    pub async fn quit(self) {
        self.0.quit().await;
    }
}

/// One that is of no use any more.
pub type Over = pool::Over<Kept>;

impl Over {
    /// Says goodbye. Until that is done the connection counts.
    pub async fn quit(self) {
        let Self { connection, room } = self;
        connection.quit().await;
        drop(room);
    }
}

/// Where a definition's server is.
pub(crate) fn place(definition: &OutgoingDefinition) -> Place {
    let usual = if definition.security() == SmtpSecurity::Tls { 465 } else { 587 };
    let port = u16::try_from(definition.port).ok().filter(|port| *port != 0).unwrap_or(usual);
    Place { host: definition.host.clone(), port, proxy: definition.proxy.clone() }
}

/// Hands over one mail. The connection is given back, or has ended, when this returns: a server counts connections, and a
/// mail that is settled makes room for another, maybe of another worker.
pub(super) async fn submit(
    sending: &Sending,
    mail: &ClaimedMail,
    definition: &OutgoingDefinition,
    raw: &Bytes,
    under_way: &UnderWay,
    expectation: Expectation<Kept>,
) -> Result<Verdict, Broken> {
    let mut seat = expectation.seat().await;
    let (mut connection, ends) = connected(sending, definition, &mut seat).await?;
    match hand_over(&mut connection, mail, definition, raw, under_way).await {
        Ok(sent) => {
            if connection.is_usable()
                && let Some(surplus) = seat.keep(Kept(connection), ends)
            {
                surplus.quit().await;
            }
            Ok(sent)
        }
        Err(broken) => {
            connection.quit().await;
            Err(broken)
        }
    }
}

/// A connection that is signed in, kept or new, and when it ends with its token.
async fn connected(
    sending: &Sending,
    definition: &OutgoingDefinition,
    seat: &mut Seat<Kept>,
) -> Result<(Connection, Option<Instant>), Fault> {
    let (kept, stale) = seat.take(Instant::now());
    for Kept(connection) in stale {
        connection.quit().await;
    }
    if let Some((Kept(mut connection), ends)) = kept
        && connection.is_alive().await
    {
        return Ok((connection, ends));
    }
    let mut connection = open(sending, definition).await?;
    match sign_in::sign_in(sending, definition, &mut connection).await {
        Ok(ends) => Ok((connection, ends)),
        Err(fault) => {
            connection.quit().await;
            Err(fault)
        }
    }
}

/// Connects and hears what the server offers.
pub(super) async fn open(sending: &Sending, definition: &OutgoingDefinition) -> Result<Connection, Fault> {
    let tls = sending.shared.roots.client_config(&definition.ca_file).await;
    let tls = tls.map_err(|error| Fault::of_server(error.diagnosis()))?;
    let protection = protection(definition)?;
    let connecting = sending.shared.reading.connect_timeout;
    Box::pin(Connection::open(&place(definition), protection, &tls, connecting)).await
}

fn protection(definition: &OutgoingDefinition) -> Result<Protection, Fault> {
    Ok(match definition.security() {
        SmtpSecurity::Tls => Protection::Tls,
        SmtpSecurity::None if definition.authentication() == OutgoingAuthentication::None => Protection::None,
        SmtpSecurity::None => {
            let cause = "a secret would be sent in the clear: signing in needs `smtp.security` starttls or tls";
            return Err(Fault::of_server(Diagnosis::of(&send::SMTP_SIGN_IN_UNSUPPORTED, cause)));
        }
        SmtpSecurity::Starttls | SmtpSecurity::Unspecified => Protection::StartTls,
    })
}

/// The transaction (RFC 5321 section 3.3).
async fn hand_over(
    connection: &mut Connection,
    mail: &ClaimedMail,
    definition: &OutgoingDefinition,
    raw: &Bytes,
    under_way: &UnderWay,
) -> Result<Verdict, Broken> {
    let sign_in = definition.authentication();
    let begin = envelope::begin(&connection.offers, mail, raw)?;
    said(connection, Step::Sender, sign_in, &begin).await?;
    let mut answers = Vec::with_capacity(mail.recipients.len());
    for recipient in &mail.recipients {
        let answer = match envelope::recipient(&connection.offers, recipient) {
            Ok(line) => match said(connection, Step::Recipient, sign_in, &line).await {
                Ok(_) => Ok(()),
                // One after which the server hangs up says nothing of the recipient.
                Err(Broken::Fault(fault, _)) if connection.is_usable() => Err(fault),
                Err(broken) => return Err(broken),
            },
            Err(fault) => Err(fault),
        };
        answers.push((recipient.clone(), answer));
    }
    let recipients = verdict::envelope(answers).map_err(|(fault, outcomes)| Broken::Fault(fault, outcomes))?;
    under_way.mark().await?;
    let ready = said(connection, Step::Data, sign_in, "DATA").await?;
    if ready.code != 354 {
        return Err(verdict::smtp::strange(Step::Data, &ready.to_string()).into());
    }
    let mut is_late = false;
    let in_time = || {
        is_late = under_way.handing_over().is_err();
        !is_late
    };
    let end = connection.data(raw, in_time).await;
    if is_late {
        return Err(Broken::ClaimLost);
    }
    let end = end.map_err(|error| broken(Step::End, sign_in, error))?;
    // A yes is 2xx (RFC 5321 section 4.2.1): what else is none to "the mail is complete".
    if end.code / 100 != 2 {
        return Err(Broken::Lost(verdict::smtp::strange(Step::End, &end.to_string())));
    }
    Ok(Verdict::sent(end.to_string(), recipients))
}

/// One command and its positive answer.
pub(super) async fn said(
    connection: &mut Connection,
    step: Step,
    sign_in: OutgoingAuthentication,
    line: &str,
) -> Result<Reply, Broken> {
    let answer = connection.command(step, line).await;
    answer.map_err(|error| broken(step, sign_in, error))
}

fn broken(step: Step, sign_in: OutgoingAuthentication, error: Error) -> Broken {
    match error {
        Error::Refused(reply) | Error::RefusedAtLast(reply) => verdict::smtp::refused(step, sign_in, &reply).into(),
        // Behind the last byte what cannot be read may have been a yes.
        Error::Strange(detail) => Broken::Lost(verdict::smtp::strange(step, &detail)),
        Error::Lost(detail) => Broken::Lost(verdict::smtp::lost(step, &detail)),
    }
}

#[cfg(test)]
mod tests;
