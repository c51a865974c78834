use std::fs;
use std::path::{Path, PathBuf};

use super::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|it| it == "rs") {
            *text += &fs::read_to_string(path).unwrap();
        }
    }
}

#[test]
fn what_is_listed_is_used_and_what_is_used_is_listed() {
    let mut text = String::new();
    for part in ["control-plane/src", "worker/src", "cli/src", "proto/src/observe", "proto/src/trace"] {
        sources(&root().join(part), &mut text);
    }
    // However the lines are broken.
    let text: String = text.split_whitespace().collect();
    for (identifier, listed) in inventory::IDENTIFIERS.iter().zip(ALL) {
        // The other way round the compiler sees to it.
        assert!(text.contains(&format!("metric::{identifier}.")), "nobody sets {}", listed.metric().name);
    }
}

#[test]
fn names_and_labels_are_as_prometheus_wants_them() {
    let mut names = Vec::new();
    for metric in ALL.iter().map(|listed| listed.metric()) {
        let word = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !text.contains("__");
        assert!(metric.name.starts_with("postroom_") && word(metric.name), "{}", metric.name);
        assert!(metric.labels.iter().all(|label| word(label)), "{}", metric.name);
        assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
        if metric.kind == Kind::Histogram || metric.name.contains("_timestamp") {
            assert!(metric.name.ends_with("_seconds"), "{}", metric.name);
        }
        assert!(!metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
        names.push(metric.name);
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "a name stands twice");
}

/// The table of the manual, from the inventory.
fn table() -> String {
    let mut table = "| metric | kind | labels | of | what |\n|---|---|---|---|---|\n".to_owned();
    for metric in ALL.iter().map(|listed| listed.metric()) {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        table += &format!(
            "| `{}` | {} | {} | {} | {} |\n",
            metric.name,
            metric.kind.name(),
            labels.join(", "),
            metric.process.name(),
            metric.help
        );
    }
    table
}

#[test]
fn the_manual_has_the_inventory() {
    let path = root().join("docs/monitoring.md");
    let manual = fs::read_to_string(&path).unwrap();
    let begin = manual.find("| metric | kind |").expect("the manual has no table of metrics");
    let end = manual[begin..].find("\n\n").map_or(manual.len(), |at| begin + at + 1);
    if manual[begin..end] == table() {
        return;
    }
    if std::env::var_os("POSTROOM_WRITE_MANUAL").is_some() {
        fs::write(&path, format!("{}{}{}", &manual[..begin], table(), &manual[end..])).unwrap();
        return;
    }
    panic!(
        "docs/monitoring.md has another table; run this test with POSTROOM_WRITE_MANUAL=1, and look at what it wrote"
    );
}

// Values belong to the process, so each test has metrics of its own.

#[test]
fn what_was_set_is_rendered_and_what_is_gone_is_not() {
    HELD.set(&[], 3.0);
    SIGN_INS.count(&["refused", "AADSTS50126"]);
    SIGN_INS.add(&["refused", "AADSTS50126"], 2);
    REPORT_TIME.observe(&[], Duration::from_millis(3));
    let one = |name: &str| [name.to_owned(), "INBOX".into(), "core1".into(), "Bil\"ling\n".into()];
    MAILBOX_LAG.replace([(one("a@x.example"), 1.5), (one("b@x.example"), 2.0)]);
    MAILBOX_LAG.replace([(one("a@x.example"), 1.0)]);
    let text = render();
    for line in [
        "# TYPE postroom_worker_mailboxes_held gauge",
        "postroom_worker_mailboxes_held 3.0",
        "# TYPE postroom_sign_ins counter",
        "postroom_sign_ins_total{outcome=\"refused\",code=\"AADSTS50126\"} 3",
        "postroom_report_seconds_bucket{le=\"0.0025\"} 0",
        "postroom_report_seconds_bucket{le=\"0.005\"} 1",
        "postroom_report_seconds_count 1",
        "postroom_mailbox_delivery_lag_seconds{mailbox=\"a@x.example\",folder=\"INBOX\",instance=\"core1\",queue=\"Bil\\\"ling\\n\"} 1.0",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    assert!(!text.contains("b@x.example"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn nobody_is_held_up_by_another_metric() {
    // A poisoned value is still a value.
    let _ = std::panic::catch_unwind(|| {
        let _held = DISK_SIZE.lock();
        panic!("while it is held");
    });
    DISK_SIZE.set(&[], 7.0);
    assert!(render().contains("postroom_data_size_bytes 7.0"));
}

/// Names that begin with `postroom_` in a text, each with the names in the braces behind it.
fn mentioned(text: &str) -> Vec<(String, Vec<String>)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("postroom_") {
        let begin = &rest[at..];
        let end = begin.find(|c| !word(c)).unwrap_or(begin.len());
        let (name, behind) = begin.split_at(end);
        let braces = behind.strip_prefix('{').and_then(|it| it.split_once('}')).map(|(inside, _)| inside);
        let labels = braces.unwrap_or_default().split(',').filter(|it| !it.trim().is_empty());
        let label = |it: &str| it.trim().chars().take_while(|c| word(*c)).collect();
        found.push((name.to_owned(), labels.map(label).collect()));
        rest = behind;
    }
    found
}

fn metric_named(name: &str) -> Option<&'static Metric> {
    let is = |metric: &Metric| {
        let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| name.strip_suffix(part));
        metric.name == name || (metric.kind == Kind::Histogram && parts.into_iter().any(|it| it == metric.name))
    };
    ALL.iter().map(|listed| listed.metric()).find(|metric| is(metric))
}

#[test]
fn alerts_and_dashboards_know_only_metrics_and_labels_that_there_are() {
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join("deploy/grafana")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    files.extend(["alerts.yaml", "alerts.test.yaml"].map(|name| root().join("deploy/prometheus").join(name)));
    let mut seen = 0;
    for file in files {
        // What may be said of the values of the expression before.
        let mut allowed: Vec<&str> = Vec::new();
        for (line, text) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let place = || format!("{}:{}: {text}", file.display(), line + 1);
            let metrics = mentioned(text);
            if text.contains("expr") && text.contains(':') {
                allowed = vec!["instance", "job", "le"];
            }
            for (name, labels) in metrics {
                let metric = metric_named(&name).unwrap_or_else(|| panic!("no metric has this name: {}", place()));
                seen += 1;
                allowed.extend(metric.labels);
                // The test file makes up what is needed, under `instance` among others.
                let known = |label: &String| metric.labels.contains(&label.as_str()) || label == "instance";
                assert!(labels.iter().all(known), "{name} has other labels: {}", place());
            }
            let told = text.split("$labels.").skip(1).chain(text.split("{{").skip(1).filter(|it| !it.contains('$')));
            for label in
                told.map(|it| it.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>())
            {
                assert!(allowed.contains(&label.as_str()), "{label} is no label of it: {}", place());
            }
            for label in text.split("by (").skip(1).filter_map(|it| it.split(')').next()).flat_map(|it| it.split(',')) {
                assert!(
                    allowed.contains(&label.trim()) || label == "alertname",
                    "{label} is no label of it: {}",
                    place()
                );
            }
        }
    }
    assert!(seen > 60, "only {seen} metrics were found");
}
