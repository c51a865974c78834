//! What does not start says everything that is wrong at once, with the exit codes of the `postroom` command.

use std::path::Path;
use std::process::Output;

use crate::control_plane::ControlPlane;
use crate::harness::Stage;
use crate::process::run;

fn told(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_token_is_not_known_ends_and_says_where_to_get_one() {
    let stage = Stage::set().await;
    let plane = ControlPlane::start(&stage, "127.0.0.1:0", "5s").await;
    let forged = stage.folder.path().join("forged.token");
    std::fs::write(&forged, "forged-and-secret\n").unwrap();
    let args = ["--control-plane", &plane.context.endpoint, "--token-file", forged.to_str().unwrap(), "--name", "w"];
    let (code, err) = told(&run("postroom-worker", &args, &[]));
    assert_eq!(code, Some(5), "{err}");
    assert!(err.contains("the control plane refuses this worker") && err.contains("copy worker.token"), "{err}");
    assert!(!err.contains("forged-and-secret"), "{err}");
}

#[test]
fn every_fault_of_a_configuration_is_told_at_once_with_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("worker.toml");
    let text = "control-plane = \"http://cp.example:7430\"\ntoken-fil = \"worker.token\"\n[reading]\npoll = 5\n";
    std::fs::write(&file, text).unwrap();
    let args = ["--config", file.to_str().unwrap(), "--capacity", "many"];
    let (code, err) = told(&run("postroom-worker", &args, &[("POSTROOM_WORKER_ROLE", "both")]));
    assert_eq!(code, Some(4), "{err}");
    let file = file.display();
    for line in [
        format!("  token-fil ({file}): is not known; did you mean token-file?"),
        "  token-file (default): is missing, and so is a certificate; name a file with a token, or ".into(),
        "  role (POSTROOM_WORKER_ROLE): \"both\" is not known here; write active or spare".into(),
        "  capacity (--capacity): \"many\" is no number; write a whole one such as 500".into(),
        format!("  reading.poll ({file}): \"5\" is no length of time; write one such as 500ms, 2s or 1m30s"),
        format!("  control-plane ({file}): calling http://cp.example:7430 would send tokens and mail over the network"),
    ] {
        assert!(err.contains(&line), "without {line:?}:\n{err}");
    }
    assert!(err.starts_with("error: 6 settings are at fault\n"), "{err}");
}

#[test]
fn a_wrong_command_line_and_places_that_cannot_be_used_end_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    assert_eq!(told(&run("postroom-control-plane", &["--dta", data], &[])).0, Some(2));
    let (code, err) = told(&run("postroom-control-plane", &["--config", "/nonexistent.toml"], &[]));
    assert!(code == Some(2) && err.contains("cannot read the settings file /nonexistent.toml"), "{err}");
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let (code, err) = told(&run("postroom-control-plane", &["--data", data, "--listen", &address], &[]));
    assert!(code == Some(2) && err.contains(&format!("cannot listen on {address}")), "{err}");
    let (code, err) = told(&run("postroom-control-plane", &["--data", data, "--listen", "0.0.0.0:0"], &[]));
    assert!(code == Some(4) && err.contains("listen (--listen): ") && err.contains("--insecure"), "{err}");
}

#[test]
fn what_holds_is_shown_with_its_source_and_nothing_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/control-plane.toml");
    let data = folder.path().join("data");
    let args = ["--config", example.to_str().unwrap(), "--data", data.to_str().unwrap(), "--check-config"];
    let output = run("postroom-control-plane", &args, &[("POSTROOM_CONTROL_PLANE_LEASE_TTL", "30s")]);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(out.contains(&format!("data = \"{}\" # --data\n", data.display())), "{out}");
    assert!(out.contains("ttl = \"30s\" # POSTROOM_CONTROL_PLANE_LEASE_TTL\n"), "{out}");
    assert!(out.contains("heartbeat = \"2s\" # default\n"), "{out}");
    assert!(!data.exists());
}
