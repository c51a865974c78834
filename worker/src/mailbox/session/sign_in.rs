//! Signing in: what with, how often with a password that was refused, and what is recorded of that.

use std::time::Duration;

use postroom_proto::convert::from_timestamp;
use postroom_proto::metric;
use postroom_proto::v1::{self, Authentication, MailboxDefinition};
use secrecy::SecretString;

use super::{Mail, Session, Shared, Trouble};
use crate::diagnosis::claims::{self, Claims};
use crate::diagnosis::{self, Diagnosis};
use crate::mailbox::imap::connection::{self, SignIn, Unopened};
use crate::mailbox::imap::guard::Limits;
use crate::mailbox::standing::{Activity, Moves};
use crate::mailbox::status::now;
use crate::net::{self, Place};
use crate::token::broker::{self, Issued};
use crate::token::{Credential, CredentialDigest, Token};

impl Session {
    /// Connects, signs in and selects the folder, once it is this mailbox's turn.
    pub(super) async fn connect(&mut self, definition: &MailboxDefinition) -> Result<Mail, Trouble> {
        let moves = Moves::default();
        let turn = self.standing.moving(Activity::Turn, moves.clone());
        let mut permit = self.shared.pace.permit(definition, moves).await;
        drop(turn);
        self.announce_try(definition).await?;
        let limits = Limits::for_messages(definition.max_message_bytes);
        let signing_in = self.standing.at(Activity::SigningIn);
        let signed_in = sign_in(&self.shared, definition, limits, || permit.used()).await;
        drop(signing_in);
        self.tell_refusals(definition).await;
        signed_in
    }

    /// Records another try with a password that was refused within the hour, before it is made.
    ///
    /// Ordering: without this a crash between a refusal and its record would allow one more try, each time.
    async fn announce_try(&mut self, definition: &MailboxDefinition) -> Result<(), Trouble> {
        let (digest, lockout) = (CredentialDigest::of(definition), self.shared.broker.lockout());
        let mut times = lockout.times(digest, now());
        if times.is_empty() || lockout.check(digest, now()).is_err() {
            return Ok(());
        }
        times.push(now());
        self.teller.refused(&definition.credentials_digest, times);
        let _telling = self.standing.at(Activity::Asking);
        let told = self.teller.tell_at_once(&*self.shared.reporter).await;
        told.map_err(|error| Trouble::Problem(diagnosis::control_plane(&error.to_string())))
    }

    /// Records at once that a password was refused; what was accepted is told with the next status.
    async fn tell_refusals(&mut self, definition: &MailboxDefinition) {
        let times = self.shared.broker.lockout().times(CredentialDigest::of(definition), now());
        let refused = !times.is_empty();
        self.teller.refused(&definition.credentials_digest, times);
        let _telling = self.standing.at(Activity::Asking);
        if refused && let Err(error) = self.teller.tell_at_once(&*self.shared.reporter).await {
            tracing::warn!(mailbox = %self.mailbox, %error, "a refused password could not be recorded yet");
        }
    }

    /// Takes over what was told of refusals under a former lease, or by a process that is gone.
    pub(super) fn recall_refusals(&self, definition: &MailboxDefinition, status: Option<&v1::MailboxStatus>) {
        let Some(status) = status else { return };
        let digest = CredentialDigest::of(definition);
        if !status.refused_credentials.is_empty() && status.refused_credentials == definition.credentials_digest {
            let times: Vec<i64> = status.refused_times.iter().map(from_timestamp).collect();
            self.shared.broker.lockout().recall(digest, &times, now());
        }
    }
}

/// Where a definition's mail server is.
pub(crate) fn place(definition: &MailboxDefinition) -> Place {
    let port = u16::try_from(definition.imap_port).unwrap_or(993);
    Place { host: definition.imap_host.clone(), port, proxy: definition.proxy.clone() }
}

/// Signing in with a token: it names the mailbox to open, whoever the token's user is.
pub(crate) fn with_token(definition: &MailboxDefinition, token: &Token) -> SignIn {
    let Place { host, port, .. } = place(definition);
    SignIn::Token { mailbox: definition.email.clone(), token: token.clone(), server: (host, port) }
}

/// Signing in with a password. An account that is an address of its own signs in for the mailbox; one that is none is
/// only the name by which the mailbox's owner signs in.
pub(crate) fn with_password(definition: &MailboxDefinition) -> SignIn {
    let other = definition.account.contains('@') && !definition.account.eq_ignore_ascii_case(&definition.email);
    SignIn::Password {
        mailbox: other.then(|| definition.email.clone()),
        account: definition.account.clone(),
        password: SecretString::from(definition.password.clone()),
    }
}

/// One try to connect, sign in and select the folder. `reached`: called when the server was.
pub(super) async fn sign_in(
    shared: &Shared,
    definition: &MailboxDefinition,
    limits: Limits,
    reached: impl FnOnce() + Send,
) -> Result<Mail, Trouble> {
    let (sign_in, token) = credentials(shared, definition).await?;
    let reading = &shared.reading;
    let tls = shared.roots.client_config(&definition.ca_file).await.map_err(|error| error.diagnosis())?;
    let stream = net::connect(&place(definition), &tls, reading.connect_timeout).await?;
    reached();
    let opened = Box::pin(connection::open(stream, limits, reading.step_timeout, &sign_in, &definition.folder)).await;
    let (digest, lockout) = (CredentialDigest::of(definition), shared.broker.lockout());
    match &opened {
        Ok(_) => metric::SIGN_INS.count(&["accepted", ""]),
        Err(Unopened { diagnosis, .. }) => metric::SIGN_INS.count(&[diagnosis.outcome(), &diagnosis.code]),
    }
    match (opened, token) {
        (Ok(folder), token) => {
            if token.is_none() {
                lockout.accepted(digest);
            }
            Ok(folder)
        }
        (Err(Unopened { sign_in_refused: true, .. }), Some((credential, token)))
            if shared.broker.discard(&credential, &token, Duration::from_secs(300)).await =>
        {
            // It may only be stale: once more with a new one, which then is too young to be dropped.
            Err(Trouble::TokenExpired)
        }
        // The server does not say why; the token may.
        (Err(Unopened { sign_in_refused: true, diagnosis }), Some((_, token))) => {
            Err(Trouble::Problem(claims::explain(diagnosis, token.expose(), definition)))
        }
        (Err(unopened), token) => {
            if unopened.sign_in_refused && token.is_none() {
                lockout.refused(digest, now());
            }
            Err(Trouble::Problem(unopened.diagnosis))
        }
    }
}

/// A token that nothing is known against, as far as one can be had: consent makes only new ones better.
pub(crate) async fn token(
    shared: &Shared,
    definition: &MailboxDefinition,
    credential: &Credential,
) -> Result<Issued, Diagnosis> {
    let issued = shared.broker.token(credential).await?;
    let faulty = Claims::read(issued.token.expose()).is_some_and(|claims| claims.fault(definition).is_some());
    // Not younger ones: many mailboxes without a permission must not become many requests for tokens.
    if faulty && shared.broker.discard(credential, &issued.token, Duration::from_secs(10)).await {
        return shared.broker.token(credential).await;
    }
    Ok(issued)
}

/// What to sign in with, and for tokens what they came from.
async fn credentials(
    shared: &Shared,
    definition: &MailboxDefinition,
) -> Result<(SignIn, Option<(Credential, Token)>), Trouble> {
    if let Some(credential) = Credential::of(definition) {
        let token = token(shared, definition, &credential).await?.token;
        return Ok((with_token(definition, &token), Some((credential, token))));
    }
    if definition.authentication() != Authentication::Password {
        return Err(Trouble::Problem(diagnosis::defect("an authentication type that this worker does not know")));
    }
    let lockout = shared.broker.lockout();
    lockout.check(CredentialDigest::of(definition), now()).map_err(broker::locked)?;
    Ok((with_password(definition), None))
}
