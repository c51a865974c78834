//! The command on a small mailbox and a small fleet: what it counts, not how fast it is.

use std::process::Command;

#[test]
fn a_small_mailbox_is_read_whole() {
    // The bare reader alone: it needs neither isync nor the postroom binary.
    let output = Command::new(env!("CARGO_BIN_EXE_postroom-bench"))
        .args(["mailbox", "--messages", "200", "--bytes", "2000", "--runs", "2", "--cold", "--only", "bare", "--json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let measured: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(measured["clients"].as_array().unwrap().len(), 1, "{measured}");
    let runs = measured["clients"][0]["runs"].as_array().unwrap();
    assert_eq!(runs.iter().map(|run| run["messages"].as_u64().unwrap()).collect::<Vec<_>>(), [200, 200]);
    assert!(runs.iter().all(|run| run["seconds"].as_f64().unwrap() > 0.0), "{measured}");
    assert!(measured["dovecot"].as_str().unwrap().starts_with("2."), "{measured}");
}

#[test]
fn a_small_fleet_moves_what_it_must_and_nothing_else() {
    let output = Command::new(env!("CARGO_BIN_EXE_postroom-bench"))
        .args(["fleet", "--mailboxes", "60", "--workers", "3", "--heartbeat", "300ms", "--steady", "2s", "--json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let measured: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |path: &str| measured.pointer(path).and_then(serde_json::Value::as_u64).unwrap();
    // Shares are even within a tolerance only; whatever the dead worker had must move, and nothing else may.
    assert!((15..=25).contains(&number("/death/due")), "{measured}");
    assert_eq!(number("/death/moves"), number("/death/due"), "{measured}");
    assert!((1..=30).contains(&number("/join/moves")), "{measured}");
    assert_eq!((number("/restart/moves"), number("/overlaps")), (0, 0), "{measured}");
    assert!(measured["steady"]["cpuShare"].as_f64().unwrap() > 0.0, "{measured}");
    assert!(measured["steady"]["bytesUpPerSecond"].as_f64().unwrap() > 0.0, "{measured}");
}

#[test]
fn a_small_model_goes_through_every_command() {
    let output = Command::new(env!("CARGO_BIN_EXE_postroom-bench"))
        .args(["model", "--addresses", "250", "--of-a-queue", "100", "--json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let measured: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((measured["addresses"].as_u64(), measured["queues"].as_u64()), (Some(250), Some(3)), "{measured}");
    let steps = measured["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 9, "{measured}");
    for step in steps {
        assert!(step["seconds"].as_f64().unwrap() > 0.0, "{step}");
        assert!(step["controlPlane"]["peakRssBytes"].as_u64().unwrap() > 0, "{step}");
    }
    assert!(steps[0]["client"]["peakRssBytes"].as_u64().unwrap() > 0, "{measured}");
}

#[test]
fn a_few_large_messages_are_read_by_an_installation() {
    // Without mbsync, which is a package of its own.
    let output = Command::new(env!("CARGO_BIN_EXE_postroom-bench"))
        .args(["large", "--alone", "--mailboxes", "2", "--megabytes", "12", "--runs", "1", "--json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let measured: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((measured["messages"].as_u64(), measured["mailboxes"].as_u64()), (Some(2), Some(2)), "{measured}");
    let clients = measured["clients"].as_array().unwrap();
    let names: Vec<_> = clients.iter().map(|client| client["client"].as_str().unwrap()).collect();
    assert_eq!(names, ["postroom-worker", "postroom-control-plane"], "{measured}");
    assert!(clients.iter().all(|client| client["runs"][0]["peakRssBytes"].as_u64().unwrap() > 0), "{measured}");
}
