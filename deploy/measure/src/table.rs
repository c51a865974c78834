//! What is printed: the result to standard output, all else to standard error.

use std::io::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use crate::control_plane::Store;
use crate::figures::{Lap, Series, Spread};
use crate::fleet;
use crate::idle;
use crate::large;
use crate::latency;
use crate::model;
use crate::reading::{BARE, IMAPFLOW, MBSYNC, Measured};

/// Writes a result to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Tells how it goes.
pub(crate) fn note(text: &str) {
    // Nothing is left to tell it to when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The figures for people.
pub(crate) fn render(measured: &Measured) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "client",
        "seconds",
        "messages/s",
        "client CPU s",
        "peak RSS MB",
        "× bare",
        "× mbsync",
        "× imapflow",
    ]);
    let find = |name: &str| measured.clients.iter().find(|series| series.client == name);
    for series in &measured.clients {
        let against = |other: Option<&Series>| match other {
            Some(other) => spread(series.speed_against(other), 2),
            None => "-".to_owned(),
        };
        table.add_row([
            series.client.to_owned(),
            spread(series.spread(|lap| lap.seconds), 2),
            format!("{:.0}", series.spread(Lap::rate).median),
            format!("{:.2}", series.spread(|lap| lap.usage.cpu_seconds).median),
            format!("{:.0}", series.spread(|lap| lap.usage.peak_rss_bytes as f64 / 1e6).median),
            against(find(BARE)),
            against(find(MBSYNC)),
            against(find(IMAPFLOW)),
        ]);
    }
    right(&mut table);
    let load: Vec<String> = measured.load.iter().map(|load| format!("{load:.1}")).collect();
    format!(
        "{} messages, {:.1} MB, in {} mailboxes, TLS, a connection each; {} runs, in turns.\n\
         Median (least–most); × is messages/s against that client in the same run.\n\n{table}\n\n\
         {} cores, {}; files on {}; load {}\nDovecot {}; {}\n",
        measured.messages,
        measured.bytes as f64 / 1e6,
        measured.mailboxes,
        measured.runs,
        measured.machine.cores,
        measured.machine.processor,
        measured.machine.file_system,
        load.join(" "),
        measured.dovecot,
        measured.mbsync,
    )
}

/// The figures of idle mailboxes for people.
pub(crate) fn render_idle(measured: &idle::Measured) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["client", "mailboxes", "MB", "KB a mailbox"]);
    let scaled =
        |value: Spread, by: f64| Spread { median: value.median / by, min: value.min / by, max: value.max / by };
    for client in &measured.clients {
        table.add_row([client.client.to_owned(), "0".into(), spread(scaled(client.base_bytes, 1e6), 1), "-".into()]);
        for step in &client.steps {
            table.add_row([
                client.client.to_owned(),
                step.mailboxes.to_string(),
                spread(scaled(step.bytes, 1e6), 1),
                spread(scaled(step.mailbox_bytes, 1e3), 1),
            ]);
        }
    }
    right(&mut table);
    format!(
        "Idle mailboxes, IMAP IDLE over TLS, a connection each; memory (PSS) of the client; {} runs, median (least–most).\n\n\
         {table}\n\n{} cores, {}\nDovecot {}\n",
        measured.runs, measured.machine.cores, measured.machine.processor, measured.dovecot,
    )
}

/// The figures of large messages for people.
pub(crate) fn render_large(measured: &large::Measured) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["client", "seconds", "MB/s", "CPU s", "peak RSS MB"]);
    for series in &measured.clients {
        let rate = |lap: &Lap| measured.bytes as f64 / 1e6 / lap.seconds;
        table.add_row([
            series.client.to_owned(),
            spread(series.spread(|lap| lap.seconds), 2),
            spread(series.spread(rate), 0),
            format!("{:.2}", series.spread(|lap| lap.usage.cpu_seconds).median),
            spread(series.spread(|lap| lap.usage.peak_rss_bytes as f64 / 1e6), 0),
        ]);
    }
    right(&mut table);
    let load: Vec<String> = measured.load.iter().map(|load| format!("{load:.1}")).collect();
    format!(
        "{} messages of {:.0} MB in {} mailboxes at once, TLS; {} runs, in turns, median (least–most).\n\n{table}\n\n\
         The worker's byte budget is {:.0} MB; without mail it has {:.0} MB, so that at most {:.0} MB are there for it.\n\n\
         {} cores, {}; files on {}; load {}\nDovecot {}; {}\n",
        measured.messages,
        measured.bytes as f64 / 1e6 / measured.messages as f64,
        measured.mailboxes,
        measured.runs,
        measured.budget_bytes as f64 / 1e6,
        measured.base_bytes as f64 / 1e6,
        measured.worker_peak().saturating_sub(measured.base_bytes) as f64 / 1e6,
        measured.machine.cores,
        measured.machine.processor,
        measured.machine.file_system,
        load.join(" "),
        measured.dovecot,
        measured.mbsync,
    )
}

/// The figures of the way from delivery to contact for people.
pub(crate) fn render_latency(measured: &latency::Measured) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["from", "to", "p50 ms", "p90 ms", "p99 ms", "most ms"]);
    for (from, to, values) in [
        ("delivery", "a bare client's EXISTS", &measured.bare),
        ("delivery", "contact taken", &measured.contact),
        ("that EXISTS", "contact taken", &measured.behind),
    ] {
        let at = |share: f64| {
            let place = (share * (values.len().saturating_sub(1)) as f64).round() as usize;
            format!("{:.1}", values.get(place).copied().unwrap_or(f64::NAN))
        };
        table.add_row([from.to_owned(), to.to_owned(), at(0.5), at(0.9), at(0.99), at(1.0)]);
    }
    right(&mut table);
    format!(
        "{} deliveries, one after the other, with {} idle mailboxes.\n\n{table}\n\n{} cores, {}\nDovecot {}\n",
        measured.bare.len(),
        measured.mailboxes,
        measured.machine.cores,
        measured.machine.processor,
        measured.dovecot,
    )
}

/// The figures of a fleet for people.
pub(crate) fn render_fleet(measured: &fleet::Measured) -> String {
    let fleet::Measured { cold, steady, death, join, restart, .. } = measured;
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["what", "seconds", "control plane CPU s", "mailboxes moved"]);
    let seconds = |value: f64| format!("{value:.2}");
    table.add_row([
        format!("model applied, {} requests", measured.apply_requests),
        seconds(measured.apply_seconds),
        "-".into(),
        "-".into(),
    ]);
    table.add_row(["all workers start: every mailbox held".into(), seconds(cold.held_seconds), "-".into(), "-".into()]);
    table.add_row([
        "all workers start: every mailbox opened".into(),
        seconds(cold.opened_seconds),
        seconds(cold.cpu_seconds),
        "-".into(),
    ]);
    for (what, change) in [
        (format!("a worker with {} mailboxes dies", death.due), death),
        ("a worker joins".into(), join),
        ("all workers restarted, names kept".into(), restart),
    ] {
        table.add_row([what, seconds(change.seconds), seconds(change.cpu_seconds), change.moves.to_string()]);
    }
    right(&mut table);
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    format!(
        "{} mailboxes, {} workers, a heartbeat every {} s, store in {}.\n\n{table}\n\n\
         Calm, over {:.0} s: control plane {:.1} % of a core, {:.0} MB resident (at most {:.0} MB in the whole run);\n\
         {:.1} heartbeats/s, {:.0} kB/s up, {:.0} kB/s down, {} not answered in time.\n\
         Mailboxes that two workers held at once: {}.\n\n\
         {} cores, {}; files on {}; load {:.1} before, {:.1} after\n",
        measured.mailboxes,
        measured.workers,
        measured.heartbeat_seconds,
        store(measured.store),
        steady.seconds,
        steady.cpu_share * 100.0,
        megabytes(steady.rss_bytes),
        megabytes(measured.peak_rss_bytes),
        steady.heartbeats_per_second,
        steady.bytes_up_per_second / 1e3,
        steady.bytes_down_per_second / 1e3,
        steady.abandoned,
        measured.overlaps,
        measured.machine.cores,
        measured.machine.processor,
        measured.machine.file_system,
        measured.load[0],
        measured.load[1],
    )
}

/// The figures of a large model for people.
pub(crate) fn render_model(measured: &model::Measured) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["what", "seconds", "CPU s", "peak MB", "printed MB", "control plane CPU s", "its peak MB"]);
    let seconds = |value: f64| format!("{value:.2}");
    let megabytes = |bytes: u64| format!("{:.0}", bytes as f64 / 1e6);
    for step in &measured.steps {
        table.add_row([
            step.what.to_owned(),
            seconds(step.seconds),
            step.client.map_or("-".into(), |client| seconds(client.cpu_seconds)),
            step.client.map_or("-".into(), |client| megabytes(client.peak_rss_bytes)),
            step.client.map_or("-".into(), |_| format!("{:.1}", step.output_bytes as f64 / 1e6)),
            seconds(step.control_plane.cpu_seconds),
            megabytes(step.control_plane.peak_rss_bytes),
        ]);
    }
    right(&mut table);
    format!(
        "{} addresses in {} queues, a file of {:.1} MB, store in {}.\n\n{table}\n\n\
         {} cores, {}; files on {}; load {:.1} before, {:.1} after\n",
        measured.addresses,
        measured.queues,
        measured.file_bytes as f64 / 1e6,
        store(measured.store),
        measured.machine.cores,
        measured.machine.processor,
        measured.machine.file_system,
        measured.load[0],
        measured.load[1],
    )
}

/// Figures stand at the right.
fn right(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn store(store: Store) -> &'static str {
    match store {
        Store::Sqlite => "SQLite",
        Store::Etcd => "etcd",
    }
}

fn spread(spread: Spread, digits: usize) -> String {
    let Spread { median, min, max } = spread;
    format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
}
