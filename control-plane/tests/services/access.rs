//! Who may call, who gets secrets, and whose the data folder is.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use postroom_control_plane::access::token::Tokens;
use postroom_control_plane::access::vault::Vault;
use postroom_control_plane::app::App;
use postroom_control_plane::config::Config;
use postroom_proto::reason::Reason;
use postroom_proto::v1::definition_service_client::DefinitionServiceClient;
use postroom_proto::v1::lease_service_client::LeaseServiceClient;
use postroom_proto::v1::operator_service_client::OperatorServiceClient;
use postroom_proto::v1::{self, open_outcome::Outcome};

use crate::bench::{Bench, bearing, reason, store_of};
use crate::secured::{Pair, Secured};

#[tokio::test]
async fn secrets_go_to_the_holder_and_rest_in_no_file() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut owner = bench.register("owner").await;
    let offer = owner.offered().await;
    let Outcome::Opened(opened) = owner.open(&offer.mailbox, offer.epoch).await else { panic!("not opened") };
    assert_eq!(opened.definition.unwrap().password, "planted");

    let refused = bench.reports().open_mailboxes(bench.as_admin(v1::OpenMailboxesRequest::default())).await;
    assert_eq!(reason(&refused.unwrap_err()), Reason::PermissionDenied);
    let export = bench.as_admin(v1::ExportModelRequest::default());
    let export = DefinitionServiceClient::new(bench.channel.clone()).export_model(export).await.unwrap();
    assert!(!format!("{export:?}").contains("planted"));
    bench.app.stop().await;
    for file in std::fs::read_dir(data.path()).unwrap().flatten().filter(|file| file.path().is_file()) {
        let bytes = std::fs::read(file.path()).unwrap();
        let found = bytes.windows(b"planted".len()).any(|window| window == b"planted");
        assert!(!found, "{} holds a secret in clear", file.path().display());
    }
}

#[tokio::test]
async fn nobody_gets_past_the_gate_without_a_token_of_the_right_role() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let mut definitions = DefinitionServiceClient::new(bench.channel.clone());
    let bare = definitions.export_model(v1::ExportModelRequest::default()).await.unwrap_err();
    assert_eq!(reason(&bare), Reason::Unauthenticated);
    let forged = bearing(&"forged".to_owned().into(), v1::ExportModelRequest::default());
    assert_eq!(reason(&definitions.export_model(forged).await.unwrap_err()), Reason::Unauthenticated);
    let worker = bench.as_worker(v1::ExportModelRequest::default());
    assert_eq!(reason(&definitions.export_model(worker).await.unwrap_err()), Reason::PermissionDenied);
    bench.app.stop().await;
}

#[tokio::test]
async fn a_data_folder_belongs_to_one_process() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    let listen = "127.0.0.1:0".parse().unwrap();
    let second = App::start(Config::new(data.path().into(), listen, Tokens::default()));
    let error = second.await.unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    bench.app.stop().await;
}

#[tokio::test]
async fn the_data_folder_is_its_owners_alone_whoever_made_it() {
    let data = tempfile::tempdir().unwrap();
    std::fs::set_permissions(data.path(), Permissions::from_mode(0o755)).unwrap();
    let bench = Bench::start(data.path()).await;
    assert_eq!(std::fs::metadata(data.path()).unwrap().permissions().mode() & 0o777, 0o700);
    bench.app.stop().await;
}

#[tokio::test]
async fn a_lost_key_is_said_and_the_readers_word_on_it_is_taken() {
    let data = tempfile::tempdir().unwrap();
    let bench = Bench::start(data.path()).await;
    bench.app.stop().await;
    let secured = Secured::start(data.path()).await;
    let (ca, enrolled) = (secured.ca.clone(), secured.enrolled("mail-1").await);
    secured.app.stop().await;
    let path = data.path().join("secret.key");
    let id = Vault::from_text(&std::fs::read_to_string(&path).unwrap().into()).unwrap().key_id();
    std::fs::remove_file(&path).unwrap();
    let store = store_of(data.path()).await;
    let config = || Config {
        store: store.clone(),
        ..Config::new(data.path().into(), "127.0.0.1:0".parse().unwrap(), Tokens::default())
    };
    let gone = App::start(config()).await.unwrap_err().to_string();
    assert!(gone.contains(&id) && gone.contains("secret.key") && gone.contains("lost:"), "{gone}");
    assert!(!path.exists(), "no key takes its place");
    std::fs::write(&path, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    let wrong = App::start(config()).await.unwrap_err().to_string();
    assert!(wrong.contains(&id) && wrong.contains("secret.key") && wrong.contains("lost:"), "{wrong}");
    // On the operator's word that it is lost.
    std::fs::write(&path, format!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nlost:{id}\n")).unwrap();

    // Over TLS by another CA, which stays: by the former one, and by what it signed, nobody is known any more.
    let secured = Secured::start(data.path()).await;
    let made = secured.ca.clone();
    assert_ne!(made, ca);
    let register = v1::RegisterRequest { worker_name: "mail-1".into(), ..Default::default() };
    let known = async |pair: &Pair| LeaseServiceClient::new(secured.showing(pair)).register(register.clone()).await;
    known(&enrolled).await.expect_err("a certificate of the lost CA is still good");
    known(&secured.enrolled("mail-1").await).await.expect("it is enrolled anew");
    secured.app.stop().await;
    let secured = Secured::start(data.path()).await;
    assert_eq!(secured.ca, made);
    secured.app.stop().await;

    let bench = Bench::start_undefined(data.path()).await;
    let mut owner = bench.register("owner").await;
    let offer = owner.offered().await;
    let Outcome::Refused(refusal) = owner.open(&offer.mailbox, offer.epoch).await else { panic!("was opened") };
    assert_eq!(refusal.reason, "SECRET_UNREADABLE");
    assert!(refusal.message.contains("key"), "{}", refusal.message);
    let problem = v1::Problem { code: "SECRET_UNREADABLE".into(), ..Default::default() };
    let status = v1::MailboxStatus {
        mailbox: offer.mailbox.clone(),
        epoch: offer.epoch,
        state: v1::MailboxState::Failing.into(),
        problem: Some(problem),
        ..Default::default()
    };
    let told = v1::ReportStatusRequest { session: owner.id.clone(), statuses: vec![status], lives: Vec::new() };
    bench.reports().report_status(bench.as_worker(told)).await.unwrap();
    let wanted = bench.as_admin(v1::GetMailboxRequest { mailbox: offer.mailbox.clone() });
    let shown = OperatorServiceClient::new(bench.channel.clone()).get_mailbox(wanted).await.unwrap().into_inner();
    assert_eq!(shown.state(), v1::MailboxState::Failing);
    assert_eq!(shown.problem.unwrap().code, "SECRET_UNREADABLE");
    bench.app.stop().await;
}
