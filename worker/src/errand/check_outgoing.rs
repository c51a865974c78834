//! `check` of an outgoing server: tries step by step what sending needs, and sends nothing.
//!
//! Steps that do not hang on a failed one go on. A password counts among the three tries an hour that sending has, too.

use std::time::Duration;

use postroom_proto::catalogue::send;
use postroom_proto::v1::{CheckOutcome, OutgoingAuthentication, OutgoingDefinition, SmtpSecurity, Transport};
use tokio::time::{Instant, timeout};

use super::steps::{self, Outcome, Steps, of_tries, shown};
use super::{Findings, Undone};
use crate::diagnosis::Diagnosis;
use crate::diagnosis::claims::Claims;
use crate::mailbox::status::now;
use crate::net::Place;
use crate::send::Sending;
use crate::send::graph::{is_another, probe};
use crate::send::smtp::pool::Seat;
use crate::send::smtp::probe::Probe;
use crate::send::smtp::{Kept, place};
use crate::send::verdict::outgoing;
use crate::token::{Credential, CredentialDigest};

/// Longest wait for a connection of the mailbox: a mail that is being sent has one for some seconds.
const WAIT_FOR_A_SEAT: Duration = Duration::from_secs(20);

/// Takes all steps and tells each as it ends. `sender`: address to send from; empty: none was named.
pub(super) async fn run(
    sending: &Sending,
    definition: &OutgoingDefinition,
    sender: &str,
    findings: &mut Findings,
) -> Result<(), Undone> {
    let mut steps = Steps::of_outgoing(findings);
    match definition.transport() {
        Transport::Graph => by_graph(sending, definition, sender, &mut steps).await,
        Transport::Smtp | Transport::Unspecified => by_smtp(sending, definition, sender, &mut steps).await,
    }
}

async fn by_graph(
    sending: &Sending,
    definition: &OutgoingDefinition,
    sender: &str,
    steps: &mut Steps<'_>,
) -> Result<(), Undone> {
    let port = u16::try_from(definition.port).ok().filter(|port| *port != 0).unwrap_or(443);
    let place = Place { host: definition.host.clone(), port, proxy: definition.proxy.clone() };
    let reached = match steps::reach(&sending.shared, &place, &definition.ca_file, steps).await? {
        Outcome::Done(reached) => steps::agree(&sending.shared, &place, reached, steps).await?,
        Outcome::Not(why) => Outcome::Not(why),
    };
    let token = token(sending, definition, steps).await?;
    steps.skipped("sign-in", "Microsoft Graph is shown the token with each request").await?;
    match (reached, token) {
        (Outcome::Not(why), _) | (_, Outcome::Not(why)) => steps.skipped("send-right", why).await,
        (Outcome::Done(_), Outcome::Done(())) => {
            steps.begin();
            match probe::may_send(sending, definition).await {
                Ok(detail) => steps.ok("send-right", format!("{detail}{}", unchecked(definition, sender))).await,
                Err(fault) => steps.failed("send-right", fault.response.clone(), &fault.found).await,
            }
        }
    }
}

/// What Graph tells only when a mail is sent.
fn unchecked(definition: &OutgoingDefinition, sender: &str) -> String {
    let user = &definition.user;
    if sender.is_empty() {
        String::new()
    } else if is_another(user, sender) {
        format!("; not checked: whether {user} may send as {sender}, which Exchange looks at when a mail is sent")
    } else if user.contains('@') {
        String::new()
    } else {
        format!("; not checked: whether {sender} is the address of {user}, from which mails are sent")
    }
}

async fn by_smtp(
    sending: &Sending,
    definition: &OutgoingDefinition,
    sender: &str,
    steps: &mut Steps<'_>,
) -> Result<(), Undone> {
    let _seat = seat(sending, definition, sender).await?;
    let greeted = greet(sending, definition, steps).await?;
    let token = token(sending, definition, steps).await?;
    let mut probe = match (greeted, token) {
        (Outcome::Done(probe), Outcome::Done(())) => probe,
        (Outcome::Not(why), _) | (_, Outcome::Not(why)) => {
            for name in ["sign-in", "send-right"] {
                steps.skipped(name, why).await?;
            }
            return Ok(());
        }
    };
    if !sign_in(sending, definition, &mut probe, steps).await? {
        probe.quit().await;
        return steps.skipped("send-right", "nobody is signed in").await;
    }
    if sender.is_empty() {
        probe.quit().await;
        return steps.skipped("send-right", "no sender was named; name one with --from").await;
    }
    steps.begin();
    let begun = probe.begin(definition, sender).await;
    probe.quit().await;
    match begun {
        Ok(reply) => {
            let detail = format!("{sender} may begin a mail ({reply}); a right to send as it Exchange looks at later");
            steps.ok("send-right", detail).await
        }
        Err(fault) => steps.failed("send-right", fault.response.clone(), &fault.found).await,
    }
}

/// Leave for one connection: the server counts it with those that send.
async fn seat(sending: &Sending, definition: &OutgoingDefinition, sender: &str) -> Result<Seat<Kept>, Undone> {
    let seat = timeout(WAIT_FOR_A_SEAT, sending.pool.expect(definition, sender).seat()).await;
    let mut seat = seat.map_err(|_| {
        let cause = "this worker sends over as many connections of the mailbox as the server allows";
        Diagnosis::of(&send::TOO_MANY_SENDING, cause)
            .mended_by("check again in a while: its mails are on their way now")
    })?;
    let (kept, of_no_use) = seat.take(Instant::now());
    for connection in kept.map(|(connection, _)| connection).into_iter().chain(of_no_use) {
        connection.quit().await;
    }
    Ok(seat)
}

/// DNS, TCP, and TLS by way of the greeting.
async fn greet(
    sending: &Sending,
    definition: &OutgoingDefinition,
    steps: &mut Steps<'_>,
) -> Result<Outcome<Probe>, Undone> {
    let reached = steps::reach(&sending.shared, &place(definition), &definition.ca_file, steps).await?;
    let (wire, config) = match reached {
        Outcome::Done(reached) => reached,
        Outcome::Not(why) => return Ok(Outcome::Not(why)),
    };
    steps.begin();
    let mut detail = None;
    let greeted = match config {
        Ok(config) => {
            let greeted = Probe::greet(sending, definition, wire, &config, |secure| detail = Some(shown(secure))).await;
            greeted.map_err(|fault| *fault.found)
        }
        Err(found) => Err(outgoing(found)),
    };
    match greeted {
        Ok(probe) if definition.security() == SmtpSecurity::None => {
            steps.skipped("tls", "the outgoing server is defined without").await?;
            Ok(Outcome::Done(probe))
        }
        Ok(probe) => {
            steps.ok("tls", detail.unwrap_or_default()).await?;
            Ok(Outcome::Done(probe))
        }
        Err(found) => {
            steps.failed("tls", detail.unwrap_or_default(), &found).await?;
            Ok(Outcome::Not("the mail server was not spoken with"))
        }
    }
}

/// Token and claims. Done also where none is needed.
async fn token(
    sending: &Sending,
    definition: &OutgoingDefinition,
    steps: &mut Steps<'_>,
) -> Result<Outcome<()>, Undone> {
    let Some(credential) = Credential::of_outgoing(definition) else {
        for name in ["token", "claims"] {
            steps.skipped(name, "the server is signed in to without a token").await?;
        }
        return Ok(Outcome::Done(()));
    };
    steps.begin();
    let broker = &sending.shared.broker;
    let tries = || broker.lockout().times(credential.digest, now()).len();
    let before = tries();
    let issued = match broker.token(&credential).await {
        Ok(issued) => issued,
        Err(found) => {
            steps.failed("token", of_tries(before, tries()), &outgoing(found)).await?;
            steps.skipped("claims", "there is no token").await?;
            return Ok(Outcome::Not("there is no token"));
        }
    };
    let life = issued.expires.saturating_duration_since(Instant::now()).as_secs() / 60;
    steps.ok("token", format!("from {}, good for {life} min", definition.authority)).await?;
    steps.begin();
    let Some(claims) = Claims::read(issued.token.expose()) else {
        steps.skipped("claims", "the token is opaque, as its issuer may make it").await?;
        return Ok(Outcome::Done(()));
    };
    match (claims.sending_fault(definition), claims.oddity(&definition.authority).map(outgoing)) {
        // An application's right can be a grant in Exchange, which no token shows.
        (Some(found), _) if is_role(definition) && found.code == "SEND_TOKEN_WITHOUT_RIGHT" => {
            steps.tell("claims", CheckOutcome::Warning, claims.describe(), Some(&found)).await?;
        }
        (Some(found), _) => steps.failed("claims", claims.describe(), &found).await?,
        (None, Some(odd)) => steps.tell("claims", CheckOutcome::Warning, claims.describe(), Some(&odd)).await?,
        (None, None) => steps.ok("claims", claims.describe()).await?,
    }
    Ok(Outcome::Done(()))
}

fn is_role(definition: &OutgoingDefinition) -> bool {
    definition.authentication() == OutgoingAuthentication::OauthService
}

/// True when somebody is signed in, or nobody needs to be.
async fn sign_in(
    sending: &Sending,
    definition: &OutgoingDefinition,
    probe: &mut Probe,
    steps: &mut Steps<'_>,
) -> Result<bool, Undone> {
    if definition.authentication() == OutgoingAuthentication::None {
        steps.skipped("sign-in", "the outgoing server is defined without").await?;
        return Ok(true);
    }
    steps.begin();
    let (digest, lockout) = (CredentialDigest::of_outgoing(definition), sending.shared.broker.lockout());
    let before = lockout.times(digest, now()).len();
    match probe.sign_in(sending, definition).await {
        Ok(()) => {
            steps.ok("sign-in", format!("as {}", definition.user)).await?;
            Ok(true)
        }
        Err(fault) => {
            let tries = of_tries(before, lockout.times(digest, now()).len());
            steps.failed("sign-in", tries, &fault.found).await?;
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests;
