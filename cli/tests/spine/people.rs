//! People work in the mailbox while it is read: they delete, move and mark messages. Every message that was seen stands in
//! the ledger with what became of it, contacts come into being once, and reconciling finds nothing missing. And what did
//! not become a contact is found, replayed and discarded.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use postroom_cli::client::Client;
use postroom_cli::context::Context;
use postroom_control_plane::access::role::Role;
use postroom_control_plane::access::token::{Tokens, mint};
use postroom_control_plane::{app, config};
use postroom_proto::lease::LeaseTerms;
use postroom_proto::v1::reconcile_mailbox_response::Told;
use postroom_proto::v1::{self, Disposition, FindingKind, MailboxState};
use postroom_testbed::mail::Mail;
use postroom_testbed::relay::{Hold, Loss, Relay};
use postroom_worker as worker;

use crate::harness::{SERVICE, Stage, USER, contacts, eventually, mailbox};

const ELSEWHERE: &str = "Elsewhere";

/// An installation whose worker speaks to it through a relay, and tries again quickly what it could not read.
struct House {
    control_plane: app::App,
    relay: Relay,
    reader: worker::app::App,
    client: Client,
    data: std::path::PathBuf,
}

impl House {
    /// Over the stage's model with `changes` made to its text.
    async fn build(stage: &Stage, changes: &[(&str, &str)]) -> Self {
        Self::build_holding(stage, changes).await.0
    }

    /// The same, and the first reports are held back until the hold is dropped.
    async fn build_holding(stage: &Stage, changes: &[(&str, &str)]) -> (Self, Hold) {
        let (admin, own) = (mint().unwrap(), mint().unwrap());
        let mut tokens = Tokens::default();
        tokens.grant(&admin, Role::Admin);
        tokens.grant(&own, Role::Worker(None));
        let control_plane = app::App::start(config::Config {
            terms: LeaseTerms { heartbeat: Duration::from_millis(200), ..LeaseTerms::default() },
            deadline_interval: Duration::from_millis(200),
            store: Stage::store_of(&stage.data()).await,
            ..config::Config::new(stage.data(), "127.0.0.1:0".parse().unwrap(), tokens)
        })
        .await
        .unwrap();
        let relay = Relay::start(control_plane.address()).await.unwrap();
        let direct = Context { endpoint: format!("http://{}", control_plane.address()), ca_file: None, token: admin };
        direct.write(&stage.data()).unwrap();
        let client = Client::new(&direct, false).unwrap();
        let mut model = std::fs::read_to_string(stage.model_file()).unwrap();
        for (from, to) in changes {
            assert!(model.contains(from), "{from}");
            model = model.replacen(from, to, 1);
        }
        let model = postroom_cli::model_file::read(&model, stage.folder.path(), &|_| None).unwrap();
        client.apply_model(model).await.unwrap();
        let hold = relay.hold("/Report");
        let mut settings = worker::config::Config::new(&format!("http://{}", relay.addr()), own, "local");
        settings.reading.pending_retry = Duration::from_millis(300);
        settings.reading.start.spread = Duration::ZERO;
        settings.reading.batch_messages = 20;
        let reader = worker::app::App::start(settings).unwrap();
        (Self { control_plane, relay, reader, client, data: stage.data() }, hold)
    }

    async fn idle(&self, email: &str) {
        eventually(&format!("{email} is read"), || async {
            mailbox(&self.client, email).await.state() == MailboxState::Idle
        })
        .await;
    }

    async fn messages(&self, dispositions: &[Disposition]) -> Vec<v1::Message> {
        let request = v1::ListMessagesRequest {
            mailbox: SERVICE.into(),
            dispositions: dispositions.iter().map(|disposition| (*disposition).into()).collect(),
            ..Default::default()
        };
        self.client.list_messages(request, u32::MAX).await.unwrap().messages
    }

    async fn reconcile(&self, all: bool) -> (Vec<v1::Finding>, v1::ReconcileSummary) {
        let mut told = self.client.reconcile_mailbox(SERVICE.into(), all).await.unwrap();
        let (mut findings, mut summary) = (Vec::new(), None);
        while let Some(item) = told.next().await.unwrap() {
            match item.told.unwrap() {
                Told::Progress(_) => assert!(summary.is_none(), "the summary comes last"),
                Told::Finding(finding) => findings.push(finding),
                Told::Summary(last) => summary = Some(last),
            }
        }
        (findings, summary.unwrap())
    }

    /// Runs the command as a person would.
    async fn postroom(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postroom"));
        command.arg("--data").arg(&self.data).args(args);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn tear_down(self) {
        self.reader.stop().await;
        self.control_plane.stop().await;
    }
}

/// Messages `tag-0` … in one transaction, so that they are there together.
async fn fill(stage: &Stage, tag: &str, count: usize) {
    let mails: Vec<Vec<u8>> =
        (0..count).map(|number| Mail::to(SERVICE).subject(&format!("{tag}-{number}")).build()).collect();
    stage.testbed.fill(SERVICE, &mails).await.unwrap();
}

/// UIDs of messages in the mailbox by subject.
async fn uids(stage: &Stage) -> BTreeMap<String, u32> {
    let stored = stage.testbed.dovecot.messages(SERVICE, "INBOX").await.unwrap();
    stored.into_iter().map(|message| (message.subject, message.uid)).collect()
}

/// What a person does with these messages: by number modulo 4 it is deleted, moved away, marked as read, or left alone.
async fn meddle(stage: &Stage, tag: &str, numbers: impl Iterator<Item = usize>) {
    let known = uids(stage).await;
    let (mut delete, mut shift, mut mark) = (Vec::new(), Vec::new(), Vec::new());
    for number in numbers {
        let Some(uid) = known.get(&format!("{tag}-{number}")) else { continue };
        match number % 4 {
            0 => delete.push(uid.to_string()),
            1 => shift.push(uid.to_string()),
            2 => mark.push(uid.to_string()),
            _ => {}
        }
    }
    let dovecot = &stage.testbed.dovecot;
    let (delete, shift, mark) = (delete.join(","), shift.join(","), mark.join(","));
    dovecot.doveadm(&["expunge", "-u", SERVICE, "mailbox", "INBOX", "uid", &delete]).await.unwrap();
    dovecot.doveadm(&["move", "-u", SERVICE, ELSEWHERE, "mailbox", "INBOX", "uid", &shift]).await.unwrap();
    dovecot.doveadm(&["flags", "add", "-u", SERVICE, "\\Seen", "mailbox", "INBOX", "uid", &mark]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_do_between_commit_and_settle_loses_nothing() {
    let stage = Stage::set().await;
    stage.testbed.dovecot.create_folder(SERVICE, ELSEWHERE).await.unwrap();
    let house = House::build(&stage, &[]).await;
    house.idle(SERVICE).await;
    // Every report is committed, and no answer comes back: the worker knows of no commit, and settles nothing.
    house.relay.lose("/Report", 1, Loss::Unavailable);
    fill(&stage, "a", 20).await;
    eventually("the report is committed", || async { contacts(&house.client).await.len() == 20 }).await;
    assert_eq!(stage.testbed.dovecot.count_unseen(SERVICE, "INBOX").await.unwrap(), 20, "nothing is settled yet");
    meddle(&stage, "a", 0..20).await;
    let (findings, summary) = house.reconcile(false).await;
    assert!(summary.clean, "{summary:?}");
    assert!(findings.iter().all(|finding| finding.kind() == FindingKind::GoneUnsettled), "{findings:?}");
    assert_eq!((summary.both_count, summary.gone_unsettled_count, summary.pending_count), (10, 10, 0));

    house.relay.lose("/Report", 0, Loss::Unavailable);
    eventually("what is left is settled", || async {
        let unsettled = house.messages(&[]).await.iter().filter(|message| !message.settled).count();
        unsettled == 0 && stage.testbed.dovecot.count_unseen(SERVICE, "INBOX").await.unwrap() == 0
    })
    .await;
    let found = contacts(&house.client).await;
    assert!(found.len() == 20 && found.values().all(|times| *times == 1), "{found:?}");
    let (findings, summary) = house.reconcile(false).await;
    assert!(summary.clean && findings.iter().all(|finding| finding.kind() == FindingKind::Gone), "{findings:?}");
    assert_eq!((summary.contact_count, summary.both_count, summary.gone_count), (20, 10, 10));
    let told = house.postroom(&["mailbox", "reconcile", SERVICE]).await;
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    house.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_do_during_catch_up_loses_nothing() {
    const COUNT: usize = 200;
    let stage = Stage::set().await;
    stage.testbed.dovecot.create_folder(SERVICE, ELSEWHERE).await.unwrap();
    // Read before the mailbox is: the start policy leaves them.
    fill(&stage, "read", 5).await;
    let read = "mailbox INBOX all";
    let words: Vec<&str> = ["flags", "add", "-u", SERVICE, "\\Seen"].into_iter().chain(read.split(' ')).collect();
    stage.testbed.dovecot.doveadm(&words).await.unwrap();
    fill(&stage, "a", COUNT).await;
    let (house, mut hold) = House::build_holding(&stage, &[]).await;
    // The first reports say where reading begins, one for each mailbox.
    hold.arrived(2).await.unwrap();
    // At three places of the catch-up all stands still, and somebody works in the mailbox: on what is committed, on what is
    // fetched, and on what is listed and not yet fetched.
    for round in 0..6 {
        // Ordering: the next hold stands before this one is lifted, so that exactly one report goes through.
        let next = house.relay.hold("/Report");
        hold.release();
        hold = next;
        hold.arrived(1).await.unwrap();
        if round % 2 == 1 {
            meddle(&stage, "a", round * 20..COUNT.min(round * 20 + 80)).await;
        }
    }
    drop(hold);
    house.idle(SERVICE).await;
    eventually("everything is dealt with", || async {
        let messages = house.messages(&[]).await;
        messages.len() == COUNT && messages.iter().all(|message| message.settled)
    })
    .await;
    let found = contacts(&house.client).await;
    assert!(found.values().all(|times| *times == 1), "{found:?}");
    let vanished = house.messages(&[Disposition::Vanished]).await;
    assert_eq!(found.len() + vanished.len(), COUNT, "each is a contact, or was gone before it could be read");
    assert!(!vanished.is_empty(), "some were gone between the look and the fetch");
    assert!(vanished.iter().all(|message| !message.reason.is_empty() && message.contact.is_empty()));
    // What stayed in the folder is a contact.
    for subject in uids(&stage).await.into_keys().filter(|subject| subject.starts_with("a-")) {
        assert!(found.contains_key(&subject), "{subject} stayed, and is no contact");
    }
    let (findings, summary) = house.reconcile(true).await;
    assert!(summary.clean, "{summary:?} {findings:?}");
    assert_eq!((summary.missing_count, summary.pending_count, summary.before_start_count), (0, 0, 5));
    assert_eq!(summary.ledger_count, COUNT as u64);
    assert_eq!(summary.both_count + summary.gone_count, COUNT as u64, "{summary:?}");
    assert_eq!(summary.vanished_count, vanished.len() as u64);
    house.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_contact_is_named_replayed_and_discarded() {
    let stage = Stage::set().await;
    let house =
        House::build(&stage, &[("    instance: core1\n", "    instance: core1\n    maxMessageBytes: 20000\n")]).await;
    house.idle(SERVICE).await;
    let placeholder = Mail::to(SERVICE)
        .from("Microsoft Exchange Server <postmaster@contoso.example>")
        .subject("placeholder")
        .body("Retrieval using the IMAP4 protocol failed for the following message: 7\n");
    let mails = [
        Mail::to(SERVICE).subject("good-0").build(),
        Mail::to(SERVICE).subject("large-0").size(200_000).build(),
        placeholder.build(),
        Mail::to(SERVICE).subject("large-1").size(2_500_000).build(),
        Mail::to(SERVICE).subject("large-2").size(150_000).build(),
        Mail::to(SERVICE).subject("good-1").build(),
    ];
    stage.testbed.fill(SERVICE, &mails).await.unwrap();
    eventually("everything is dealt with", || async { house.messages(&[]).await.len() == 6 }).await;
    let found = contacts(&house.client).await;
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), ["good-0", "good-1"]);
    let seen = mailbox(&house.client, SERVICE).await;
    assert_eq!((seen.quarantined_count, seen.too_large_count, seen.message_count), (1, 3, 6));
    let [quarantined] = house.messages(&[Disposition::Quarantined]).await.try_into().unwrap();
    assert!(quarantined.attempt_count == 3 && quarantined.reason.contains("placeholder"), "{quarantined:?}");
    // Last recorded first.
    let [large_2, large_1, large_0] = house.messages(&[Disposition::TooLarge]).await.try_into().unwrap();
    assert!(large_1.size_bytes >= 2_500_000 && large_1.limit_bytes == 20_000, "{large_1:?}");
    let listed = house.postroom(&["message", "list", "--disposition", "too-large"]).await;
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 4, "a header and three");
    let (_, summary) = house.reconcile(false).await;
    assert!(summary.clean && summary.both_count == 6, "{summary:?}");

    // Replayed: one contact each, however often, one of them with a body that is uploaded. The after-intake step follows.
    for large in [&large_0, &large_1] {
        let replayed = house.postroom(&["message", "replay", &large.id]).await;
        assert!(replayed.status.success(), "{replayed:?}");
        let again = house.client.replay_message(large.id.clone()).await.unwrap();
        assert!(again.already_contact && again.message.unwrap().contact.len() == 32);
    }
    let found = contacts(&house.client).await;
    assert_eq!((found.get("large-0"), found.get("large-1"), found.len()), (Some(&1), Some(&1), 4));
    eventually("the replayed ones are settled", || async {
        stage.testbed.dovecot.count_unseen(SERVICE, "INBOX").await.unwrap() == 2
            && house.messages(&[]).await.iter().all(|message| message.settled)
    })
    .await;
    let raw = house.postroom(&["message", "raw", &large_1.id]).await;
    assert!(raw.stdout == mails[3], "{} bytes", raw.stdout.len());

    // Discarded, and replayed all the same.
    let discarded = house.postroom(&["message", "discard", &large_2.id, "--reason", "spam"]).await;
    assert!(discarded.status.success(), "{discarded:?}");
    assert_eq!(mailbox(&house.client, SERVICE).await.too_large_count, 0, "nothing is open any more");
    assert!(!house.client.replay_message(large_2.id.clone()).await.unwrap().already_contact);
    let message = house.client.get_message(large_2.id.clone()).await.unwrap();
    let decided: Vec<_> = message.decisions.iter().map(|decision| (decision.kind(), decision.by.as_str())).collect();
    let (discarded, replayed) = (v1::MessageDecisionKind::Discarded, v1::MessageDecisionKind::Replayed);
    assert_eq!(decided, [(discarded, "admin"), (replayed, "admin")]);
    let refused = house.postroom(&["message", "discard", &large_2.id]).await;
    assert_eq!(refused.status.code(), Some(6), "a contact is not discarded: {refused:?}");

    // A placeholder stays one, and what is gone is gone: each refusal names the next step.
    let refused = house.postroom(&["message", "replay", &quarantined.id]).await;
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(6) && said.contains("placeholder") && said.contains("discard"), "{said}");
    stage
        .testbed
        .dovecot
        .doveadm(&["expunge", "-u", SERVICE, "mailbox", "INBOX", "subject", "placeholder"])
        .await
        .unwrap();
    let refused = house.postroom(&["message", "replay", &quarantined.id]).await;
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(6) && said.contains("not in its folder any more"), "{said}");
    assert_eq!(house.client.get_message(quarantined.id.clone()).await.unwrap().disposition(), Disposition::Quarantined);
    house.client.discard_message(quarantined.id.clone(), String::new()).await.unwrap();
    let (findings, summary) = house.reconcile(false).await;
    assert!(summary.clean && summary.filtered_count == 1, "{summary:?}");
    let [gone] = findings.try_into().unwrap();
    assert_eq!(
        (gone.kind(), gone.disposition(), gone.message),
        (FindingKind::Gone, Disposition::Filtered, quarantined.id)
    );
    let unknown = house.postroom(&["message", "replay", "4711"]).await;
    assert_eq!(unknown.status.code(), Some(3), "{unknown:?}");
    assert_eq!(mailbox(&house.client, USER).await.message_count, 0, "the other mailbox has nothing to do with it");
    house.tear_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_moved_after_intake_is_accounted_for() {
    let stage = Stage::set().await;
    // Nobody has created it. In the mailbox it is called as people write it, not as IMAP does.
    const DONE: &str = "Erledigt/Übrig & Rest";
    let after = format!("    instance: core1\n    afterIntake: move:{DONE}\n");
    let house = House::build(&stage, &[("    instance: core1\n", &after)]).await;
    house.idle(SERVICE).await;
    fill(&stage, "a", 6).await;
    eventually("everything is moved", || async { stage.testbed.dovecot.count(SERVICE, DONE).await.unwrap_or(0) == 6 })
        .await;
    eventually("it is told", || async { house.messages(&[]).await.iter().all(|message| message.settled) }).await;
    let (findings, summary) = house.reconcile(false).await;
    assert!(findings.is_empty() && summary.clean && summary.moved_count == 6, "{summary:?} {findings:?}");
    assert_eq!(house.reconcile(true).await.0.len(), 6, "told one by one when asked to");
    let refused = house.client.reconcile_mailbox("nobody@contoso.example".into(), false).await.unwrap_err();
    assert!(refused.to_string().contains("no queue reads"), "{refused}");
    house.tear_down().await;
}
