//! The command on a small mailbox: what it counts, not how fast it is.

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
