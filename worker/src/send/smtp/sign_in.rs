//! Signing in to an SMTP server (RFC 4954): XOAUTH2 with a token, PLAIN or LOGIN with a password.
//!
//! The mechanism is named first and its data follow the server's 334: with an initial response a token would make the
//! command longer than a command may be (RFC 4954 section 4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use postroom_proto::catalogue::send;
use postroom_proto::v1::{OutgoingAuthentication, OutgoingDefinition};
use tokio::time::Instant;

use super::connection::{Connection, Error};
use crate::diagnosis::{self, Diagnosis, claims, excerpt};
use crate::mailbox::status::now;
use crate::send::Sending;
use crate::send::verdict::Fault;
use crate::send::verdict::smtp::{self as verdict, Reply, Step};
use crate::token::broker::{self, Issued};
use crate::token::{Credential, CredentialDigest, Token};

/// Signs in as the definition says. The moment is when the sign-in ends with its token.
pub(in crate::send) async fn sign_in(
    sending: &Sending,
    definition: &OutgoingDefinition,
    connection: &mut Connection,
) -> Result<Option<Instant>, Fault> {
    match definition.authentication() {
        OutgoingAuthentication::None => Ok(None),
        OutgoingAuthentication::Password => with_password(sending, definition, connection).await.map(|()| None),
        OutgoingAuthentication::OauthService | OutgoingAuthentication::OauthUser => {
            let credential = credential(definition)?;
            let broker = &sending.shared.broker;
            let issued = broker.token(&credential).await.map_err(Fault::of_server)?;
            let Err(fault) = with_token(definition, connection, &issued.token).await else {
                return Ok(Some(issued.expires));
            };
            // It may only be stale. RFC 4954 section 4: the dialogue goes on after a refusal.
            if connection.is_usable() && broker.discard(&credential, &issued.token, sending.renewed_from).await {
                let Issued { token, expires } = broker.token(&credential).await.map_err(Fault::of_server)?;
                return match with_token(definition, connection, &token).await {
                    Ok(()) => Ok(Some(expires)),
                    // A server that hangs up after a refusal has said before what it has to say.
                    Err(second) if is_lost(&second) => Err(fault),
                    Err(second) => Err(second),
                };
            }
            Err(fault)
        }
        OutgoingAuthentication::Unspecified => {
            Err(Fault::of_server(diagnosis::defect("a way to sign in that this worker does not know")))
        }
    }
}

fn is_lost(fault: &Fault) -> bool {
    fault.found.code == send::SUBMISSION_LOST.code()
}

/// What a token is asked for with.
pub(in crate::send) fn credential(definition: &OutgoingDefinition) -> Result<Credential, Fault> {
    let none = || Fault::of_server(diagnosis::defect("a token is needed and nothing says where from"));
    Credential::of_outgoing(definition).ok_or_else(none)
}

/// XOAUTH2. The user that it names is the mailbox that sends.
pub(in crate::send) async fn with_token(
    definition: &OutgoingDefinition,
    connection: &mut Connection,
    token: &Token,
) -> Result<(), Fault> {
    if !connection.offers.knows("XOAUTH2") {
        return Err(verdict::no_way_to_sign_in("an access token (XOAUTH2)", &connection.offers.sign_in));
    }
    let secret = format!("user={}\x01auth=Bearer {}\x01\x01", definition.user, token.expose());
    let mut challenge = String::new();
    let refused = match dialogue(connection, "XOAUTH2", &[&secret], &mut challenge).await {
        Ok(()) => return Ok(()),
        Err(error) => fault(definition, error),
    };
    let told = if challenge.is_empty() {
        refused
    } else {
        let why = excerpt(&challenge, 200);
        refused.told(|found| Diagnosis { cause: format!("{} {why}", found.cause), ..found })
    };
    // Exchange does not say why; the token may.
    if told.found.code != send::SMTP_TOKEN_REFUSED.code() {
        return Err(told);
    }
    Err(told.told(|found| claims::explain_sending(found, token.expose(), definition)))
}

async fn with_password(
    sending: &Sending,
    definition: &OutgoingDefinition,
    connection: &mut Connection,
) -> Result<(), Fault> {
    let (digest, lockout) = (CredentialDigest::of_outgoing(definition), sending.shared.broker.lockout());
    lockout.check(digest, now()).map_err(|until| Fault::of_server(broker::locked(until)))?;
    let answer = password(definition, connection).await;
    match &answer {
        Ok(()) => lockout.accepted(digest),
        Err(fault) if is_refused_password(fault) => lockout.refused(digest, now()),
        Err(_) => {}
    }
    answer
}

/// True when a further try would bring the account nearer to its lock-out.
pub(in crate::send) fn is_refused_password(fault: &Fault) -> bool {
    fault.found.code == send::SMTP_PASSWORD_REFUSED.code()
}

/// PLAIN (RFC 4616), or LOGIN, which is all that Exchange offers.
pub(in crate::send) async fn password(
    definition: &OutgoingDefinition,
    connection: &mut Connection,
) -> Result<(), Fault> {
    let (user, password) = (definition.user.as_str(), definition.password.as_str());
    let mut challenge = String::new();
    let answer = if connection.offers.knows("PLAIN") {
        dialogue(connection, "PLAIN", &[&format!("\0{user}\0{password}")], &mut challenge).await
    } else if connection.offers.knows("LOGIN") {
        dialogue(connection, "LOGIN", &[user, password], &mut challenge).await
    } else {
        return Err(verdict::no_way_to_sign_in("a password (PLAIN, LOGIN)", &connection.offers.sign_in));
    };
    answer.map_err(|error| fault(definition, error))
}

/// Says each of the secrets when it is asked for it. A further question explains why they are refused: it is kept, and
/// answered with an empty line, upon which the server says no (RFC 7628 section 3.2.3).
async fn dialogue(
    connection: &mut Connection,
    mechanism: &str,
    secrets: &[&str],
    challenge: &mut String,
) -> Result<(), Error> {
    let mut reply = connection.command(Step::SignIn, &format!("AUTH {mechanism}")).await?;
    for secret in secrets {
        expect(&reply, 334)?;
        reply = connection.command(Step::SignIn, &BASE64.encode(secret)).await?;
    }
    if reply.code == 334 {
        let text = BASE64.decode(reply.text.trim()).unwrap_or_default();
        *challenge = String::from_utf8_lossy(&text).into_owned();
        reply = connection.command(Step::SignIn, "").await?;
    }
    expect(&reply, 235)
}

fn expect(reply: &Reply, code: u16) -> Result<(), Error> {
    if reply.code == code { Ok(()) } else { Err(Error::Strange(format!("{reply} in place of {code}"))) }
}

fn fault(definition: &OutgoingDefinition, error: Error) -> Fault {
    match error {
        Error::Refused(reply) | Error::RefusedAtLast(reply) => {
            verdict::refused(Step::SignIn, definition.authentication(), &reply)
        }
        Error::Strange(detail) => verdict::strange(Step::SignIn, &detail),
        Error::Lost(detail) => verdict::lost(Step::SignIn, &detail),
    }
}
