//! The command as a script uses it.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

fn command(verb: &str, dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postroom-testbed"));
    command.arg(verb).arg("--dir").arg(dir);
    command
}

/// A running testbed; ends with the test, however that ends.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(dir: &Path) -> Serving {
    let child = command("serve", dir).args(["--user", "eve@contoso.example"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut serving = Serving(child);
    let mut line = String::new();
    BufReader::new(serving.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready: "), "{line}");
    serving
}

fn run(verb: &str, dir: &Path, args: &[&str]) -> Result<String, String> {
    let output = command(verb, dir).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn a_script_starts_fills_changes_and_stops_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("it's here");
    let mut serving = serve(&dir);

    let place: Value = serde_json::from_slice(&std::fs::read(dir.join("testbed.json")).unwrap()).unwrap();
    let source = r#"set -eu; . "$1/testbed.env"; printf '%s %s' "$TESTBED_USER_1_PASSWORD" "$TESTBED_IMAP_PORT""#;
    let shell = Command::new("sh").args(["-c", source, "sh"]).arg(&dir).output().unwrap();
    let expected = format!("{} {}", place["users"][0]["password"].as_str().unwrap(), place["imapPort"]);
    assert_eq!(String::from_utf8(shell.stdout).unwrap(), expected);

    run("deliver", &dir, &["--to", "a@contoso.example", "--subject", "Parcel", "--count", "3"]).unwrap();
    let listed = run("control", &dir, &["messages", "a@contoso.example"]).unwrap();
    assert_eq!(listed, "1\t\tParcel 1\n2\t\tParcel 2\n3\t\tParcel 3\n");

    run("control", &dir, &["fail", "2", "refuse", "50053"]).unwrap();
    run("control", &dir, &["restart"]).unwrap();
    assert_eq!(run("control", &dir, &["messages", "a@contoso.example"]).unwrap(), listed);
    let refused = run("control", &dir, &["fail", "1", "status", "99999"]).unwrap_err();
    assert!(refused.contains("out of range"), "{refused}");

    let mail = Path::new(place["caFile"].as_str().unwrap()).parent().unwrap().parent().unwrap().to_owned();
    assert!(mail.join("mail").exists());
    let killed = Command::new("sh").args(["-c", "kill -s TERM \"$1\"", "sh", &serving.0.id().to_string()]).status();
    assert!(killed.unwrap().success());
    assert!(serving.0.wait().unwrap().success());
    assert!(!mail.exists(), "the mail is still there");
    assert!(run("deliver", &dir, &["--to", "a@contoso.example"]).unwrap_err().contains("no testbed runs"));
}

#[test]
fn nothing_is_left_of_a_testbed_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut serving = serve(dir.path());
    let place: Value = serde_json::from_slice(&std::fs::read(dir.path().join("testbed.json")).unwrap()).unwrap();
    let port = u16::try_from(place["imapPort"].as_u64().unwrap()).unwrap();
    let ca_file = Path::new(place["caFile"].as_str().unwrap());
    serving.0.kill().unwrap();
    serving.0.wait().unwrap();
    // Bounded: a Dovecot that is told to end does so within seconds.
    let gone = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err() && !ca_file.exists()
    });
    assert!(gone, "Dovecot runs on, or its folder is still there");
}
