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

fn serve(dir: &Path, args: &[&str]) -> Serving {
    let child = command("serve", dir)
        .args(["--user", "eve@contoso.example"])
        .args(args)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
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
    let mut serving = serve(&dir, &[]);

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
fn orders_are_given_to_what_sends() {
    let dir = tempfile::tempdir().unwrap();
    let _serving = serve(dir.path(), &["--graph"]);
    for args in [
        &["graph", "answer", "send", "--kind", "throttled", "--times", "3"][..],
        &["graph", "cut", "accepted", "--mailbox", "a@contoso.example"],
        &["permission", "graph-send", "off"],
        &["mend"],
    ] {
        assert_eq!(run("control", dir.path(), args).unwrap(), "done\n", "{args:?}");
    }
    let refused =
        run("control", dir.path(), &["smtp", "answer", "sign-in", "--kind", "disabled-for-tenant"]).unwrap_err();
    assert!(refused.contains("serve --smtp"), "{refused}");
    let place: Value = serde_json::from_slice(&std::fs::read(dir.path().join("testbed.json")).unwrap()).unwrap();
    assert!(place["graphHost"].is_string() && place["users"][0]["id"].is_string() && place["smtpPort"].is_null());
}

#[test]
fn orders_are_given_to_what_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let _serving = serve(dir.path(), &["--exchange-imap"]);
    for args in [
        &["imap", "answer", "open", "--kind", "throttled", "--mailbox", "a@contoso.example"][..],
        &["imap", "change", "hostile-literal", "3", "--times", "0"],
        &["imap", "change", "bare-codes"],
        &["imap", "cut", "fetch"],
        &["mend"],
    ] {
        assert_eq!(run("control", dir.path(), args).unwrap(), "done\n", "{args:?}");
    }
    assert!(run("control", dir.path(), &["imap", "change", "placeholder"]).unwrap_err().contains("NUMBER"));
    let nobody = run("control", dir.path(), &["imap", "end", "a@contoso.example"]).unwrap_err();
    assert!(nobody.contains("nobody is signed in"), "{nobody}");
}

#[test]
fn nothing_is_left_of_a_testbed_that_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut serving = serve(dir.path(), &["--smtp"]);
    let ordered = run("control", dir.path(), &["smtp", "answer", "end", "--text", "451 4.7.1 Later", "--times", "0"]);
    assert_eq!(ordered.unwrap(), "done\n");
    let place: Value = serde_json::from_slice(&std::fs::read(dir.path().join("testbed.json")).unwrap()).unwrap();
    let port = u16::try_from(place["imapPort"].as_u64().unwrap()).unwrap();
    let postfix = postfix_folders(serving.0.id());
    assert_eq!(postfix.len(), 1, "{postfix:?}");
    let ca_file = Path::new(place["caFile"].as_str().unwrap());
    serving.0.kill().unwrap();
    serving.0.wait().unwrap();
    // Bounded: a Dovecot that is told to end does so within seconds.
    let gone = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err() && !ca_file.exists() && !postfix[0].exists()
    });
    assert!(gone, "Dovecot or Postfix runs on, or its folder is still there");
    let config = postfix[0].join("config").display().to_string();
    assert!(!command_lines().any(|(_, line)| line.contains(&config)), "Postfix runs on");
}

/// The folders of the Postfixes that a process has started.
fn postfix_folders(parent: u32) -> Vec<std::path::PathBuf> {
    let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = parent.to_string();
    let is_child = |pid: u32| stat(pid).rsplit(')').next().unwrap().split(' ').nth(2) == Some(parent.as_str());
    let guards = command_lines().filter(|(pid, line)| line.contains("postroom-testbed-postfix") && is_child(*pid));
    let folders = guards.filter_map(|(_, line)| {
        let mut words = line.split('\0').skip_while(|word| *word != "postroom-testbed-postfix");
        words.nth(1).map(std::path::PathBuf::from)
    });
    folders.collect()
}

/// The command lines of all processes, their words ended by NUL.
fn command_lines() -> impl Iterator<Item = (u32, String)> {
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| Some((pid, std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?)))
}
