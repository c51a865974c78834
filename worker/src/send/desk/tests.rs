//! The desk with an outbox and servers that are played here.

use postroom_proto::convert::to_duration;

use super::*;
use crate::send::peer::{Ledger, PATIENCE, Script, Smtp, mail, obliging, relay, sending};

const RAW: &str = "Subject: s\r\n\r\nHello\r\n";

struct Running {
    told: CancellationToken,
    desk: tokio::task::JoinHandle<()>,
    _session: watch::Sender<String>,
}

fn start(ledger: &Arc<Ledger>) -> Running {
    let (session, sessions) = watch::channel("s".to_owned());
    let told = CancellationToken::new();
    let desk = Desk::new(ledger.clone(), sending(Duration::ZERO), sessions);
    let desk = tokio::spawn(desk.run(told.clone()));
    Running { told, desk, _session: session }
}

impl Running {
    async fn stop(self) {
        self.told.cancel();
        timeout(PATIENCE, self.desk).await.expect("stopped").expect("without a panic");
    }
}

/// A server that answers a line only once it is allowed to.
fn hanging_at(at: &'static str) -> Script {
    Arc::new(move |line| if line == at { Some(String::new()) } else { obliging(line) })
}

async fn heard(server: &Smtp, line: &str) {
    let heard = async {
        while !server.heard().iter().any(|heard| heard == line) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, heard).await.expect("heard");
}

#[tokio::test]
async fn mails_are_sent_and_told_however_they_come_and_however_often_it_takes() {
    let server = Smtp::start(None, false, Arc::new(obliging)).await;
    let ledger = Arc::new(Ledger::default());
    *ledger.losses.lock().unwrap() = 3;
    let definition = relay(server.port);
    ledger.put(mail("m1", &definition, &["b@x.example"], RAW));
    ledger.put_apart(mail("m2", &definition, &["b@x.example"], RAW));
    let running = start(&ledger);
    let settled = ledger.settlements(2).await;
    for one in &settled {
        let claim = one.claim.clone().expect("a claim");
        assert_eq!((claim.session.as_str(), claim.token), ("s", format!("token-{}", claim.mail)));
        assert_eq!(one.verdict(), SendVerdict::Sent);
    }
    assert_eq!(server.mails.lock().unwrap().len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn one_that_hangs_is_in_nobodys_way() {
    let dead = Smtp::start(None, false, hanging_at("DATA")).await;
    let alive = Smtp::start(None, false, Arc::new(obliging)).await;
    let ledger = Arc::new(Ledger::default());
    ledger.put(mail("stuck", &relay(dead.port), &["b@x.example"], RAW));
    let running = start(&ledger);
    heard(&dead, "DATA").await;
    for number in 0..5 {
        ledger.put(mail(&format!("m{number}"), &relay(alive.port), &["b@x.example"], RAW));
    }
    let settled = ledger.settlements(5).await;
    assert!(settled.iter().all(|one| one.verdict() == SendVerdict::Sent), "{settled:?}");
    drop(running);
}

#[tokio::test]
async fn a_panic_is_told_and_hurts_no_other() {
    let server = Smtp::start(None, false, Arc::new(obliging)).await;
    let ledger = Arc::new(Ledger::default());
    // The peer's outbox panics when it is asked for bytes of another length than there are.
    let wrong = ClaimedMail { size_bytes: 5, ..mail("bad", &relay(server.port), &["b@x.example"], RAW) };
    ledger.put_apart(wrong);
    ledger.put(mail("good", &relay(server.port), &["b@x.example"], RAW));
    let running = start(&ledger);
    let settled = ledger.settlements(2).await;
    let of = |id: &str| settled.iter().find(|one| one.claim.as_ref().is_some_and(|claim| claim.mail == id));
    let bad = of("bad").expect("told");
    assert_eq!((bad.verdict(), bad.problem.clone().expect("a problem").code), (SendVerdict::Deferred, "DEFECT".into()));
    assert_eq!(of("good").expect("told").verdict(), SendVerdict::Sent);
    running.stop().await;
}

#[tokio::test]
async fn an_attempt_ends_before_its_claim_does() {
    let server = Smtp::start(None, false, hanging_at("MAIL FROM:<support@contoso.example> SIZE=21")).await;
    let ledger = Arc::new(Ledger::default());
    let late = mail("late", &relay(server.port), &["b@x.example"], RAW);
    ledger.put(ClaimedMail { time_left: Some(to_duration(MARGIN + Duration::from_millis(200))), ..late });
    let running = start(&ledger);
    let settled = ledger.settlements(1).await;
    assert_eq!(settled[0].verdict(), SendVerdict::Deferred);
    assert_eq!(settled[0].problem.clone().expect("a problem").code, "TIMED_OUT");
    running.stop().await;
}

#[tokio::test]
async fn told_to_stop_it_gives_up_what_does_not_end_and_says_what_is_not_known() {
    for (at, line, want) in [
        ("DATA", "DATA", SendVerdict::Deferred),
        // Everything was said, and nothing is answered.
        (".", "DATA", SendVerdict::Unknown),
    ] {
        let server = Smtp::start(None, false, hanging_at(at)).await;
        let ledger = Arc::new(Ledger::default());
        ledger.put(mail("m", &relay(server.port), &["b@x.example"], RAW));
        let running = start(&ledger);
        heard(&server, line).await;
        if at == "." {
            let taken = async {
                while server.mails.lock().unwrap().is_empty() {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(PATIENCE, taken).await.expect("taken");
        }
        running.stop().await;
        let settled = ledger.settled.lock().unwrap().clone();
        assert_eq!(settled.len(), 1, "{at}");
        assert_eq!(settled[0].verdict(), want, "{at}");
    }
}
