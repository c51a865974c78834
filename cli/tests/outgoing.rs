//! `reply`, `send` and `outbox` against a control plane that answers what the test tells it to.

#![allow(clippy::unwrap_used, reason = "a test panics where its setup fails")]

use postroom_proto::reason::{Failure, Reason};
use postroom_proto::v1;
use tonic::Status;

mod support;

use support::{ControlPlane, State, fixture};

const CONTACT: &str = "0198c0ffee0198c0ffee0198c0ffee01";

#[tokio::test]
async fn a_reply_goes_up_as_it_was_typed_with_its_files() {
    let plane = ControlPlane::start(fixture::state()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let large: Vec<u8> = (0..700_000u32).map(|n| n as u8).collect();
    let (pdf, logo) = (file("Rechnung März.pdf", &large), format!("logo={}", file("logo.png", b"PNG")));
    let (text, html) = (file("text.txt", "Grüße".as_bytes()), file("text.html", b"<p>Hi <img src=\"cid:logo\"></p>"));
    let mut args = vec!["reply", CONTACT, "--cc", "B <b@x.example>", "--bcc", "c@x.example", "--automatic"];
    args.extend(["--text-file", &text, "--html-file", &html, "--inline", &logo, "--attach", &pdf]);
    let outcome = plane.run(&args).await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let (draft, attachments) = plane.state().composed.pop().unwrap();
    assert_eq!((draft.instance.as_str(), draft.contact.as_str()), ("core1", CONTACT));
    assert_eq!((draft.text.as_str(), draft.automatic, draft.from), ("Grüße", true, None));
    assert_eq!((draft.cc[0].name.as_str(), draft.bcc[0].address.as_str()), ("B", "c@x.example"));
    assert!(draft.html.contains("cid:logo") && draft.request_id.len() == 36);
    let told: Vec<_> = attachments
        .iter()
        .map(|(it, bytes)| (it.name.as_str(), it.media_type.as_str(), it.content_id.as_str(), bytes.len()))
        .collect();
    assert_eq!(told, [("logo.png", "image/png", "logo", 3), ("Rechnung März.pdf", "application/pdf", "", 700_000)]);
    assert_eq!(attachments[1].1, large);
}

#[tokio::test]
async fn what_cannot_be_sent_is_said_before_anything_is_asked_for() {
    let plane = ControlPlane::start(fixture::state()).await;
    let send = ["send", "--instance", "core1", "--from", "a@x.example", "--to", "b@x.example", "--subject", "s"];
    for (more, told) in [
        (vec![], "nothing is written"),
        (vec!["--text", "x", "--attach", "/nonexistent/file"], "/nonexistent/file"),
        (vec!["--text", "x", "--attach", "/"], "is no file"),
        (vec!["--text-file", "/nonexistent/text"], "cannot read"),
        (vec!["--text", "x", "--cc", "nobody"], "name@domain"),
    ] {
        let outcome = plane.run(&[&send[..], &more].concat()).await;
        assert!(outcome.code == 2 && outcome.err.contains(told), "{more:?}: {outcome:?}");
    }
    assert_eq!(plane.state().calls, Vec::<&str>::new());
}

#[tokio::test]
async fn what_was_not_taken_goes_up_again_whole() {
    let plane = ControlPlane::start(fixture::state()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.bin");
    std::fs::write(&path, vec![7; 300_000]).unwrap();
    plane.state().failures.push_back(Status::from(Failure::new(Reason::ShuttingDown, "stopping")));
    let mut args =
        vec!["send", "--instance", "core1", "--from", "a@x.example", "--to", "b@x.example", "--subject", "s"];
    args.extend(["--text", "x", "--attach", path.to_str().unwrap()]);
    assert_eq!(plane.run(&args).await.code, 0);
    assert_eq!(plane.state().calls, ["Send", "Send"]);
    let composed = plane.state().composed.clone();
    assert_eq!((composed.len(), composed[0].1[0].1.len()), (1, 300_000));
}

#[tokio::test]
async fn whoever_waits_hears_how_it_ended() {
    let mut state = fixture::state();
    // What is looked at while waiting is the first mail of the outbox.
    state.mails.truncate(1);
    let plane = ControlPlane::start(state).await;
    let args = ["reply", CONTACT, "--text", "x", "--wait", "5s"];
    let outcome = plane.run(&args).await;
    assert!(
        outcome.code == 9 && outcome.err.contains("bounced") && outcome.err.contains("correct the address"),
        "{outcome:?}"
    );
    plane.state().mails[0].set_state(v1::OutboxState::Sent);
    assert_eq!(plane.run(&args).await.code, 0);
}

#[tokio::test]
async fn a_watch_that_ends_says_how_to_go_on() {
    let plane = ControlPlane::start(State { mails: fixture::state().mails, ..State::default() }).await;
    let outcome = plane.run(&["outbox", "watch", "--instance", "core1"]).await;
    assert_eq!(outcome.code, 7);
    assert!(outcome.err.contains("outbox watch --from 8 --instance core1"), "{}", outcome.err);
}
