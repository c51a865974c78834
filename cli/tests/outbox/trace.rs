//! What is told of a contact's way, to a collector that speaks OTLP.

use postroom_cli::context::Context;
use postroom_proto::v1::contact_service_client::ContactServiceClient;
use postroom_proto::v1::{self, OutboxState};
use postroom_testbed::Collector;
use postroom_testbed::collector::Told;
use postroom_testbed::mail::Mail;
use secrecy::ExposeSecret as _;
use tonic::transport::Endpoint;

use crate::harness::eventually;
use crate::office::{By, Office, Outbox, draft, next_contact};

const SALES: &str = "sales@contoso.example";
/// What no span may say.
const PLANTED: [&str; 4] = ["planted-subject", "planted-text", "anna@", "planted-answer"];

async fn traced(collector: &Collector, contact: &str, names: &[&str]) -> Vec<Told> {
    let named = |spans: &[Told], name: &str| spans.iter().any(|span| span.name == name);
    eventually("the trace is whole", || async {
        let spans = collector.trace(contact);
        names.iter().all(|name| named(&spans, name))
    })
    .await;
    collector.trace(contact)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_is_followed_from_its_fetch_to_the_answer() {
    let (office, collector) = (Office::open(&[(SALES, By::Smtp)]).await, Collector::start().await.unwrap());
    let args = ["--trace-endpoint", &collector.endpoint(), "--trace-share", "1"];
    let up = office.stage.up_with(&args).await;
    let (client, outbox) = (up.client(), Outbox::of_up(&up));
    let question = Mail::to(SALES).from("anna@customer.example").subject("planted-subject").body("planted-text");
    office.bed().deliver(&question).await.unwrap();
    let contact = next_contact(&client).await;
    assert!(contact.traceparent.starts_with(&format!("00-{}-", contact.id)), "{}", contact.traceparent);
    let answer = v1::Draft {
        contact: contact.id.clone(),
        from: None,
        subject: String::new(),
        text: "planted-answer".into(),
        ..draft(SALES, &[], "")
    };
    let stored = outbox.reply(answer, &[]).await.unwrap();
    outbox.becomes(&stored.id, OutboxState::Sent).await;

    let way = ["fetch", "report", "take", "accept", "reply", "hand-over"];
    let spans = traced(&collector, &contact.id, &way).await;
    let one = |name: &str| {
        let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name}: {spans:#?}");
        found[0].clone()
    };
    let root = one("fetch");
    assert_eq!((root.parent.as_str(), root.attributes["contact"].as_str()), ("", contact.id.as_str()));
    assert_eq!(root.attributes["mailbox"], contact.mailbox);
    for name in &way[1..] {
        let span = one(name);
        assert_eq!((span.parent.as_str(), span.failed), (root.id.as_str(), false), "{name}");
        assert!(span.begun >= root.begun && span.ended >= span.begun, "{name}: {spans:#?}");
    }
    assert_eq!(one("hand-over").attributes["verdict"], "sent");
    assert_eq!(one("hand-over").attributes["mail"], stored.id);

    // The worker's call has a trace of its own, over gRPC, to which the contact's part is linked.
    let report = one("report");
    let [call] = report.links.as_slice() else { panic!("{report:#?}") };
    let call = collector.trace(call);
    let [client, server] = call.as_slice() else { panic!("{call:#?}") };
    assert_eq!((server.parent.as_str(), client.parent.as_str()), (client.id.as_str(), ""));
    assert!(
        client.name.ends_with("ReportService/Report") && server.name.ends_with("ReportService/Report"),
        "{call:#?}"
    );
    for planted in PLANTED {
        assert!(!format!("{:?}", collector.spans()).contains(planted), "{planted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_is_traced_finds_its_call_and_nobody_else_is() {
    let (office, collector) = (Office::open(&[(SALES, By::Smtp)]).await, Collector::start().await.unwrap());
    let args = ["--trace-endpoint", &collector.endpoint(), "--trace-share", "0"];
    let up = office.stage.up_with(&args).await;
    office.bed().deliver(&Mail::to(SALES).subject("untraced")).await.unwrap();
    let contact = next_contact(&up.client()).await;
    assert_eq!(contact.traceparent, "", "the share is none");

    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let context = Context::read(up.data()).unwrap();
    let channel = Endpoint::from_shared(context.endpoint).unwrap().connect_lazy();
    let mut contacts = ContactServiceClient::new(channel);
    for flags in ["00", "01"] {
        let mut request = tonic::Request::new(v1::GetContactRequest { contact: contact.id.clone() });
        let header = format!("00-{trace}-{span}-{flags}");
        request.metadata_mut().insert("traceparent", header.parse().unwrap());
        let bearer = format!("Bearer {}", context.token.expose_secret());
        request.metadata_mut().insert("authorization", bearer.parse().unwrap());
        contacts.get_contact(request).await.unwrap();
    }
    let spans = traced(&collector, trace, &["ContactService/GetContact"]).await;
    let [call] = spans.as_slice() else { panic!("only what is to be told is: {spans:#?}") };
    assert_eq!((call.parent.as_str(), call.attributes["rpc.grpc.status_code"].as_str()), (span, "0"));
    assert_eq!(collector.spans().len(), 1, "{:#?}", collector.spans());
}
