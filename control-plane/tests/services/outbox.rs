//! Mail on its way out over the real services, with a worker played by the test.

use std::path::Path;
use std::time::Duration;

use mail_parser::MessageParser;
use postroom_control_plane::config::Config;
use postroom_control_plane::outbox::Terms;
use postroom_proto::lease::LeaseTerms;
use postroom_proto::reason::Reason;
use postroom_proto::v1::compose_request::Part;
use postroom_proto::v1::definition_service_client::DefinitionServiceClient;
use postroom_proto::v1::outbox_service_client::OutboxServiceClient;
use postroom_proto::v1::send_service_client::SendServiceClient;
use postroom_proto::v1::worker_service_client::WorkerServiceClient;
use postroom_proto::v1::{self, ContactKind, OutboxState, SendTask, SendVerdict, open_outcome::Outcome};
use tokio::time::{Instant, timeout};
use tonic::Streaming;
use tonic::transport::Channel;

use crate::bench::{Bench, Session, reason, settings};

mod claiming;

/// Reached only when something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A control plane whose sessions live as long as the test, with an address that may send.
pub(crate) async fn start(data: &Path, outbox: Terms) -> Bench {
    let config = settings(data).await;
    let terms = LeaseTerms { ttl: Duration::from_secs(600), ..config.terms };
    Bench::start_with(Config { terms, outbox, ..config }).await
}

pub(crate) async fn define(bench: &Bench, outgoing: Vec<v1::OutgoingServer>) {
    define_with(bench, outgoing, "north@contoso.example").await;
}

/// The same with another address of the other instance.
async fn define_with(bench: &Bench, outgoing: Vec<v1::OutgoingServer>, north: &str) {
    let address = |email: &str, sender| v1::Address {
        email: email.into(),
        password: Some(v1::SecretInput { value: "planted".into(), clear: false }),
        server: "in".into(),
        sender,
        ..Default::default()
    };
    let queue = |name: &str, instance: &str, addresses| v1::Queue {
        name: name.into(),
        instance: instance.into(),
        addresses,
        ..Default::default()
    };
    let model = v1::Model {
        instances: vec![
            v1::Instance { name: "core1".into(), ..Default::default() },
            v1::Instance { name: "core2".into(), pool: "north".into(), ..Default::default() },
        ],
        incoming_servers: vec![v1::IncomingServer {
            name: "in".into(),
            authentication: v1::Authentication::Password.into(),
            imap_host: "127.0.0.1".into(),
            ..Default::default()
        }],
        outgoing_servers: outgoing,
        queues: vec![
            queue("Billing", "core1", vec![address("billing@contoso.example", true)]),
            queue("North", "core2", vec![address(north, true)]),
        ],
        ..Default::default()
    };
    let request = v1::ApplyModelRequest { model: Some(model), ..Default::default() };
    DefinitionServiceClient::new(bench.channel.clone()).apply_model(bench.as_admin(request)).await.unwrap();
}

/// Signs in as the address itself and keeps a copy of what it sends.
pub(crate) fn server(enabled: bool) -> v1::OutgoingServer {
    v1::OutgoingServer {
        name: "out".into(),
        enabled: Some(enabled),
        server: "127.0.0.1:2525".into(),
        authentication: v1::OutgoingAuthentication::Password.into(),
        user: "billing@contoso.example".into(),
        password: Some(v1::SecretInput { value: "planted".into(), clear: false }),
        sent_copy: v1::SentCopy::Server.into(),
        sent_folder: "Sent".into(),
        ..Default::default()
    }
}

pub(crate) fn outbox(bench: &Bench) -> OutboxServiceClient<Channel> {
    OutboxServiceClient::new(bench.channel.clone())
}

fn sends(bench: &Bench) -> SendServiceClient<Channel> {
    SendServiceClient::new(bench.channel.clone()).max_decoding_message_size(4 * 1024 * 1024)
}

pub(crate) fn draft(to: &str) -> v1::Draft {
    v1::Draft {
        instance: "core1".into(),
        request_id: uuid::Uuid::new_v4().to_string(),
        from: Some(address("Billing", "billing@contoso.example")),
        to: vec![address("Ada", to)],
        subject: "Grüße".into(),
        text: "Hello".into(),
        ..Default::default()
    }
}

fn address(name: &str, address: &str) -> v1::EmailAddress {
    v1::EmailAddress { name: name.into(), address: address.into() }
}

fn parts(draft: &v1::Draft, files: &[(&str, Vec<u8>)]) -> impl futures::Stream<Item = v1::ComposeRequest> + use<> {
    let request = |part| v1::ComposeRequest { part: Some(part) };
    let mut parts = vec![request(Part::Draft(draft.clone()))];
    for (name, bytes) in files {
        let header = v1::DraftAttachment { name: (*name).into(), size_bytes: bytes.len() as u64, ..Default::default() };
        parts.push(request(Part::Attachment(header)));
        parts.extend(bytes.chunks(200_000).map(|chunk| request(Part::Chunk(chunk.to_vec().into()))));
    }
    futures::stream::iter(parts)
}

pub(crate) async fn send(
    bench: &Bench,
    draft: &v1::Draft,
    files: &[(&str, Vec<u8>)],
) -> Result<v1::OutboxMail, Reason> {
    let sent = outbox(bench).send(bench.as_admin(parts(draft, files))).await;
    sent.map(tonic::Response::into_inner).map_err(|status| reason(&status))
}

async fn reply(bench: &Bench, draft: &v1::Draft) -> Result<v1::OutboxMail, Reason> {
    let sent = outbox(bench).reply(bench.as_admin(parts(draft, &[]))).await;
    sent.map(tonic::Response::into_inner).map_err(|status| reason(&status))
}

pub(crate) async fn show(bench: &Bench, id: &str) -> v1::OutboxMail {
    let request = bench.as_admin(v1::GetOutboxMailRequest { mail: id.into() });
    outbox(bench).get_outbox_mail(request).await.unwrap().into_inner()
}

async fn raw(bench: &Bench, id: &str) -> Vec<u8> {
    let request = bench.as_admin(v1::GetOutboxRawRequest { mail: id.into() });
    whole(outbox(bench).get_outbox_raw(request).await.unwrap().into_inner()).await
}

async fn whole(mut chunks: Streaming<v1::RawMessageChunk>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        bytes.extend_from_slice(&chunk.data);
    }
    bytes
}

pub(crate) async fn claim(bench: &Bench, session: &str, wait: u64) -> Result<Vec<v1::ClaimedMail>, Reason> {
    let wait = Some(prost_types::Duration { seconds: wait as i64, nanos: 0 });
    let request = v1::ClaimMailsRequest { session: session.into(), max_count: 64, wait };
    let claimed = timeout(PATIENCE, sends(bench).claim_mails(bench.as_worker(request))).await.unwrap();
    claimed.map(|answer| answer.into_inner().mails).map_err(|status| reason(&status))
}

/// Claims again and again until something comes.
async fn claimed(bench: &Bench, session: &str) -> v1::ClaimedMail {
    for _ in 0..20 {
        if let Some(mail) = claim(bench, session, 10).await.unwrap().pop() {
            return mail;
        }
    }
    panic!("nothing could be claimed");
}

fn token(session: &str, mail: &v1::ClaimedMail) -> Option<v1::Claim> {
    Some(v1::Claim { session: session.into(), mail: mail.mail.clone(), token: mail.token.clone() })
}

pub(crate) async fn mark(bench: &Bench, session: &str, mail: &v1::ClaimedMail) -> Result<Duration, Reason> {
    let request = bench.as_worker(v1::MarkSubmittingRequest { claim: token(session, mail) });
    let marked = sends(bench).mark_submitting(request).await.map_err(|status| reason(&status))?;
    Ok(Duration::try_from(marked.into_inner().time_left.unwrap()).unwrap())
}

pub(crate) async fn settle(
    bench: &Bench,
    session: &str,
    mail: &v1::ClaimedMail,
    verdict: SendVerdict,
) -> Result<OutboxState, Reason> {
    let request = v1::SettleMailRequest {
        claim: token(session, mail),
        verdict: verdict.into(),
        response: "250 2.0.0 queued".into(),
        ..Default::default()
    };
    let settled = sends(bench).settle_mail(bench.as_worker(request)).await;
    settled.map(|answer| answer.into_inner().state()).map_err(|status| reason(&status))
}

/// Files below a folder.
fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Waits until a mail is in this state.
async fn reaches(bench: &Bench, id: &str, state: OutboxState) -> v1::OutboxMail {
    let begun = Instant::now();
    loop {
        let mail = show(bench, id).await;
        if mail.state() == state {
            return mail;
        }
        assert!(begun.elapsed() < PATIENCE, "{mail:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Brings a contact in that a reply can answer; its id.
async fn contact_of(worker: &mut Session<'_>, kind: ContactKind) -> String {
    let offer = worker.offered().await;
    assert!(matches!(worker.open(&offer.mailbox, offer.epoch).await, Outcome::Opened(_)));
    let mut batch = worker.batch(&offer, 0, 1);
    batch.messages[0].kind = kind.into();
    batch.messages[0].content = Some(v1::ContactContent {
        from: vec![address("Ada", "ada@fabrikam.example")],
        subject: "Invoice 7".into(),
        message_id: "question@fabrikam.example".into(),
        references: vec!["first@fabrikam.example".into()],
        ..Default::default()
    });
    worker.report(&batch).await.unwrap().outcomes.remove(0).contact
}

#[tokio::test]
async fn a_reply_is_stored_claimed_and_sent_and_its_instance_hears_of_it() {
    let data = tempfile::tempdir().unwrap();
    let bench = start(data.path(), Terms::default()).await;
    define(&bench, vec![server(true)]).await;
    let mut worker = bench.register("worker").await;
    let contact = contact_of(&mut worker, ContactKind::Normal).await;

    let watching = v1::WatchOutboxRequest { instance: "core1".into(), from_revision: 0 };
    let mut told = outbox(&bench).watch_outbox(bench.as_admin(watching)).await.unwrap().into_inner();
    let mark_of_snapshot = timeout(PATIENCE, told.message()).await.unwrap().unwrap().unwrap();
    assert!(mark_of_snapshot.mail.is_none(), "{mark_of_snapshot:?}");

    let wanted = v1::Draft {
        instance: "core1".into(),
        request_id: uuid::Uuid::new_v4().to_string().to_uppercase(),
        contact: contact.clone(),
        text: "It is paid.\n".into(),
        ..Default::default()
    };
    let stored = reply(&bench, &wanted).await.unwrap();
    assert_eq!((stored.state(), stored.subject.as_str()), (OutboxState::Queued, "Re: Invoice 7"));
    assert_eq!(reply(&bench, &wanted).await.unwrap(), stored, "the answer was lost");
    let small = v1::Draft { request_id: wanted.request_id.to_lowercase(), ..wanted.clone() };
    assert_eq!(reply(&bench, &small).await.unwrap(), stored, "the same id, however it is written");
    let other = v1::Draft { text: "Another text".into(), ..wanted.clone() };
    assert_eq!(reply(&bench, &other).await, Err(Reason::RequestReused));
    let bytes = raw(&bench, &stored.id).await;
    let parsed = MessageParser::new().parse(&bytes).unwrap();
    assert_eq!(parsed.in_reply_to().as_text(), Some("question@fabrikam.example"));
    assert_eq!(parsed.message_id(), Some(stored.message_id.as_str()));
    assert_eq!(stored.message_id, format!("{}@contoso.example", stored.id));
    assert!(
        String::from_utf8_lossy(&bytes).contains("References: <first@fabrikam.example> <question@fabrikam.example>")
    );

    let mail = claim(&bench, &worker.id, 10).await.unwrap().remove(0);
    assert_eq!((mail.mail.as_str(), mail.task(), mail.attempt), (stored.id.as_str(), SendTask::Submit, 1));
    assert_eq!(
        (mail.sender.as_str(), mail.recipients.as_slice()),
        ("billing@contoso.example", &["ada@fabrikam.example".to_owned()][..])
    );
    assert_eq!(mail.raw, bytes);
    let definition = mail.definition.as_ref().unwrap();
    assert_eq!(
        (definition.host.as_str(), definition.port, definition.password.as_str()),
        ("127.0.0.1", 2525, "planted")
    );
    assert_eq!((definition.transport(), definition.security()), (v1::Transport::Smtp, v1::SmtpSecurity::Starttls));
    let sent = definition.sent_mailbox.as_ref().unwrap();
    assert_eq!((sent.email.as_str(), sent.folder.as_str()), ("billing@contoso.example", "Sent"));
    assert!(!format!("{mail:?}").contains("planted"));

    assert!(mark(&bench, &worker.id, &mail).await.unwrap() > Duration::from_secs(600), "a server may take ten minutes");
    assert_eq!(settle(&bench, &worker.id, &mail, SendVerdict::Sent).await, Ok(OutboxState::Sent));
    assert_eq!(settle(&bench, &worker.id, &mail, SendVerdict::Deferred).await, Ok(OutboxState::Sent), "repeated");
    assert_eq!(mark(&bench, &worker.id, &mail).await, Err(Reason::ClaimLost));
    let shown = show(&bench, &stored.id).await;
    assert_eq!((shown.response.as_str(), shown.outgoing_server.as_str()), ("250 2.0.0 queued", "out"));
    let mut states = Vec::new();
    while states.last() != Some(&OutboxState::Sent) {
        let event = timeout(PATIENCE, told.message()).await.unwrap().unwrap().unwrap();
        states.extend(event.mail.map(|mail| mail.state()));
    }
    assert!(states.is_sorted(), "{states:?}");

    let listed = v1::ListOutboxRequest { contact, ..Default::default() };
    let listed = outbox(&bench).list_outbox(bench.as_admin(listed)).await.unwrap().into_inner();
    assert_eq!(listed.mails.len(), 1);
    // Another instance sees nothing of it.
    let foreign = bench.as_core2(v1::GetOutboxMailRequest { mail: stored.id.clone() });
    assert_eq!(reason(&outbox(&bench).get_outbox_mail(foreign).await.unwrap_err()), Reason::NotFound);
    let foreign = bench.as_core2(v1::CancelOutboxMailRequest { mail: stored.id.clone() });
    assert_eq!(reason(&outbox(&bench).cancel_outbox_mail(foreign).await.unwrap_err()), Reason::NotFound);
    let foreign = outbox(&bench).reply(bench.as_core2(parts(&wanted, &[]))).await.unwrap_err();
    assert_eq!(reason(&foreign), Reason::PermissionDenied);
    let foreign = bench.as_core2(v1::GetOutboxRawRequest { mail: stored.id.clone() });
    assert_eq!(reason(&outbox(&bench).get_outbox_raw(foreign).await.unwrap_err()), Reason::NotFound);
    let foreign = bench.as_core2(v1::RetryOutboxMailRequest { mail: stored.id.clone(), may_arrive_twice: true });
    assert_eq!(reason(&outbox(&bench).retry_outbox_mail(foreign).await.unwrap_err()), Reason::NotFound);
    let foreign = bench.as_core2(v1::ConfirmOutboxMailRequest { mail: stored.id.clone() });
    assert_eq!(reason(&outbox(&bench).confirm_outbox_mail(foreign).await.unwrap_err()), Reason::NotFound);
    for (instance, refused) in
        [("", Some(Reason::InvalidField)), ("core1", Some(Reason::PermissionDenied)), ("core2", None)]
    {
        let request = v1::ListOutboxRequest { instance: instance.into(), ..Default::default() };
        match outbox(&bench).list_outbox(bench.as_core2(request)).await {
            Ok(listed) => assert!(refused.is_none() && listed.into_inner().mails.is_empty(), "{instance}"),
            Err(status) => assert_eq!(Some(reason(&status)), refused, "{instance}"),
        }
        let request = v1::WatchOutboxRequest { instance: instance.into(), from_revision: 0 };
        match outbox(&bench).watch_outbox(bench.as_core2(request)).await {
            Ok(told) => {
                let first = timeout(PATIENCE, told.into_inner().message()).await.unwrap().unwrap().unwrap();
                assert!(refused.is_none() && first.mail.is_none(), "{instance}: {first:?}");
            }
            Err(status) => assert_eq!(Some(reason(&status)), refused, "{instance}"),
        }
    }
    // A worker sends what it is given, and sees nothing else.
    let worker = outbox(&bench).list_outbox(bench.as_worker(v1::ListOutboxRequest::default())).await.unwrap_err();
    assert_eq!(reason(&worker), Reason::PermissionDenied);
    let worker = bench.as_worker(v1::GetOutboxRawRequest { mail: stored.id.clone() });
    assert_eq!(reason(&outbox(&bench).get_outbox_raw(worker).await.unwrap_err()), Reason::PermissionDenied);
    let worker = outbox(&bench).send(bench.as_worker(parts(&draft("x@x.example"), &[]))).await.unwrap_err();
    assert_eq!(reason(&worker), Reason::PermissionDenied);
    timeout(PATIENCE, bench.app.stop()).await.unwrap();
}

#[tokio::test]
async fn a_large_mail_is_fetched_by_itself_and_arrives_byte_for_byte() {
    let data = tempfile::tempdir().unwrap();
    let bench = start(data.path(), Terms { max_attachment_bytes: 3_000_000, ..Terms::default() }).await;
    define(&bench, vec![server(true)]).await;
    let worker = bench.register("worker").await;
    let picture: Vec<u8> = (0..2_500_000u32).map(|n| (n * 31 % 251) as u8).collect();
    let files = [("Grüße.pdf", picture.clone()), ("empty.txt", Vec::new())];
    let wanted = draft("ada@fabrikam.example");
    let stored = send(&bench, &wanted, &files).await.unwrap();
    assert_eq!(send(&bench, &wanted, &files).await.unwrap(), stored);
    assert_eq!(send(&bench, &wanted, &files[..1]).await, Err(Reason::RequestReused));

    let mail = claimed(&bench, &worker.id).await;
    assert!(mail.raw.is_empty() && mail.size_bytes == stored.size_bytes);
    let request = bench.as_worker(v1::GetClaimedRawRequest { claim: token(&worker.id, &mail) });
    let bytes = whole(sends(&bench).get_claimed_raw(request).await.unwrap().into_inner()).await;
    assert_eq!(bytes.len() as u64, mail.size_bytes);
    assert_eq!(bytes, raw(&bench, &stored.id).await);
    let parsed = MessageParser::new().parse(&bytes).unwrap();
    assert_eq!(parsed.attachment(0).unwrap().contents(), picture);
    let forged = v1::ClaimedMail { token: "x".into(), ..mail };
    let request = bench.as_worker(v1::GetClaimedRawRequest { claim: token(&worker.id, &forged) });
    assert_eq!(reason(&sends(&bench).get_claimed_raw(request).await.unwrap_err()), Reason::ClaimLost);

    let too_large = [("x", vec![0; 3_000_001])];
    assert_eq!(send(&bench, &draft("ada@fabrikam.example"), &too_large).await, Err(Reason::InvalidField));
    // An empty request is no end: what comes behind it would be lost.
    let mut with_gap: Vec<_> = futures::StreamExt::collect(parts(&draft("ada@fabrikam.example"), &files)).await;
    with_gap.insert(1, v1::ComposeRequest { part: None });
    let refused = outbox(&bench).send(bench.as_admin(futures::stream::iter(with_gap))).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::InvalidField);
    bench.app.stop().await;
}

#[tokio::test]
async fn an_address_may_have_capitals_of_any_script() {
    let data = tempfile::tempdir().unwrap();
    let bench = start(data.path(), Terms::default()).await;
    define_with(&bench, vec![server(true)], "North@MÜNSTER.example").await;
    let register = v1::RegisterRequest { worker_name: "w".into(), build: "test".into(), ..Default::default() };
    let worker = bench.register_as(v1::RegisterRequest { pool: "north".into(), ..register }).await;
    let from = Some(address("", "north@münster.example"));
    let wanted = v1::Draft { instance: "core2".into(), from, ..draft("ada@fabrikam.example") };
    let stored = send(&bench, &wanted, &[]).await.unwrap();
    assert_eq!(stored.problem, None);
    assert_eq!(claimed(&bench, &worker.id).await.mail, stored.id);
    bench.app.stop().await;
}

#[tokio::test]
async fn machines_do_not_answer_each_other_without_end() {
    let data = tempfile::tempdir().unwrap();
    let bench = start(data.path(), Terms { breaker: 3, breaker_automatic: 2, ..Terms::default() }).await;
    define(&bench, vec![server(true)]).await;
    let mut worker = bench.register("worker").await;
    let contact = contact_of(&mut worker, ContactKind::AutoReply).await;
    let answer = |automatic| v1::Draft {
        instance: "core1".into(),
        request_id: uuid::Uuid::new_v4().to_string(),
        contact: contact.clone(),
        text: "Thank you".into(),
        automatic,
        ..Default::default()
    };
    assert_eq!(reply(&bench, &answer(true)).await, Err(Reason::MailLoop));
    assert!(reply(&bench, &answer(false)).await.is_ok(), "a person may");
    let notice = || v1::Draft { automatic: true, ..draft("eve@fabrikam.example") };
    for _ in 0..2 {
        let stored = send(&bench, &notice(), &[]).await.unwrap();
        assert!(
            stored.automatic
                && String::from_utf8_lossy(&raw(&bench, &stored.id).await)
                    .contains("Auto-Submitted: auto-generated\r\n")
        );
    }
    assert_eq!(send(&bench, &notice(), &[]).await, Err(Reason::MailLoop));
    assert!(send(&bench, &draft("eve@fabrikam.example"), &[]).await.is_ok());
    let large = [("large.bin", vec![7; 2_000_000])];
    assert_eq!(send(&bench, &draft("EVE@fabrikam.example"), &large).await, Err(Reason::MailLoop));
    bench.app.stop().await;
    let kept = walk(&data.path().join("blobs"));
    assert!(kept.is_empty(), "what is refused leaves nothing: {kept:?}");
}
