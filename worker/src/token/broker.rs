//! One broker a worker: keeps tokens, asks for each only once at a time, and renews them before they end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use postroom_proto::catalogue::own;
use postroom_proto::convert::micros;
use postroom_proto::metric;
use tokio::time::Instant;

use super::grant::{self, Granted};
use super::lockout::Lockout;
use super::{Credential, CredentialDigest, Token};
use crate::diagnosis::{self, Diagnosis};
use crate::tls::Roots;

/// How long a passing failure is repeated to everybody who asks, before the endpoint is asked again.
const HOLD_TRANSIENT: Duration = Duration::from_secs(2);
/// The same for a lasting failure. A correction at the provider shows after this time; one in the definition at once.
const HOLD_LASTING: Duration = Duration::from_secs(30);

/// A token in use.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The token.
    pub token: Token,
    /// When the server that takes it will end the session.
    pub expires: Instant,
}

/// Keeps the tokens of a worker. Cheap to share.
#[derive(Debug)]
pub struct Broker {
    roots: Arc<Roots>,
    deadline: Duration,
    plain: bool,
    lockout: Lockout,
    slots: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Slot>>>>,
}

/// What a token is kept under: the credential, the scope that it is for, the CA file by which its endpoint is trusted, and
/// the proxy by which it is reached. Two servers that differ in these only must not have each other's token or each
/// other's failure.
type Key = (CredentialDigest, String, String, String);

#[derive(Debug, Default)]
struct Slot {
    granted: Option<Kept>,
    failed: Option<(Instant, Diagnosis)>,
}

#[derive(Debug, Clone)]
struct Kept {
    usable: Issued,
    issued: Instant,
    renew: Instant,
}

impl Broker {
    /// A broker that keeps nothing yet. `deadline`: for one request to a token endpoint.
    pub fn new(roots: Arc<Roots>, deadline: Duration) -> Self {
        Self { roots, deadline, plain: false, lockout: Lockout::default(), slots: Mutex::default() }
    }

    /// A broker that also asks token endpoints without TLS, for tests against a scripted one.
    #[cfg(test)]
    pub(crate) fn plain(deadline: Duration) -> Self {
        Self { plain: true, ..Self::new(Arc::new(Roots::new()), deadline) }
    }

    /// Counts refused passwords.
    pub fn lockout(&self) -> &Lockout {
        &self.lockout
    }

    /// A token that is good for a while: kept, or asked for now. Callers with the same credential wait for one request.
    pub async fn token(&self, credential: &Credential) -> Result<Issued, Diagnosis> {
        let slot = self.slot(credential);
        let mut slot = slot.lock().await;
        let now = Instant::now();
        if let Some(kept) = &slot.granted
            && now < kept.renew
        {
            return Ok(kept.usable.clone());
        }
        if let Some((until, found)) = &slot.failed
            && now < *until
        {
            // A failure to renew early is no failure while the old token still works.
            return still_good(&slot, now).ok_or_else(|| found.clone());
        }
        match self.request(credential).await {
            Ok(granted) => {
                let kept = keep(granted, now);
                let usable = kept.usable.clone();
                *slot = Slot { granted: Some(kept), failed: None };
                Ok(usable)
            }
            Err(found) => {
                let hold = if found.is_transient() { HOLD_TRANSIENT } else { HOLD_LASTING };
                slot.failed = Some((Instant::now() + found.wait.unwrap_or(hold), found.clone()));
                still_good(&slot, Instant::now()).ok_or(found)
            }
        }
    }

    /// Drops a token that a server did not take, so that the next caller asks for a new one. A newer one stays, and so
    /// does one younger than `age`: with it the fault lies elsewhere, and many mailboxes without a permission must not
    /// become many requests for tokens. True when it was dropped or had been already.
    pub async fn discard(&self, credential: &Credential, token: &Token, age: Duration) -> bool {
        self.discard_if(credential, age, |kept| kept.expose() == token.expose()).await
    }

    /// Drops whatever token there is if it is older than `age`.
    pub async fn discard_older(&self, credential: &Credential, age: Duration) {
        self.discard_if(credential, age, |_| true).await;
    }

    async fn discard_if(&self, credential: &Credential, age: Duration, which: impl Fn(&Token) -> bool) -> bool {
        let slot = self.slot(credential);
        let mut slot = slot.lock().await;
        let Some(kept) = &slot.granted else { return true };
        if !which(&kept.usable.token) {
            return true;
        }
        let old = kept.issued.elapsed() >= age;
        if old {
            slot.granted = None;
        }
        old
    }

    async fn request(&self, credential: &Credential) -> Result<Granted, Diagnosis> {
        let digest = credential.digest;
        if credential.has_password() {
            self.lockout.check(digest, now_micros()).map_err(locked)?;
        }
        let tls = self.roots.client_config(&credential.ca_file).await.map_err(|error| error.diagnosis())?;
        let answer = grant::request(credential, tls, self.deadline, self.plain).await;
        match answer {
            Ok(granted) => {
                metric::TOKENS.count(&["granted", ""]);
                self.lockout.accepted(digest);
                Ok(granted)
            }
            Err(error) => {
                let found = error.diagnosis();
                metric::TOKENS.count(&[found.outcome(), &found.code]);
                if !(credential.has_password() && error.is_refused_password()) {
                    return Err(found);
                }
                self.lockout.refused(digest, now_micros());
                match self.lockout.check(digest, now_micros()) {
                    Ok(()) => Err(found),
                    Err(until) => {
                        let wait = locked(until).wait;
                        Err(diagnosis::locked_out(&found).after(wait))
                    }
                }
            }
        }
    }

    fn slot(&self, credential: &Credential) -> Arc<tokio::sync::Mutex<Slot>> {
        let Credential { digest, scope, ca_file, proxy, .. } = credential;
        let key = (*digest, scope.clone(), ca_file.clone(), proxy.clone());
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // Credentials come and go with definitions; what nobody uses is dropped when the map has doubled.
        if slots.len() >= 64 && slots.len().is_power_of_two() && !slots.contains_key(&key) {
            let now = Instant::now();
            slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1
                    || slot.try_lock().is_ok_and(|slot| still_good(&slot, now).is_some() || slot.failed.is_some())
            });
        }
        slots.entry(key).or_default().clone()
    }
}

/// The problem of a password that was refused often enough.
pub fn locked(until_micros: i64) -> Diagnosis {
    let wait = Duration::from_micros(u64::try_from(until_micros - now_micros()).unwrap_or(0));
    let found = Diagnosis::of(&own::PASSWORD_REFUSED, own::PASSWORD_REFUSED.title);
    diagnosis::locked_out(&found).after(Some(wait))
}

fn still_good(slot: &Slot, now: Instant) -> Option<Issued> {
    let kept = slot.granted.as_ref()?;
    // Enough to sign in with; the session ends itself when the token does.
    (now + Duration::from_secs(10) < kept.usable.expires).then(|| kept.usable.clone())
}

/// Renewed 5 minutes, or 10 % of its life if that is longer, before the end; short-lived ones at half their life.
fn keep(granted: Granted, now: Instant) -> Kept {
    let life = granted.life;
    let early = Duration::from_secs(300).max(life / 10).min(life / 2);
    let usable = Issued { token: granted.token, expires: now + life };
    Kept { usable, issued: now, renew: now + life.saturating_sub(early) }
}

fn now_micros() -> i64 {
    micros(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use postroom_proto::v1::{Authentication, MailboxDefinition};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::diagnosis::ProblemKind;

    /// A token endpoint that gives one scripted answer a request, the last one for ever.
    struct Endpoint {
        authority: String,
        asked: Arc<AtomicUsize>,
        bodies: Arc<Mutex<Vec<String>>>,
    }

    async fn endpoint(answers: Vec<String>) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let authority = format!("http://{}/tenant", listener.local_addr().expect("bound"));
        let asked = Arc::new(AtomicUsize::new(0));
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let (count, kept) = (asked.clone(), bodies.clone());
        tokio::spawn(async move {
            loop {
                let Ok((mut socket, _)) = listener.accept().await else { return };
                let mut request = Vec::new();
                let body = loop {
                    let mut chunk = [0; 4096];
                    let read = socket.read(&mut chunk).await.expect("a request");
                    request.extend_from_slice(&chunk[..read]);
                    let text = String::from_utf8_lossy(&request).into_owned();
                    if let Some((head, body)) = text.split_once("\r\n\r\n") {
                        let length = head.to_lowercase();
                        let length =
                            length.split("content-length: ").nth(1).and_then(|l| l.lines().next()?.parse().ok());
                        if body.len() >= length.unwrap_or(0) {
                            break body.to_owned();
                        }
                    }
                };
                kept.lock().expect("bodies").push(body);
                let at = count.fetch_add(1, Ordering::SeqCst);
                let answer = &answers[at.min(answers.len() - 1)];
                socket.write_all(answer.as_bytes()).await.expect("answered");
            }
        });
        Endpoint { authority, asked, bodies }
    }

    fn answer(status: u16, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
    }

    fn token(text: &str, life: &str) -> String {
        answer(200, "content-type: text/html\r\n", &format!(r#"{{"access_token":"{text}","expires_in":{life}}}"#))
    }

    fn refusal(code: u64) -> String {
        let body = format!(
            r#"{{"error":"invalid_grant","error_description":"AADSTS{code}: No.","error_codes":[{code}],"trace_id":"t-1","correlation_id":"c-1","suberror":"s"}}"#
        );
        answer(400, "content-type: application/json\r\n", &body)
    }

    fn credential(authority: &str, authentication: Authentication, password: &str) -> Credential {
        Credential::of(&MailboxDefinition {
            authentication: authentication.into(),
            authority: authority.into(),
            account: "anna@contoso.example".into(),
            password: password.into(),
            client_id: "app".into(),
            client_secret: if authentication == Authentication::OauthService { "s~/+c".into() } else { String::new() },
            scope: "https://outlook.office365.com/.default".into(),
            ..MailboxDefinition::default()
        })
        .expect("a token")
    }

    fn broker() -> Broker {
        Broker::plain(Duration::from_secs(5))
    }

    #[tokio::test]
    async fn many_callers_make_one_request_with_the_secret_in_the_body() {
        let endpoint = endpoint(vec![token("one", "\"3599\""), token("two", "3599")]).await;
        let broker = broker();
        let credential = credential(&endpoint.authority, Authentication::OauthService, "");
        let tokens = futures::future::join_all((0..20).map(|_| broker.token(&credential))).await;
        for usable in tokens {
            assert_eq!(usable.expect("a token").token.expose(), "one");
        }
        assert_eq!(endpoint.asked.load(Ordering::SeqCst), 1);
        let body = endpoint.bodies.lock().expect("bodies")[0].clone();
        for part in ["grant_type=client_credentials", "client_id=app", "client_secret=s%7E%2F%2Bc", "scope=https"] {
            assert!(body.contains(part), "{part} in {body}");
        }
        let old = broker.token(&credential).await.expect("kept").token;
        assert!(!broker.discard(&credential, &old, Duration::from_secs(300)).await, "too young");
        assert!(broker.discard(&credential, &old, Duration::ZERO).await);
        assert_eq!(broker.token(&credential).await.expect("new").token.expose(), "two");
        assert!(broker.discard(&credential, &old, Duration::ZERO).await);
        assert_eq!(broker.token(&credential).await.expect("kept").token.expose(), "two");
    }

    #[tokio::test]
    async fn a_refused_password_is_tried_three_times_and_a_changed_one_at_once() {
        let endpoint = endpoint(vec![refusal(50_126), refusal(50_126), refusal(50_126), token("good", "3599")]).await;
        let broker = broker();
        let wrong = credential(&endpoint.authority, Authentication::OauthUser, "wrong");
        for _ in 0..6 {
            let found = broker.token(&wrong).await.expect_err("refused");
            assert_eq!(found.code, "AADSTS50126", "{found:?}");
            assert!(found.cause.contains("c-1"), "{found:?}");
            // As if the time for which the failure is held had passed.
            broker.slot(&wrong).lock().await.failed = None;
            if endpoint.asked.load(Ordering::SeqCst) == 3 {
                break;
            }
        }
        let found = broker.token(&wrong).await.expect_err("locked out");
        assert!(found.wait.is_some_and(|wait| wait > Duration::from_secs(3000)), "{found:?}");
        assert_eq!(endpoint.asked.load(Ordering::SeqCst), 3);
        let right = credential(&endpoint.authority, Authentication::OauthUser, "right");
        assert_eq!(broker.token(&right).await.expect("a token").token.expose(), "good");
        let body = endpoint.bodies.lock().expect("bodies")[3].clone();
        assert!(body.contains("grant_type=password") && body.contains("username=anna%40contoso.example"), "{body}");
    }

    #[tokio::test]
    async fn a_failure_is_held_and_told_to_everybody() {
        let busy = answer(429, "retry-after: 7\r\ncontent-type: text/plain\r\n", "slow down");
        let endpoint = endpoint(vec![busy]).await;
        let broker = broker();
        let credential = credential(&endpoint.authority, Authentication::OauthService, "");
        for _ in 0..5 {
            let found = broker.token(&credential).await.expect_err("busy");
            assert_eq!((found.kind, found.wait), (ProblemKind::Throttled, Some(Duration::from_secs(7))));
        }
        assert_eq!(endpoint.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn an_error_with_status_200_is_an_error() {
        let body = r#"{"error":"invalid_client","error_codes":[7000222]}"#;
        let endpoint = endpoint(vec![answer(200, "content-type: application/json\r\n", body)]).await;
        let found = broker().token(&credential(&endpoint.authority, Authentication::OauthService, "")).await;
        assert_eq!(found.expect_err("refused").code, "AADSTS7000222");
    }

    #[tokio::test]
    async fn an_endpoint_that_is_not_there_is_a_passing_fault() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let authority = format!("http://{}/t", listener.local_addr().expect("bound"));
        drop(listener);
        let found = broker().token(&credential(&authority, Authentication::OauthService, "")).await;
        assert_eq!(found.expect_err("nobody").code, "UNREACHABLE");
    }

    #[tokio::test]
    async fn a_wrong_ca_file_is_the_trouble_of_its_own_server_only() {
        let endpoint = endpoint(vec![token("t", "3600")]).await;
        let right = credential(&endpoint.authority, Authentication::OauthService, "");
        let wrong = Credential { ca_file: "/nowhere/ca.pem".into(), ..right.clone() };
        let broker = broker();
        for _ in 0..2 {
            assert_eq!(broker.token(&wrong).await.expect_err("no such file").code, "CA_FILE_UNREADABLE");
            assert!(broker.token(&right).await.is_ok());
        }
    }

    #[tokio::test]
    async fn a_token_is_for_one_scope_and_a_refused_password_for_all() {
        let endpoint = endpoint(vec![token("one", "3599"), token("two", "3599")]).await;
        let broker = broker();
        let reads = credential(&endpoint.authority, Authentication::OauthUser, "right");
        let sends = Credential { scope: "https://graph.microsoft.com/.default".into(), ..reads.clone() };
        assert_eq!(broker.token(&reads).await.expect("a token").token.expose(), "one");
        assert_eq!(broker.token(&sends).await.expect("a token").token.expose(), "two");
        let at = now_micros();
        for _ in 0..super::super::lockout::MAX_TRIES {
            broker.lockout().refused(reads.digest, at);
        }
        let other = Credential { scope: "third".into(), ..reads };
        assert_eq!(broker.token(&other).await.expect_err("locked").code, "PASSWORD_REFUSED");
    }

    #[test]
    fn a_short_lived_token_is_usable_for_half_its_life() {
        let now = Instant::now();
        let granted = |seconds| Granted { token: Token::new("t".into()), life: Duration::from_secs(seconds) };
        assert_eq!(keep(granted(60), now).renew, now + Duration::from_secs(30));
        assert_eq!(keep(granted(3600), now).renew, now + Duration::from_secs(3240));
        assert_eq!(keep(granted(100_000), now).renew, now + Duration::from_secs(90_000));
    }
}
