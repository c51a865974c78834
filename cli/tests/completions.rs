//! Completion scripts and man pages, in a real shell.

#![allow(clippy::unwrap_used, reason = "a test panics where its setup fails")]

use std::process::Command;

fn postroom(args: &[&str]) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_postroom")).args(args).output().unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn bash_completes_nouns_verbs_and_options() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("postroom.bash");
    std::fs::write(&script, postroom(&["completions", "bash"])).unwrap();
    for (words, expected) in
        [("postroom mail", "mailbox"), ("postroom contact ta", "take"), ("postroom contact take --inst", "--instance")]
    {
        let count = words.split(' ').count();
        let (last, before) = (words.rsplit(' ').next().unwrap(), words.rsplit(' ').nth(1).unwrap());
        let line = format!(
            "source {script} && COMP_WORDS=({words}) COMP_CWORD={cword} && \
             _postroom postroom {last} {before} && printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script = script.display(),
            cword = count - 1,
        );
        let done = Command::new("bash").args(["--norc", "-c", &line]).output().unwrap();
        let shown = String::from_utf8_lossy(&done.stdout);
        assert!(
            shown.lines().any(|word| word == expected),
            "{words}: {shown}{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

#[test]
fn the_other_shells_have_scripts_too() {
    assert!(postroom(&["completions", "zsh"]).starts_with("#compdef postroom"));
    assert!(postroom(&["completions", "fish"]).contains("complete -c postroom"));
}

#[test]
fn every_verb_has_a_man_page() {
    let folder = tempfile::tempdir().unwrap();
    postroom(&["man", folder.path().join("man1").to_str().unwrap()]);
    for page in ["postroom.1", "postroom-status.1", "postroom-contact-take.1"] {
        let text = std::fs::read_to_string(folder.path().join("man1").join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
}
