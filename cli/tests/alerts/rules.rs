//! The rules as they are delivered, and with times that a test can wait for.

use std::path::{Path, PathBuf};

use postroom_testbed::prometheus::promtool;

/// The folder with the rules.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus")
}

/// The rules, but an alert is one after a second, a mailbox may be silent for half a minute, and mail may lie for eight
/// seconds.
pub(crate) fn quick() -> String {
    let rules = std::fs::read_to_string(folder().join("alerts.yaml")).unwrap();
    let times = [
        ("timestamp_seconds > 900", "timestamp_seconds > 30"),
        ("unfetched_timestamp_seconds > 600", "unfetched_timestamp_seconds > 8"),
    ];
    let rules = times.into_iter().fold(rules, |rules, (usual, quick)| {
        assert!(rules.contains(usual), "no alert has {usual}");
        rules.replace(usual, quick)
    });
    // What looks ahead, or waits for longer, is not hurried: a few seconds tell it nothing.
    let quick = |line: &str| if line.trim() == "for: 1m" { line.replace("1m", "1s") } else { line.to_owned() };
    rules.lines().map(quick).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_alert_fires_for_what_it_is_meant_for_and_for_nothing_else() {
    promtool(&["check", "rules", "alerts.yaml"], &folder()).unwrap();
    promtool(&["test", "rules", "alerts.test.yaml"], &folder()).unwrap();
    promtool(&["check", "config", "prometheus.yaml"], &folder()).unwrap();
    // Each is in that test.
    let tested = std::fs::read_to_string(folder().join("alerts.test.yaml")).unwrap();
    let rules = std::fs::read_to_string(folder().join("alerts.yaml")).unwrap();
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    for name in names {
        assert!(tested.contains(&format!("alertname=\"{name}\"")), "nobody tests {name}");
        let manual = std::fs::read_to_string(folder().join("../../docs/monitoring.md")).unwrap();
        assert!(manual.contains(&format!("`{name}`")), "the manual says nothing of {name}");
    }
}
