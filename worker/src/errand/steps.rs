//! What checks have in common: the steps that they tell, the way to a server, and what is to be said of TLS and of tries.

use std::sync::Arc;

use postroom_proto::convert::to_duration;
use postroom_proto::v1::{self, CheckOutcome, report_errand_request::Found};
use rustls::ClientConfig;
use tokio::time::Instant;

use super::{Findings, Undone};
use crate::certificate;
use crate::diagnosis::Diagnosis;
use crate::mailbox::session::Shared;
use crate::mailbox::status::now;
use crate::net::{self, Place, Secure, Wire};
use crate::send::verdict::outgoing;
use crate::token::lockout::MAX_TRIES;

/// What a step that others hang on has come to.
pub(super) enum Outcome<T> {
    Done(T),
    /// It was not done: why those that hang on it are not tried.
    Not(&'static str),
}

/// Tells the steps.
pub(super) struct Steps<'f> {
    findings: &'f mut Findings,
    begun: Instant,
    /// In whose words problems are told.
    words: fn(Diagnosis) -> Diagnosis,
}

impl<'f> Steps<'f> {
    pub(super) fn new(findings: &'f mut Findings) -> Self {
        Self { findings, begun: Instant::now(), words: |found| found }
    }

    /// Steps of an outgoing server.
    pub(super) fn of_outgoing(findings: &'f mut Findings) -> Self {
        Self { words: outgoing, ..Self::new(findings) }
    }

    /// A step begins.
    pub(super) fn begin(&mut self) {
        self.begun = Instant::now();
    }

    pub(super) async fn ok(&mut self, name: &str, detail: impl Into<String>) -> Result<(), Undone> {
        self.tell(name, CheckOutcome::Ok, detail.into(), None).await
    }

    pub(super) async fn failed(
        &mut self,
        name: &str,
        detail: impl Into<String>,
        found: &Diagnosis,
    ) -> Result<(), Undone> {
        self.tell(name, CheckOutcome::Failed, detail.into(), Some(found)).await
    }

    pub(super) async fn skipped(&mut self, name: &str, why: &str) -> Result<(), Undone> {
        self.tell(name, CheckOutcome::Skipped, why.to_owned(), None).await
    }

    pub(super) async fn tell(
        &mut self,
        name: &str,
        outcome: CheckOutcome,
        detail: String,
        found: Option<&Diagnosis>,
    ) -> Result<(), Undone> {
        let problem = found.map(|found| {
            let found = (self.words)(found.clone());
            // A check has no next attempt of its own; when it may be tried again it says.
            let next = found.wait.map(|wait| now() + i64::try_from(wait.as_micros()).unwrap_or(0));
            let problem = found.problem(now(), next.unwrap_or_default());
            let next_attempt_time = next.and(problem.next_attempt_time);
            v1::Problem { since_time: None, next_attempt_time, ..problem }
        });
        let step = v1::CheckStep {
            name: name.to_owned(),
            outcome: outcome.into(),
            duration: (outcome != CheckOutcome::Skipped).then(|| to_duration(self.begun.elapsed())),
            detail,
            problem,
        };
        self.findings.tell(Found::Step(step)).await
    }
}

/// DNS and TCP: the connection, and whom TLS trusts on it. Where it cannot be had, the step "tls" is told as skipped.
pub(super) async fn reach(
    shared: &Shared,
    place: &Place,
    ca_file: &str,
    steps: &mut Steps<'_>,
) -> Result<Outcome<(Wire, Result<Arc<ClientConfig>, Diagnosis>)>, Undone> {
    let deadline = shared.reading.connect_timeout;
    let config = shared.roots.client_config(ca_file).await.map_err(|error| error.diagnosis());
    let unreached = "the mail server was not reached";
    steps.begin();
    let wire = if place.proxy.is_empty() {
        match net::look_up(place, deadline).await {
            Ok(addresses) => {
                let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
                steps.ok("dns", format!("{} is {}", place.host, shown.join(", "))).await?;
                steps.begin();
                net::dial(place, &addresses, deadline).await
            }
            Err(found) => {
                steps.failed("dns", "", &found).await?;
                for name in ["tcp", "tls"] {
                    steps.skipped(name, "the name of the mail server is not known").await?;
                }
                return Ok(Outcome::Not(unreached));
            }
        }
    } else {
        steps.skipped("dns", "the proxy looks names up").await?;
        steps.begin();
        match &config {
            Ok(config) => net::dial_through(place, config, deadline).await,
            Err(found) => Err(found.clone()),
        }
    };
    let wire = match wire {
        Ok(wire) => wire,
        Err(found) => {
            steps.failed("tcp", "", &found).await?;
            steps.skipped("tls", unreached).await?;
            return Ok(Outcome::Not(unreached));
        }
    };
    let by = if place.proxy.is_empty() { String::new() } else { format!(" by the proxy {}", place.proxy) };
    steps.ok("tcp", format!("connected to {place}{by}")).await?;
    Ok(Outcome::Done((wire, config)))
}

/// TLS from the first byte.
pub(super) async fn agree(
    shared: &Shared,
    place: &Place,
    (wire, config): (Wire, Result<Arc<ClientConfig>, Diagnosis>),
    steps: &mut Steps<'_>,
) -> Result<Outcome<Secure>, Undone> {
    steps.begin();
    let agreed = match config {
        Ok(config) => net::agree(wire, place, &config, shared.reading.connect_timeout).await,
        Err(found) => Err(found),
    };
    match agreed {
        Ok(secure) => {
            steps.ok("tls", shown(&secure)).await?;
            Ok(Outcome::Done(secure))
        }
        Err(found) => {
            steps.failed("tls", "", &found).await?;
            Ok(Outcome::Not("there is no TLS with the mail server"))
        }
    }
}

/// Version and certificates.
pub(super) fn shown(secure: &Secure) -> String {
    let (_, session) = secure.get_ref();
    let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
    let chain = session.peer_certificates().unwrap_or_default();
    format!("{version}; {}", certificate::describe(chain))
}

/// What is to be known of tries with a refused password.
pub(super) fn of_tries(before: usize, after: usize) -> String {
    if after > before {
        format!("this was try {after} of the {MAX_TRIES} within an hour that do not lock an account")
    } else if before >= MAX_TRIES {
        format!("not tried: it was refused {before} times within the hour")
    } else {
        String::new()
    }
}
