//! `token`, and `worker enroll`.

use std::time::Duration;

use jiff::Timestamp;
use postroom_proto::convert::to_duration;
use postroom_proto::v1;

use super::Session;
use crate::args::{CreateToken, Output, Token};
use crate::error::Error;
use crate::render::{table, time, words};

pub(super) async fn run(session: &mut Session<'_, '_>, verb: Token) -> Result<(), Error> {
    match verb {
        Token::Create(args) => create(session, args).await,
        Token::List => {
            let (all, now) = (session.client()?.list_credentials().await?, session.now());
            session.show(&all, |all| listed(&all.credentials, now))
        }
        Token::Revoke { token, worker } => {
            let request = v1::RevokeCredentialsRequest {
                credential: token.unwrap_or_default(),
                worker: worker.unwrap_or_default(),
            };
            let (ended, now) = (session.client()?.revoke_credentials(request).await?, session.now());
            session.show(&ended, |ended| listed(&ended.credentials, now))
        }
    }
}

async fn create(session: &mut Session<'_, '_>, args: CreateToken) -> Result<(), Error> {
    let request = v1::CreateTokenRequest {
        name: args.name,
        role: args.role.name().into(),
        instance: args.instance.unwrap_or_default(),
        worker: args.worker.unwrap_or_default(),
        ttl: Some(to_duration(args.ttl)),
    };
    let made = session.client()?.create_token(request).await?;
    // Ordering: the token first, so that it is there when a note cannot be written.
    session.show(&made, |made| format!("{}\n", made.token))?;
    if session.output == Output::Table {
        let told = describe(made.credential.as_ref(), session.now());
        session.note(&format!("{told}; keep the token: it is shown nowhere else"));
    }
    Ok(())
}

pub(super) async fn enroll(session: &mut Session<'_, '_>, worker: String, ttl: Duration) -> Result<(), Error> {
    let request = v1::EnrollWorkerRequest { worker, ttl: Some(to_duration(ttl)) };
    let made = session.client()?.enroll_worker(request).await?;
    session.show(&made, |made| format!("{}\n", made.token))?;
    if session.output == Output::Table {
        let told = describe(made.credential.as_ref(), session.now());
        session.note(&format!(
            "{told}; write it into the file of the worker's setting tls.enrolment-token-file: it is good for one worker, once"
        ));
    }
    Ok(())
}

fn describe(made: Option<&v1::Credential>, now: Timestamp) -> String {
    let made = made.cloned().unwrap_or_default();
    let expires = time::time_and_age(made.expire_time.as_ref(), now);
    format!("made {} {} ({}), which expires {expires}", words::credential_kind(made.kind), made.name, made.role)
}

fn listed(credentials: &[v1::Credential], now: Timestamp) -> String {
    let row = |it: &v1::Credential| {
        let mut notes = Vec::new();
        if it.expired {
            notes.push("expired");
        }
        if it.redeemed {
            notes.push("used up");
        }
        [
            it.name.clone(),
            words::credential_kind(it.kind),
            it.role.clone(),
            it.id.clone(),
            time::time(it.create_time.as_ref()),
            it.created_by.clone(),
            time::time_and_age(it.expire_time.as_ref(), now),
            time::time(it.last_use_time.as_ref()),
            notes.join("; "),
        ]
    };
    let header = ["NAME", "KIND", "ROLE", "ID", "CREATED", "BY", "EXPIRES", "USED", "NOTES"];
    table::rows(header, credentials.iter().map(row))
}
