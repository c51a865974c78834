//! Checks of servers that are played here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use postroom_proto::v1::{self, report_errand_request::Found};

use super::*;
use crate::errand::{Desk, Error};
use crate::send::peer::{Answers, Asked, Certificate, Http, Script, Smtp, obliging, secure, token as granted};

/// Keeps the steps that it is told.
#[derive(Default)]
struct Notes(Mutex<Vec<v1::CheckStep>>);

#[async_trait]
impl Desk for Notes {
    async fn take(&self, _: &str) -> Result<Vec<v1::Errand>, Error> {
        std::future::pending().await
    }

    async fn report(&self, request: v1::ReportErrandRequest) -> Result<(), Error> {
        if let Some(Found::Step(step)) = request.found {
            self.0.lock().unwrap().push(step);
        }
        Ok(())
    }
}

async fn checked(definition: &OutgoingDefinition, sender: &str) -> Vec<v1::CheckStep> {
    let notes = Arc::new(Notes::default());
    let mut findings = Findings { desk: notes.clone(), session: "s".into(), errand: "1".into(), sequence: 0 };
    Box::pin(run(&secure(Duration::ZERO), definition, sender, &mut findings)).await.expect("told");
    notes.0.lock().unwrap().clone()
}

fn outcomes(steps: &[v1::CheckStep]) -> Vec<(String, CheckOutcome)> {
    steps.iter().map(|step| (step.name.clone(), step.outcome())).collect()
}

fn named(all: &[(&str, CheckOutcome)]) -> Vec<(String, CheckOutcome)> {
    all.iter().map(|(name, outcome)| ((*name).to_owned(), *outcome)).collect()
}

fn code(steps: &[v1::CheckStep], name: &str) -> String {
    let step = steps.iter().find(|step| step.name == name).expect("the step");
    step.problem.as_ref().map(|problem| problem.code.clone()).unwrap_or_default()
}

use CheckOutcome::{Failed, Ok as Well, Skipped, Warning};

/// A token with these claims, unsigned.
fn jwt(claims: &serde_json::Value) -> String {
    format!("e30.{}.x", data_encoding::BASE64URL_NOPAD.encode(claims.to_string().as_bytes()))
}

fn exchange_token(roles: &[&str]) -> String {
    jwt(&serde_json::json!({"aud": "https://outlook.office365.com", "roles": roles}))
}

/// Tokens and whatever else Graph is asked.
async fn https(certificate: &Certificate, text: String, graph: Option<(u16, &'static str)>) -> Http {
    let answers: Answers = Arc::new(move |asked: &Asked| match (asked.line.contains("oauth2"), graph) {
        (true, _) => granted(&text),
        (false, Some((status, code))) => {
            Some((status, String::new(), format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#)))
        }
        (false, None) => None,
    });
    Http::start_secure(certificate, answers).await
}

fn definition(transport: Transport, port: u16, tokens: u16, certificate: &Certificate) -> OutgoingDefinition {
    OutgoingDefinition {
        uid: "u".into(),
        transport: transport.into(),
        host: "127.0.0.1".into(),
        port: port.into(),
        security: SmtpSecurity::Starttls.into(),
        authentication: OutgoingAuthentication::OauthService.into(),
        authority: format!("https://127.0.0.1:{tokens}/t"),
        client_id: "app".into(),
        client_secret: "planted-secret".into(),
        user: "support@contoso.example".into(),
        ca_file: certificate.file(),
        ..OutgoingDefinition::default()
    }
}

const SENDER: &str = "support@contoso.example";

async fn smtp(script: Script, roles: &[&str], sender: &str) -> (Vec<v1::CheckStep>, Smtp) {
    let certificate = Certificate::new();
    let tokens = https(&certificate, exchange_token(roles), None).await;
    let server = Smtp::start(Some(&certificate), false, script).await;
    let definition = definition(Transport::Smtp, server.port, tokens.port, &certificate);
    (checked(&definition, sender).await, server)
}

fn but(at: &'static str, answer: &'static str) -> Script {
    Arc::new(move |line| if line.starts_with(at) { Some(answer.to_owned()) } else { obliging(line) })
}

#[tokio::test]
async fn everything_that_sending_needs_is_tried_and_nothing_is_sent() {
    let (steps, server) = smtp(Arc::new(obliging), &["SMTP.SendAsApp"], SENDER).await;
    let well = ["dns", "tcp", "tls", "token", "claims", "sign-in", "send-right"].map(|name| (name, Well));
    assert_eq!(outcomes(&steps), named(&well), "{steps:?}");
    assert!(steps[2].detail.contains("TLS"), "{}", steps[2].detail);
    let heard = server.heard();
    assert!(heard.iter().any(|line| line.starts_with("MAIL FROM:<support@contoso.example>")), "{heard:?}");
    assert!(heard.ends_with(&["RSET".to_owned(), "QUIT".to_owned()]) && !heard.contains(&"DATA".to_owned()));
    let (steps, _) = smtp(Arc::new(obliging), &["SMTP.SendAsApp"], "").await;
    assert_eq!(steps.last().expect("a step").outcome(), Skipped, "no sender was named");
}

#[tokio::test]
async fn a_right_that_is_missing_is_found_where_it_shows() {
    let (steps, _) = smtp(but("dXNlc", "535 5.7.3 Authentication unsuccessful\r\n"), &[], SENDER).await;
    let [.., claims, sign_in, right] = &outcomes(&steps)[..] else { panic!("{steps:?}") };
    assert_eq!((claims.1, sign_in.1, right.1), (Warning, Failed, Skipped));
    assert_eq!(code(&steps, "sign-in"), "SEND_TOKEN_WITHOUT_RIGHT");
    let disabled = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.\r\n";
    let (steps, _) = smtp(but("dXNlc", disabled), &["SMTP.SendAsApp"], SENDER).await;
    assert_eq!(code(&steps, "sign-in"), "SMTP_AUTH_DISABLED");
    let denied = "550 5.7.60 SMTP; Client does not have permissions to send as this sender\r\n";
    let (steps, _) = smtp(but("MAIL", denied), &["SMTP.SendAsApp"], SENDER).await;
    assert_eq!(code(&steps, "send-right"), "SEND_AS_DENIED");
}

#[tokio::test]
async fn what_cannot_be_reached_leaves_the_token_to_be_tried() {
    let certificate = Certificate::new();
    let tokens = https(&certificate, exchange_token(&["SMTP.SendAsApp"]), None).await;
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let steps = checked(&definition(Transport::Smtp, deaf, tokens.port, &certificate), SENDER).await;
    assert_eq!(
        outcomes(&steps),
        named(&[
            ("dns", Well),
            ("tcp", Failed),
            ("tls", Skipped),
            ("token", Well),
            ("claims", Well),
            ("sign-in", Skipped),
            ("send-right", Skipped)
        ])
    );
}

#[tokio::test]
async fn graph_says_by_a_mail_to_nobody_whether_the_right_is_there() {
    let graph = jwt(&serde_json::json!({"aud": "https://graph.microsoft.com", "roles": ["Mail.Send"]}));
    for (answer, token, right, problem) in [
        ((400, "ErrorInvalidRecipients"), graph.clone(), Well, ""),
        ((403, "ErrorAccessDenied"), graph.clone(), Failed, "GRAPH_ACCESS_DENIED"),
        ((404, "ErrorInvalidUser"), graph, Failed, "GRAPH_USER_UNKNOWN"),
        ((403, "ErrorAccessDenied"), exchange_token(&[]), Failed, "SEND_TOKEN_FOR_OTHER_API"),
    ] {
        let certificate = Certificate::new();
        let server = https(&certificate, token, Some(answer)).await;
        let steps = checked(&definition(Transport::Graph, server.port, server.port, &certificate), "").await;
        let last = steps.last().expect("a step");
        assert_eq!((last.name.as_str(), last.outcome()), ("send-right", right), "{answer:?} {steps:?}");
        assert_eq!(code(&steps, "send-right"), problem, "{answer:?}");
        assert!(server.lines().iter().all(|line| line.contains("oauth2") || line.ends_with("/sendMail")));
    }
}
