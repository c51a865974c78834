//! A real etcd that dies, freezes, forgets and comes back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::process::Command;
use std::time::Duration;

use postroom_testbed::Etcd;
use postroom_testbed::etcd::Options;

/// Runs `etcdctl` as a client of Postroom's would, with the given arguments.
fn client(etcd: &Etcd, member: usize, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &etcd.endpoint(member), "--command-timeout", "2s"]);
    if let Some(authority) = etcd.authority() {
        command.arg("--cacert").arg(authority.ca_file());
    }
    let output = command.args(arguments).output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

fn value(etcd: &Etcd, key: &str) -> String {
    client(etcd, 0, &["get", key, "--print-value-only"]).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_member_dies_freezes_and_comes_back_with_what_it_had() {
    let etcd = Etcd::single().await.unwrap();
    client(&etcd, 0, &["put", "a", "1"]).unwrap();
    let revision = etcd.revision().await.unwrap();
    etcd.kill(0).await.unwrap();
    client(&etcd, 0, &["get", "a"]).unwrap_err();
    assert!(etcd.pause(0).await.is_err(), "it does not run");
    etcd.restart(0).await.unwrap();
    assert_eq!((value(&etcd, "a").as_str(), etcd.revision().await.unwrap()), ("1", revision));

    etcd.pause(0).await.unwrap();
    client(&etcd, 0, &["get", "a"]).unwrap_err();
    etcd.resume(0).await.unwrap();
    assert_eq!(value(&etcd, "a"), "1");
    etcd.pause(0).await.unwrap();
    let folder = etcd.folder().to_owned();
    drop(etcd);
    assert!(!folder.exists(), "a frozen one ends too");
}

#[tokio::test]
async fn history_is_cut_off_set_back_and_lost() {
    let etcd = Etcd::single().await.unwrap();
    client(&etcd, 0, &["put", "a", "1"]).unwrap();
    let saved = tempfile::NamedTempFile::new().unwrap();
    etcd.save(saved.path()).await.unwrap();
    let before = etcd.revision().await.unwrap();
    client(&etcd, 0, &["put", "a", "2"]).unwrap();
    assert_eq!(etcd.compact().await.unwrap(), before + 1);
    assert!(client(&etcd, 0, &["get", "a", "--rev", &before.to_string()]).unwrap_err().contains("compacted"));

    etcd.restore(saved.path()).await.unwrap();
    assert_eq!((value(&etcd, "a").as_str(), etcd.revision().await.unwrap()), ("1", before));
    etcd.wipe().await.unwrap();
    assert_eq!((value(&etcd, "a").as_str(), etcd.revision().await.unwrap()), ("", 1));
}

#[tokio::test]
async fn of_three_members_one_may_die_and_leadership_moves() {
    let etcd = Etcd::start(Options { members: 3, ..Options::default() }).await.unwrap();
    assert_eq!(etcd.endpoints().len(), 3);
    let next = etcd.move_leader().await.unwrap();
    assert_eq!(etcd.leader().await.unwrap(), next);
    etcd.kill(2).await.unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    while let Err(said) = client(&etcd, 0, &["put", "a", "1"]) {
        assert!(tokio::time::Instant::now() < until, "{said}");
    }
    etcd.restart(2).await.unwrap();
    assert!(client(&etcd, 2, &["get", "a"]).unwrap().contains('1'));
}

#[tokio::test]
async fn with_tls_and_a_password_nobody_else_gets_in_and_a_named_folder_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        tls: true,
        user: Some(("post".into(), "geheim".into())),
        folder: Some(folder.path().join("named")),
        ..Options::default()
    };
    for value in ["1", "2"] {
        let etcd = Etcd::start(options.clone()).await.unwrap();
        assert!(etcd.url("/postroom/x").starts_with("etcds://post@127.0.0.1:"), "{}", etcd.url(""));
        assert!(client(&etcd, 0, &["get", "a"]).is_err(), "not without a name");
        let user = ["--user", "post:geheim"];
        client(&etcd, 0, &[&["put", "/postroom/a", value], &user[..]].concat()).unwrap();
        assert!(client(&etcd, 0, &[&["put", "/other", "1"], &user[..]].concat()).unwrap_err().contains("permission"));
        assert!(etcd.dump("/postroom").await.unwrap().contains("/postroom/a"));
        let revisions = etcd.revision().await.unwrap();
        assert!(revisions > u64::from(value == "2") + 1, "{revisions}");
    }
    assert!(folder.path().join("named").exists());
}
