//! Planted secrets come out nowhere: no output, no log at its most verbose, no file.

use std::path::Path;

use crate::harness::{PASSWORD, SERVER, SERVICE, Stage, USER, contacts, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn secrets_stay_secret_and_odd_names_work_everywhere() {
    let stage = Stage::set().await;
    stage.deliver(SERVICE, "a", 3).await;
    stage.deliver(USER, "b", 3).await;
    let up = stage.up().await;
    let client = up.client();
    eventually("six contacts", || async { contacts(&client).await.len() == 6 }).await;
    let contact = client.list_contacts(Default::default(), 1).await.unwrap().contacts.remove(0).id;

    let model = stage.model_file();
    let mut said = Vec::new();
    let commands: &[&[&str]] = &[
        &["export"],
        &["instance", "list"],
        &["instance", "show", "core1"],
        &["incoming-server", "list"],
        &["incoming-server", "show", SERVER],
        &["queue", "list"],
        &["queue", "show", "Billing"],
        &["mailbox", "list"],
        &["mailbox", "show", SERVICE],
        &["contact", "list"],
        &["contact", "show", &contact],
        &["contact", "raw", &contact],
        &["contact", "attachment", &contact],
        &["message", "list"],
        &["mailbox", "check", SERVICE],
        &["mailbox", "check", USER],
        &["mailbox", "reconcile", USER],
        &["history"],
        &["diff", "0"],
        &["rollout", "status"],
        &["status"],
        &["apply", "-f", model.to_str().unwrap()],
    ];
    for command in commands {
        // Bytes as they came have one form.
        let formats: &[&str] = if command.contains(&"raw") { &["table"] } else { &["table", "json", "yaml"] };
        for format in formats {
            let mut args = command.to_vec();
            args.extend(["-o", format]);
            let output = up.postroom(&args);
            assert!(output.status.success(), "{args:?}: {output:?}");
            said.extend(output.stdout);
            said.extend(output.stderr);
        }
    }
    let shown = String::from_utf8_lossy(&said);
    assert!(shown.contains(SERVER) || shown.contains("Münster"), "the odd name is shown");

    // The exported model is the applied one: taking it in changes nothing.
    let export = stage.folder.path().join("export.yaml");
    std::fs::write(&export, up.postroom(&["export"]).stdout).unwrap();
    let applied = up.postroom(&["apply", "-f", export.to_str().unwrap(), "-o", "json"]);
    assert!(applied.status.success(), "{applied:?}");
    let applied: serde_json::Value = serde_json::from_slice(&applied.stdout).unwrap();
    assert_eq!(applied["changes"], serde_json::json!([]), "{applied}");
    drop(up);

    let secret = stage.secret();
    for planted in [PASSWORD, &secret] {
        assert!(!holds(&said, planted), "a command has printed a secret");
        assert!(!holds(&std::fs::read(stage.log()).unwrap(), planted), "the log holds a secret");
        assert_no_file_holds(&stage.data(), planted);
    }
    let token = stage.folder.path().join("data/context.toml");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(token).unwrap()) & 0o777, 0o600);
}

fn assert_no_file_holds(folder: &Path, planted: &str) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_no_file_holds(&path, planted);
        } else {
            assert!(!holds(&std::fs::read(&path).unwrap(), planted), "{} holds a secret", path.display());
        }
    }
}

/// In clear, and in the encodings in which it may be sent.
fn holds(bytes: &[u8], planted: &str) -> bool {
    let base64 = data_encoding::BASE64_NOPAD.encode(planted.as_bytes());
    // The last characters depend on what follows.
    let base64 = &base64[..base64.len() - 4];
    let percent: String = planted
        .bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                (b as char).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect();
    [planted, base64, &percent].iter().any(|form| bytes.windows(form.len()).any(|window| window == form.as_bytes()))
}
