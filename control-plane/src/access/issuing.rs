//! Makes, lists and ends credentials. What is made is known here before it is answered, and at other replicas soon after.

use std::sync::Arc;
use std::time::Duration;

use postroom_proto::convert::{from_duration, to_timestamp};
use postroom_proto::id::{NAME_RULE, is_name};
use postroom_proto::reason::{Failure, FieldFault, Reason};
use postroom_proto::v1::{self, CredentialKind};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;

use super::authority::{Authority, pem};
use super::credential::{Credential, Fingerprint, Kind, fingerprint, new_id};
use super::directory::Directory;
use super::role::Role;
use super::standing::Standing;
use super::token::mint;
use super::usage;
use super::vault::Vault;
use crate::clock;
use crate::definition::model::Model;
use crate::ledger::{Micros, micros};
use crate::store::{Guard, MAX_WRITES, Outcome, Revision, SharedStore, Write, key};

/// Most credentials of all kinds.
const MOST: usize = 10_000;
/// Most certificates of one worker that have not expired: renewals keep to far fewer.
const MOST_OF_WORKER: usize = 16;
/// Longest name of a token, in characters.
const LONGEST_NAME: usize = 100;
/// How long a token holds unless something else is asked for.
const TOKEN_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
const LONGEST_TOKEN_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);
/// The same for an enrolment.
const ENROLMENT_TTL: Duration = Duration::from_secs(3600);
const LONGEST_ENROLMENT_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long an answer waits until this replica knows what was written.
const HEARD: Duration = Duration::from_secs(3);
/// Most attempts to use an enrolment that somebody else uses meanwhile.
const ATTEMPTS: u32 = 4;
/// Most tokens that others may make while one waits to be made.
const TURNS: u32 = 32;

/// Makes and ends credentials. Cheap to share.
#[derive(Clone)]
pub struct Issuer {
    /// Where they stand.
    pub store: SharedStore,
    /// Seals the key of the installation's CA.
    pub vault: Arc<Vault>,
    /// Knows them.
    pub directory: Directory,
    /// Knows the instances.
    pub model: watch::Receiver<Arc<Model>>,
    /// Certificates are of use: the port speaks TLS.
    pub tls: bool,
    /// How long a worker's certificate holds.
    pub certificate_lifetime: Duration,
}

impl Issuer {
    /// Makes a token.
    pub async fn create(&self, request: v1::CreateTokenRequest, by: &str) -> Result<v1::CreateTokenResponse, Failure> {
        for _ in 0..TURNS {
            // Ordering: first which token is the last, then which names there are. Whoever is overtaken, at another
            // replica too, looks again: its name may have been given meanwhile.
            let turn = self.turn().await?;
            let (name, role, ttl) = self.wanted(request.clone())?;
            if let Some((credential, token)) = self.token(Kind::Token, &name, role, ttl, by, Some(turn)).await? {
                return Ok(v1::CreateTokenResponse {
                    credential: Some(credential),
                    token: token.expose_secret().into(),
                });
            }
        }
        Err(Failure::new(Reason::TooMany, "many tokens are being made just now; try again"))
    }

    /// What holds as long as nobody makes a token; those that were made are known here.
    async fn turn(&self) -> Result<Guard, Failure> {
        Ok(match self.store.get(key::LAST_TOKEN).await? {
            None => Guard::Absent(key::LAST_TOKEN.into()),
            Some(last) => {
                self.heard(last.mod_revision).await?;
                Guard::Unchanged(last.key, last.mod_revision)
            }
        })
    }

    /// What is asked for, or every fault of it.
    fn wanted(&self, request: v1::CreateTokenRequest) -> Result<(String, Role, Duration), Failure> {
        let mut faults = Vec::new();
        let mut fault = |field: &str, description: String| {
            faults.push(FieldFault { field: field.into(), description });
        };
        let name = request.name.trim();
        if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
            fault("name", format!("must have 1 to {LONGEST_NAME} characters, no control characters"));
        } else if self.is_taken(name) {
            fault("name", format!("{name:?} is another token's; choose another, or revoke that one first"));
        }
        if !request.instance.is_empty() && request.role != "instance" {
            fault("instance", "is only for the role instance; leave it out".into());
        }
        if !request.worker.is_empty() && request.role != "worker" {
            fault("worker", "is only for the role worker; leave it out".into());
        }
        let role = match request.role.as_str() {
            "admin" => Some(Role::Admin),
            "operator" => Some(Role::Operator),
            "viewer" => Some(Role::Viewer),
            "worker" if request.worker.is_empty() => Some(Role::Worker(None)),
            "worker" if is_name(&request.worker) => Some(Role::Worker(Some(request.worker))),
            "worker" => {
                fault("worker", format!("must be {NAME_RULE}"));
                None
            }
            "instance" if request.instance.is_empty() => {
                fault("instance", "is missing; name the instance that the token is for".into());
                None
            }
            "instance" if self.model.borrow().instance(&request.instance).is_none() => {
                let text = format!("there is no instance {:?}; see `postroom instance list`", request.instance);
                fault("instance", text);
                None
            }
            "instance" => Some(Role::Instance(request.instance)),
            other => {
                fault("role", format!("{other:?} is no role; write admin, operator, viewer, worker or instance"));
                None
            }
        };
        let ttl = ttl(request.ttl.as_ref(), TOKEN_TTL, LONGEST_TOKEN_TTL);
        if ttl.is_none() {
            fault("ttl", "must be between 1 s and 3650 days".into());
        }
        match (role, ttl) {
            (Some(role), Some(ttl)) if faults.is_empty() => Ok((name.to_owned(), role, ttl)),
            _ => Err(Failure::invalid(faults)),
        }
    }

    fn is_taken(&self, name: &str) -> bool {
        let now = clock::now();
        let known = self.directory.known();
        let mut tokens = known.credentials.values().filter(|it| it.kind == Kind::Token && !it.is_over(now));
        tokens.any(|token| token.name == name) || self.directory.given().any(|given| given == name)
    }

    /// Makes a token by which a worker gets its first certificate.
    pub async fn enroll(
        &self,
        request: v1::EnrollWorkerRequest,
        by: &str,
    ) -> Result<v1::EnrollWorkerResponse, Failure> {
        if !is_name(&request.worker) {
            return Err(Failure::invalid_field("worker", format!("must be {NAME_RULE}")));
        }
        let ttl = ttl(request.ttl.as_ref(), ENROLMENT_TTL, LONGEST_ENROLMENT_TTL)
            .ok_or_else(|| Failure::invalid_field("ttl", "must be between 1 s and 7 days"))?;
        self.require_tls()?;
        // Ordering: before the token, so that whoever gets one can use it.
        Authority::of(&self.store, &self.vault).await?;
        let role = Role::Enrolling(request.worker.clone());
        let made = self.token(Kind::Enrolment, &request.worker, role, ttl, by, None).await?;
        let (credential, token) = made.ok_or_else(unknown)?;
        Ok(v1::EnrollWorkerResponse { credential: Some(credential), token: token.expose_secret().into() })
    }

    /// Makes a token, if it still is its turn.
    async fn token(
        &self,
        kind: Kind,
        name: &str,
        role: Role,
        ttl: Duration,
        by: &str,
        turn: Option<Guard>,
    ) -> Result<Option<(v1::Credential, SecretString)>, Failure> {
        self.require_room()?;
        let random = |error: getrandom::Error| {
            Failure::new(Reason::Internal, format!("the system gives no random numbers: {error}"))
        };
        let (id, token) = (new_id().map_err(random)?, mint().map_err(random)?);
        let now = clock::now();
        let digest = fingerprint(token.expose_secret().as_bytes());
        let credential = Credential::new(kind, name, role, digest, (now, by, now.saturating_add(micros(ttl))));
        if !self.put(turn, &id, &credential).await? {
            return Ok(None);
        }
        tracing::info!(credential = id, name, role = %credential.role, by, "a token was made");
        Ok(Some((describe(&id, &credential, None, now), token)))
    }

    /// Signs a worker's key.
    pub async fn certify(
        &self,
        standing: &Standing,
        request: &[u8],
    ) -> Result<v1::RequestCertificateResponse, Failure> {
        self.require_tls()?;
        let bound = matches!(standing.kind, Kind::Enrolment | Kind::Certificate) && standing.id.is_some();
        let Some(worker) = standing.role.worker().filter(|_| bound) else {
            let text = "a certificate is given for an enrolment token, or for a certificate that was made here; see \
                        `postroom worker enroll`";
            return Err(Failure::new(Reason::PermissionDenied, text));
        };
        self.require_room()?;
        let now = clock::now();
        let known = self.directory.known();
        let certificates = known.credentials.values().filter(|it| it.kind == Kind::Certificate && it.name == worker);
        if certificates.filter(|it| !it.is_over(now)).count() >= MOST_OF_WORKER {
            let text = format!(
                "worker {worker} has {MOST_OF_WORKER} certificates already; revoke them with `postroom token revoke \
                 --worker {worker}`, then enrol it again"
            );
            return Err(Failure { retry_after: None, ..Failure::new(Reason::TooMany, text) });
        }
        let (authority, _) = Authority::of(&self.store, &self.vault).await?;
        let issued = authority.certify(worker, request, now, self.certificate_lifetime)?;
        let role = Role::Worker(Some(worker.into()));
        let made = (now, standing.name.as_str(), issued.expires);
        let certificate = Credential::new(Kind::Certificate, worker, role, fingerprint(&issued.certificate), made);
        let id = new_id().map_err(|error| Failure::new(Reason::Internal, error.to_string()))?;
        self.redeem(standing, &issued.public_key, &id, &certificate).await?;
        tracing::info!(credential = id, worker, "a certificate was made");
        Ok(v1::RequestCertificateResponse {
            certificate: pem("CERTIFICATE", &issued.certificate),
            expire_time: Some(to_timestamp(issued.expires)),
        })
    }

    /// Writes the certificate, together with the note that an enrolment was used, and by which key.
    async fn redeem(
        &self,
        standing: &Standing,
        public_key: &Fingerprint,
        id: &str,
        certificate: &Credential,
    ) -> Result<(), Failure> {
        let by = key::credential(standing.id.as_deref().unwrap_or_default());
        for _ in 0..ATTEMPTS {
            let entry = self.store.get(&by).await?;
            let found = entry.and_then(|entry| Some((Credential::decode(&entry.value)?, entry.mod_revision)));
            let Some((found, revision)) = found else {
                return Err(Failure::new(Reason::Unauthenticated, format!("{} was revoked", standing.name)));
            };
            // Invariant: the certificate is written only while what it is given for still stands as it was looked at.
            let guards = vec![Guard::Unchanged(by.clone(), revision)];
            let mut writes = vec![Write::Put(key::credential(id), certificate.encode())];
            if standing.kind == Kind::Enrolment {
                match found.redeemed {
                    // Whoever has the key asks again: the answer was lost.
                    Some(key) if key == *public_key => {}
                    Some(_) => {
                        let text = format!(
                            "the enrolment of worker {0} was used for another key already; make another with `postroom \
                             worker enroll {0}`, and if nobody of yours has used it, revoke what the worker has: \
                             `postroom token revoke --worker {0}`",
                            standing.name
                        );
                        return Err(Failure::new(Reason::PermissionDenied, text));
                    }
                    None => {
                        let redeemed = found.redeemed_by(*public_key);
                        writes.push(Write::Put(by.clone(), redeemed.encode()));
                    }
                }
            }
            match self.store.commit(guards, writes).await? {
                Outcome::Committed(revision) => return self.heard(revision).await,
                Outcome::Conflict => {}
                Outcome::Unknown => return Err(unknown()),
            }
        }
        Err(unknown())
    }

    /// All credentials.
    pub async fn list(&self) -> Result<v1::ListCredentialsResponse, Failure> {
        let uses = usage::recorded(&self.store).await?;
        let (known, now) = (self.directory.known(), clock::now());
        let mut credentials: Vec<_> = known.credentials.iter().collect();
        credentials.sort_by(|(a_id, a), (b_id, b)| {
            (a.kind, &a.name, a.created, a_id).cmp(&(b.kind, &b.name, b.created, b_id))
        });
        let used = |id: &String| uses.get(id).copied();
        let credentials = credentials.into_iter().map(|(id, it)| describe(id, it, used(id), now)).collect();
        Ok(v1::ListCredentialsResponse { credentials })
    }

    /// Ends what is named.
    pub async fn revoke(
        &self,
        request: v1::RevokeCredentialsRequest,
        by: &str,
    ) -> Result<v1::RevokeCredentialsResponse, Failure> {
        let (wanted, worker) = (request.credential.as_str(), request.worker.as_str());
        let meant = |(id, it): &(&String, &Credential)| match worker {
            "" => id.as_str() == wanted || it.kind == Kind::Token && it.name == wanted,
            worker => it.role.worker() == Some(worker),
        };
        match (wanted, worker) {
            ("", "") => {
                return Err(Failure::invalid_field("credential", "is missing; name a token, an id or a worker"));
            }
            ("", _) | (_, "") => {}
            _ => return Err(Failure::invalid_field("worker", "leave it out, or the credential: one of them is meant")),
        }
        let mut ended = Vec::new();
        loop {
            let known = self.directory.known();
            let found: Vec<_> = known.credentials.iter().filter(meant).collect();
            if found.is_empty() {
                break;
            }
            self.end(&found, by).await?;
            let now = clock::now();
            ended.extend(found.into_iter().map(|(id, it)| describe(id, it, None, now)));
            // What a worker has makes more: a certificate may have got the next one while it was being ended. The name
            // of a token may be another's by now, who is not meant.
            if worker.is_empty() {
                break;
            }
        }
        if ended.is_empty() {
            return Err(self.nothing(wanted, worker));
        }
        Ok(v1::RevokeCredentialsResponse { credentials: ended })
    }

    /// Removes these from the store; when it answers, they let nobody in here.
    async fn end(&self, ended: &[(&String, &Credential)], by: &str) -> Result<(), Failure> {
        for some in ended.chunks(MAX_WRITES / 2) {
            let writes =
                some.iter().flat_map(|(id, _)| [Write::Delete(key::credential(id)), Write::Delete(key::usage(id))]);
            let Outcome::Committed(_) = self.store.commit(Vec::new(), writes.collect()).await? else {
                return Err(unknown());
            };
            for (id, it) in some {
                tracing::warn!(credential = id, name = it.name, role = %it.role, by, "a credential was revoked");
            }
            // The credentials are waited for, not the commit: when another replica has removed them before, it changes
            // nothing that could be heard of.
            let ids: Vec<&str> = some.iter().map(|(id, _)| id.as_str()).collect();
            if !self.directory.forgotten(&ids, HEARD).await {
                return Err(unheard());
            }
        }
        Ok(())
    }

    fn nothing(&self, wanted: &str, worker: &str) -> Failure {
        let text = match worker {
            "" if self.directory.given().any(|given| given == wanted) => format!(
                "the token {wanted:?} is kept in a file of the data folder, not in the store: stop, move the file away \
                 and start again, and another is made"
            ),
            "" => format!("there is no token {wanted:?}; see `postroom token list`"),
            worker => format!("worker {worker:?} has nothing that could be revoked; see `postroom token list`"),
        };
        Failure::new(Reason::NotFound, text)
    }

    fn require_tls(&self) -> Result<(), Failure> {
        let text = "workers are known by certificates only where TLS is on: let `postroom up` listen beyond loopback, \
                    or give postroom-control-plane the setting tls.own-names, or a certificate with its key by \
                    tls.certificate-file and tls.key-file";
        if self.tls { Ok(()) } else { Err(Failure::new(Reason::TlsRequired, text)) }
    }

    fn require_room(&self) -> Result<(), Failure> {
        if self.directory.known().credentials.len() < MOST {
            return Ok(());
        }
        let text = format!("there are {MOST} credentials already; revoke those that nobody needs");
        Err(Failure { retry_after: None, ..Failure::new(Reason::TooMany, text) })
    }

    /// Writes a token. False: it was overtaken.
    async fn put(&self, turn: Option<Guard>, id: &str, credential: &Credential) -> Result<bool, Failure> {
        let at = key::credential(id);
        let mut guards = vec![Guard::Absent(at.clone())];
        let mut writes = vec![Write::Put(at, credential.encode())];
        if let Some(turn) = turn {
            guards.push(turn);
            writes.push(Write::Put(key::LAST_TOKEN.into(), id.to_owned().into()));
        }
        match self.store.commit(guards, writes).await? {
            Outcome::Committed(revision) => {
                // Unheard it is in force a little later. Nobody else has it, so it must not be lost with a failure.
                let _ = self.directory.reached(revision, HEARD).await;
                Ok(true)
            }
            Outcome::Conflict => Ok(false),
            Outcome::Unknown => Err(unknown()),
        }
    }

    async fn heard(&self, revision: Revision) -> Result<(), Failure> {
        if self.directory.reached(revision, HEARD).await { Ok(()) } else { Err(unheard()) }
    }
}

fn unheard() -> Failure {
    let text = "the store has the change, but this control plane has not heard of it yet and goes on with what it knew; \
                look with `postroom token list`, then try again";
    Failure::new(Reason::OutcomeUnknown, text)
}

fn unknown() -> Failure {
    let text = "it is not known whether that was recorded; look with `postroom token list`, then try again";
    Failure::new(Reason::OutcomeUnknown, text)
}

fn ttl(wanted: Option<&prost_types::Duration>, usual: Duration, longest: Duration) -> Option<Duration> {
    let ttl = wanted.map_or(Some(usual), from_duration);
    ttl.filter(|ttl| (Duration::from_secs(1)..=longest).contains(ttl))
}

fn describe(id: &str, credential: &Credential, used: Option<Micros>, now: Micros) -> v1::Credential {
    let kind = match credential.kind {
        Kind::Token => CredentialKind::Token,
        Kind::Enrolment => CredentialKind::Enrolment,
        Kind::Certificate => CredentialKind::Certificate,
    };
    v1::Credential {
        id: id.into(),
        kind: kind.into(),
        name: credential.name.clone(),
        role: credential.role.to_string(),
        create_time: Some(to_timestamp(credential.created)),
        created_by: credential.by.clone(),
        expire_time: Some(to_timestamp(credential.expires)),
        last_use_time: used.map(to_timestamp),
        expired: credential.is_over(now),
        redeemed: credential.redeemed.is_some(),
    }
}

#[cfg(test)]
mod tests;
