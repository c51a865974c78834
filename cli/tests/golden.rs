//! What every verb prints, as golden files: table, JSON and YAML, what goes to standard error, and the exit code.
//!
//! A verb has at least one line in [`CASES`], else a test fails. A new one needs that line, something to show in
//! `support/fixture.rs`, and `INSTA_UPDATE=always cargo test --workspace --test golden`, whose files are to be read
//! before they are committed.

#![allow(clippy::unwrap_used, reason = "a test panics where its setup fails")]

use postroom_cli::args;

mod support;

use support::{ControlPlane, Outcome, fixture};

/// Verb, and what follows it: words between spaces; `FILE` is a model file.
const CASES: &[(&str, &str)] = &[
    ("apply", "-f FILE"),
    ("apply", "-f FILE --dry-run --prune"),
    ("contact accept", "--instance core1 --request-id r-1 0198c0ffee0198c0ffee0198c0ffee01 lost-1"),
    ("contact attachment", "0198c0ffee0198c0ffee0198c0ffee01"),
    ("contact end", "--instance core1 --outcome answered contact-1 lost-1"),
    ("contact extend", "--instance core1 --accept-within 5m contact-1 lost-1"),
    ("contact list", ""),
    ("contact list", "--instance core1 --state queued --limit 1"),
    ("contact raw", "0198c0ffee0198c0ffee0198c0ffee01"),
    ("contact reject", "--instance core1 0198c0ffee0198c0ffee0198c0ffee01"),
    ("contact requeue", "--instance core1 contact-1 unknown-1"),
    ("contact show", "0198c0ffee0198c0ffee0198c0ffee01"),
    ("contact take", "--instance core1 --max 1"),
    ("contact transfer", "--instance core1 --queue Support contact-1 lost-1"),
    ("contact watch", "--instance core1"),
    ("explain", "NOT_CONNECTED"),
    ("diff", "--file FILE"),
    ("diff", "6"),
    ("export", ""),
    ("history", ""),
    ("incoming-server list", ""),
    ("incoming-server show", "Entra"),
    ("incoming-server set", "Entra imap.port=994 --unset scope"),
    ("incoming-server remove", "Entra --dry-run"),
    ("instance list", ""),
    ("instance show", "core1"),
    ("instance set", "core1 --name core9"),
    ("instance remove", "core1"),
    ("incoming-server check", "Entra"),
    ("outgoing-server check", "M365 --from sales@contoso.example"),
    ("mailbox backlog approve", "support@contoso.example --rate 30 --since 2026-01-31"),
    ("mailbox backlog show", "support@contoso.example"),
    ("mailbox backlog stop", "support@contoso.example"),
    ("mailbox check", "sales@contoso.example"),
    ("mailbox list", ""),
    ("mailbox reconcile", "billing@contoso.example"),
    ("mailbox show", "sales@contoso.example"),
    ("outgoing-server list", ""),
    ("outgoing-server remove", "Relay"),
    ("outgoing-server set", "New authentication=none server=smtp.example --create"),
    ("outgoing-server show", "Relay"),
    ("outbox cancel", "0198c0ffee0198c0ffee0198c0ffee32"),
    ("outbox confirm", "0198c0ffee0198c0ffee0198c0ffee32"),
    ("outbox list", ""),
    ("outbox list", "--instance core1 --state sent"),
    ("outbox raw", "0198c0ffee0198c0ffee0198c0ffee31"),
    ("outbox retry", "0198c0ffee0198c0ffee0198c0ffee32 --may-arrive-twice"),
    ("outbox show", "0198c0ffee0198c0ffee0198c0ffee33"),
    ("outbox watch", "--instance core1"),
    ("reply", "0198c0ffee0198c0ffee0198c0ffee01 --text Thanks"),
    ("send", "--instance core1 --from billing@contoso.example --to zoe@fabrikam.example --subject Order --text Hello"),
    ("message discard", "1044 --reason spam"),
    ("message list", ""),
    ("message list", "--disposition too-large --limit 1"),
    ("message raw", "1042"),
    ("message replay", "1042"),
    ("message show", "1043"),
    ("store adopt", ""),
    ("store adopt", "--yes"),
    ("store show", ""),
    ("token create", "--name cem-core1 --role instance --instance core1"),
    ("token list", ""),
    ("token revoke", "cem-core1"),
    ("token revoke", "--worker mail-1"),
    ("worker enroll", "mail-1 --ttl 2h"),
    ("worker drain", "mail-1"),
    ("worker drain", "mail-1 --wait"),
    ("worker freeze", "--for 30m --note maintenance"),
    ("worker list", ""),
    ("worker set-role", "mail-1 spare"),
    ("worker undrain", "mail-9"),
    ("worker unfreeze", ""),
    ("status", ""),
    ("status", "--check"),
    ("top", "--once"),
    ("top", "--once --sort lag --filter contoso"),
    ("queue list", ""),
    ("queue remove", "Billing"),
    ("queue set", "Billing --address billing@contoso.example priority=2"),
    ("queue show", "Billing"),
    ("rollback", "5"),
    ("rollback", "5 --dry-run"),
    ("rollout status", ""),
    ("system set", "language=de --unset priority"),
    ("system show", ""),
];

/// Verbs that print no data of a control plane, and where they are tested.
const ELSEWHERE: &[(&str, &str)] = &[
    ("completions", "tests/completions.rs"),
    ("man", "tests/completions.rs"),
    ("backup create", "tests/spine"),
    ("backup restore", "tests/spine"),
    ("backup verify", "tests/spine"),
    ("audit list", "tests/spine"),
    ("secret rotate-key", "tests/spine"),
    ("up", "tests/spine"),
    ("version", "tests/command.rs"),
];

/// Command lines that are wrong, or name what is not there.
const WRONG: &[&str] = &[
    "",
    "mailbox",
    "mailbox lost",
    "mailbox show",
    "mailbox show nobody@contoso.example",
    "mailbox backlog approve support@contoso.example --rate fast",
    "mailbox backlog approve billing@contoso.example",
    "queue show Billing -o xml",
    "contact take --instance core1 --max 0",
    "contact take --instance core1 --max 1 --wait soon",
    "contact accept --instance core1 unknown-1 unknown-2",
    "contact show unknown-1",
    "--endpoint https://postroom.example mailbox list --data /tmp",
    "apply -f /nonexistent/model.yaml",
    "explain AADSTS700215",
    "worker drain mail-7",
    "worker drain mail-1 --wait --timeout 0s",
    "worker drain mail-2 --wait --timeout 1s",
    "worker set-role mail-1 standby",
    "worker freeze --for 8d",
    "diff",
    "diff -f FILE 7",
    "queue set Biling priority=5",
    "queue set Billing --create",
    "queue set Billing priority=high colour",
    "queue set Billing colour=red",
    "incoming-server set Entra secret=planted",
    "rollout status --wait --timeout 1s",
];

#[tokio::test]
async fn what_every_verb_prints() {
    for (verb, rest) in CASES {
        let mut shown = String::new();
        for form in ["", "-o json", "-o yaml"] {
            let line = [*verb, *rest, form].join(" ");
            let line = line.trim().replace("  ", " ");
            shown += &told(&line, &run(&line).await);
        }
        insta::assert_snapshot!(name(verb, rest), shown);
    }
}

#[tokio::test]
async fn what_is_said_of_wrong_command_lines() {
    let mut shown = String::new();
    for line in WRONG {
        let outcome = run(line).await;
        assert_ne!(outcome.code, 0, "{line}");
        shown += &told(line, &outcome);
    }
    insta::assert_snapshot!(shown);
}

/// Walks what clap knows, so that no verb is forgotten.
#[test]
fn every_verb_has_a_golden_file() {
    let mut verbs = Vec::new();
    let mut nouns = vec![(String::new(), args::command())];
    while let Some((path, command)) = nouns.pop() {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let path = format!("{path} {}", verb.get_name()).trim().to_owned();
            if verb.has_subcommands() { nouns.push((path, verb.clone())) } else { verbs.push(path) }
        }
    }
    let shown = |verb: &String| CASES.iter().chain(ELSEWHERE).any(|(known, _)| known == verb);
    let missing: Vec<_> = verbs.iter().filter(|verb| !shown(verb)).collect();
    assert!(missing.is_empty(), "without a line in CASES: {missing:?}");
    let gone: Vec<_> = CASES.iter().chain(ELSEWHERE).filter(|(verb, _)| !verbs.iter().any(|v| v == verb)).collect();
    assert!(gone.is_empty(), "no such verbs: {gone:?}");
}

async fn run(line: &str) -> Outcome {
    let plane = ControlPlane::start(fixture::state()).await;
    let file = plane.data.path().join("model.yaml");
    std::fs::write(&file, fixture::MODEL).unwrap();
    let words = line.split_whitespace().map(|word| if word == "FILE" { file.to_str().unwrap() } else { word });
    let words: Vec<&str> = words.collect();
    let mut outcome = if words.contains(&"--data") { support::run(&words).await } else { plane.run(&words).await };
    let data = plane.data.path().to_str().unwrap();
    let steady = |text: &str| without_uuids(&text.replace(data, "/DATA").replace(&plane.context.endpoint, "ENDPOINT"));
    outcome.err = steady(&outcome.err);
    outcome.out = steady(outcome.out()).into_bytes();
    outcome
}

fn told(line: &str, outcome: &Outcome) -> String {
    let mut shown = format!("$ postroom {line}\n{}", outcome.out());
    if !outcome.err.is_empty() {
        shown += &format!("--- standard error\n{}", outcome.err);
    }
    shown + &format!("--- exit code {}\n\n", outcome.code)
}

/// The name of the golden file: the verb, and where a verb has several lines, its options.
fn name(verb: &str, rest: &str) -> String {
    let several = CASES.iter().filter(|(other, _)| *other == verb).count() > 1;
    let options = rest.split_whitespace().filter(|word| several && word.starts_with("--"));
    verb.split(' ').chain(options).collect::<Vec<_>>().join("_").replace("--", "")
}

/// What is drawn by lot is shown as zeros.
fn without_uuids(text: &str) -> String {
    const UUID: &str = "00000000-0000-0000-0000-000000000000";
    let is_uuid = |bytes: &[u8]| {
        bytes.iter().zip(UUID.bytes()).all(|(c, like)| if like == b'-' { *c == b'-' } else { c.is_ascii_hexdigit() })
    };
    let mut shown = text.to_owned();
    for at in 0..text.len().saturating_sub(UUID.len() - 1) {
        if is_uuid(&shown.as_bytes()[at..at + UUID.len()]) {
            shown.replace_range(at..at + UUID.len(), UUID);
        }
    }
    shown
}
