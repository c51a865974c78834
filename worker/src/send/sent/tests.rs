//! Looks into a scripted Graph. Over IMAP it is the search's own test, and a real server's.

use std::sync::Arc;

use std::time::Duration;

use postroom_proto::v1::{OutgoingAuthentication, SendVerdict, Transport};

use super::*;
use crate::send::peer::{Asked, Http, mail, sending, token};

async fn looked(answer: (u16, &'static str)) -> (Result<Verdict, Broken>, Vec<String>) {
    let server = Http::start(Arc::new(move |asked: &Asked| match asked.line.contains("oauth2") {
        true => token("t"),
        false => Some((answer.0, String::new(), answer.1.to_owned())),
    }))
    .await;
    let definition = OutgoingDefinition {
        transport: Transport::Graph.into(),
        host: "127.0.0.1".into(),
        port: server.port.into(),
        authentication: OutgoingAuthentication::OauthService.into(),
        authority: format!("http://127.0.0.1:{}/t", server.port),
        user: "u1".into(),
        sent_folder: "Sent Items".into(),
        ..OutgoingDefinition::default()
    };
    let mail = ClaimedMail { message_id: "it's+1@x.example".into(), ..mail("m1", &definition, &[], "") };
    let end = look_for(&sending(Duration::ZERO), &mail, &definition).await;
    (end, server.lines())
}

#[tokio::test]
async fn what_was_sent_is_found_by_its_message_id() {
    for (answer, want) in [
        ((200, r#"{"value":[{"id":"1","isDraft":false}]}"#), SendVerdict::Found),
        ((200, r#"{"value":[{"id":"1"}]}"#), SendVerdict::Found),
        ((200, r#"{"value":[]}"#), SendVerdict::NotFound),
        ((200, r#"{"value":[{"id":"1","isDraft":true}]}"#), SendVerdict::NotFound),
    ] {
        let (end, lines) = looked(answer).await;
        assert_eq!(end.expect("an answer").verdict, want, "{answer:?}");
        let filter = "%24filter=internetMessageId%20eq%20%27%3Cit%27%27s%2B1%40x.example%3E%27";
        assert!(lines[1].contains(&filter.replace("%24", "$")), "{}", lines[1]);
    }
}

#[tokio::test]
async fn what_could_not_be_looked_into_is_never_a_no() {
    for answer in [(200, "{}"), (200, "oops"), (404, ""), (403, ""), (429, ""), (504, "")] {
        let (end, _) = looked(answer).await;
        let Err(Broken::Fault(fault, _)) = end else { panic!("{answer:?} {end:?}") };
        assert_ne!(fault.fate, Fate::Never, "{answer:?}");
    }
    let nowhere = OutgoingDefinition { transport: Transport::Smtp.into(), ..OutgoingDefinition::default() };
    let end = look_for(&sending(Duration::ZERO), &mail("m", &nowhere, &[], ""), &nowhere).await;
    assert!(matches!(end, Err(Broken::Fault(fault, _)) if fault.found.code == "SENT_NOT_READABLE"));
}
