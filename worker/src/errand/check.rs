//! `check`: tries step by step what the reading of a mailbox needs, beside the reading itself.
//!
//! Steps that do not hang on a failed one go on: a token can be had while the mail server is down. A password is only
//! tried when the lock-out of the worker allows it, counts there, and the step says so: checking again and again must not
//! lock the account.

use postroom_proto::v1::{Authentication, CheckOutcome, MailboxDefinition};
use tokio::time::{Duration, Instant};

use super::steps::{self, Outcome, Steps, of_tries};
use super::{Findings, Undone};
use crate::diagnosis;
use crate::diagnosis::claims::{self, Claims};
use crate::mailbox::imap::command::Commands;
use crate::mailbox::imap::connection::{self, Unopened};
use crate::mailbox::imap::guard::Limits;
use crate::mailbox::session::Shared;
use crate::mailbox::session::sign_in::{self, place, with_password, with_token};
use crate::mailbox::status::now;
use crate::net::Secure;
use crate::token::broker;
use crate::token::{Credential, CredentialDigest, Token};

/// Takes all steps and tells each as it ends.
pub(super) async fn run(
    shared: &Shared,
    definition: &MailboxDefinition,
    findings: &mut Findings,
) -> Result<(), Undone> {
    let mut steps = Steps::new(findings);
    let connection = connect(shared, definition, &mut steps).await?;
    let token = token(shared, definition, &mut steps).await?;
    let signed_in = sign_in(shared, definition, connection, token, &mut steps).await?;
    select(definition, signed_in, &mut steps).await
}

/// DNS, TCP and TLS.
async fn connect(
    shared: &Shared,
    definition: &MailboxDefinition,
    steps: &mut Steps<'_>,
) -> Result<Outcome<Secure>, Undone> {
    let place = place(definition);
    match steps::reach(shared, &place, &definition.ca_file, steps).await? {
        Outcome::Done(reached) => steps::agree(shared, &place, reached, steps).await,
        Outcome::Not(why) => Ok(Outcome::Not(why)),
    }
}

/// Token and claims. Done with `None`: none is needed.
async fn token(
    shared: &Shared,
    definition: &MailboxDefinition,
    steps: &mut Steps<'_>,
) -> Result<Outcome<Option<Token>>, Undone> {
    let Some(credential) = Credential::of(definition) else {
        for name in ["token", "claims"] {
            steps.skipped(name, "the server is signed in to with a password").await?;
        }
        return Ok(Outcome::Done(None));
    };
    if definition.authentication() == Authentication::OauthUser && definition.account.is_empty() {
        for name in ["token", "claims"] {
            steps.skipped(name, "no mailbox was named, and the password belongs to a mailbox").await?;
        }
        return Ok(Outcome::Not("no mailbox was named"));
    }
    steps.begin();
    let tries = || shared.broker.lockout().times(credential.digest, now()).len();
    let before = tries();
    let issued = match sign_in::token(shared, definition, &credential).await {
        Ok(issued) => issued,
        Err(found) => {
            steps.failed("token", of_tries(before, tries()), &found).await?;
            steps.skipped("claims", "there is no token").await?;
            return Ok(Outcome::Not("there is no token"));
        }
    };
    let life = issued.expires.saturating_duration_since(Instant::now()).as_secs() / 60;
    steps.ok("token", format!("from {}, good for {life} min", definition.authority)).await?;
    steps.begin();
    match Claims::read(issued.token.expose()) {
        None => steps.skipped("claims", "the token is opaque, as its issuer may make it").await?,
        Some(claims) => match (claims.fault(definition), claims.oddity(&definition.authority)) {
            (Some(found), _) => steps.failed("claims", claims.describe(), &found).await?,
            (None, Some(odd)) => steps.tell("claims", CheckOutcome::Warning, claims.describe(), Some(&odd)).await?,
            (None, None) => steps.ok("claims", claims.describe()).await?,
        },
    }
    Ok(Outcome::Done(Some(issued.token)))
}

async fn sign_in(
    shared: &Shared,
    definition: &MailboxDefinition,
    connection: Outcome<Secure>,
    token: Outcome<Option<Token>>,
    steps: &mut Steps<'_>,
) -> Result<Outcome<Commands<Secure>>, Undone> {
    let (secure, token) = match (connection, token) {
        (Outcome::Done(secure), Outcome::Done(token)) => (secure, token),
        (Outcome::Not(why), _) | (_, Outcome::Not(why)) => {
            steps.skipped("sign-in", why).await?;
            return Ok(Outcome::Not(why));
        }
    };
    if definition.email.is_empty() {
        let why = "no mailbox was named";
        steps.skipped("sign-in", "no mailbox was named; name one with --mailbox").await?;
        return Ok(Outcome::Not(why));
    }
    steps.begin();
    let (digest, lockout) = (CredentialDigest::of(definition), shared.broker.lockout());
    let before = lockout.times(digest, now()).len();
    let with = match &token {
        Some(token) => with_token(definition, token),
        None => {
            if let Err(until) = lockout.check(digest, now()) {
                steps.failed("sign-in", of_tries(before, before), &broker::locked(until)).await?;
                return Ok(Outcome::Not("the password is held back"));
            }
            with_password(definition)
        }
    };
    let limits = Limits::for_messages(definition.max_message_bytes);
    match Box::pin(connection::authenticate(secure, limits, shared.reading.step_timeout, &with)).await {
        Ok(commands) => {
            if token.is_none() {
                lockout.accepted(digest);
            }
            let as_whom = match definition.authentication() {
                Authentication::OauthService => format!("the application, for {}", definition.email),
                _ if definition.account.eq_ignore_ascii_case(&definition.email) => definition.email.clone(),
                _ => format!("{}, for {}", definition.account, definition.email),
            };
            steps.ok("sign-in", format!("as {as_whom}")).await?;
            Ok(Outcome::Done(commands))
        }
        Err(Unopened { diagnosis, sign_in_refused }) => {
            let found = match &token {
                Some(token) if sign_in_refused => claims::explain(diagnosis, token.expose(), definition),
                _ => diagnosis,
            };
            if sign_in_refused && token.is_none() {
                lockout.refused(digest, now());
            }
            steps.failed("sign-in", of_tries(before, lockout.times(digest, now()).len()), &found).await?;
            Ok(Outcome::Not("nobody is signed in"))
        }
    }
}

/// Only this proves that the mailbox can be read.
async fn select(
    definition: &MailboxDefinition,
    signed_in: Outcome<Commands<Secure>>,
    steps: &mut Steps<'_>,
) -> Result<(), Undone> {
    let commands = match signed_in {
        Outcome::Done(commands) => commands,
        Outcome::Not(why) => return steps.skipped("select", why).await,
    };
    steps.begin();
    match Box::pin(connection::select(commands, &definition.folder)).await {
        Ok(folder) => {
            let selected = folder.selected;
            let detail = format!(
                "{} has {} messages, UIDVALIDITY {}",
                diagnosis::excerpt(&definition.folder, 100),
                selected.exists,
                selected.uid_validity
            );
            steps.ok("select", detail).await?;
            let _ = tokio::time::timeout(Duration::from_secs(2), folder.log_out()).await;
            Ok(())
        }
        Err(found) => steps.failed("select", "", &found).await,
    }
}
