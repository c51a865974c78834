//! How `top` looks. Colours only repeat what the words say.

use jiff::Timestamp;
use postroom_proto::convert::{from_duration, from_timestamp};
use postroom_proto::v1::{self, WorkerState};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

use super::state::{Tab, View, trouble};
use crate::render::{text, time, words};

/// Lines around the rows.
pub(super) const AROUND: usize = 7;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, now: Timestamp, color: bool) {
    let [head, tabs, table, keys] =
        Layout::vertical([Constraint::Length(4), Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(Paragraph::new(summary(view, now, color)), head);
    frame.render_widget(Paragraph::new(tabs_line(view)), tabs);
    let mut state = TableState::default().with_selected(Some(view.at));
    let shown = match view.tab {
        Tab::Mailboxes => mailboxes(view, now, color),
        Tab::Workers => workers(view, now, color),
        Tab::Queues => queues(view, now),
    };
    frame.render_stateful_widget(
        shown.row_highlight_style(Style::new().add_modifier(Modifier::REVERSED)),
        table,
        &mut state,
    );
    frame.render_widget(Paragraph::new(keys_line(view)), keys);
}

fn summary(view: &View, now: Timestamp, color: bool) -> Vec<Line<'static>> {
    let status = &view.seen().status;
    let count = |counts: Vec<String>| if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
    let mailboxes = status.mailboxes.iter().map(|it| format!("{} {}", words::mailbox_state(it.state), it.count));
    let waiting: u64 = status.queues.iter().map(|it| it.waiting_count).sum();
    let up = time::time_and_age(status.start_time.as_ref(), now);
    let concern = match status.concerns.as_slice() {
        [] => Line::styled("nothing needs somebody", tone(color, Color::Green)),
        [first, rest @ ..] => {
            let more =
                if rest.is_empty() { String::new() } else { format!(" (and {} more: postroom status)", rest.len()) };
            let what = format!("{} {}: {}{more}", first.code, first.subject, first.cause);
            Line::styled(text::line(&what), tone(color, Color::Red))
        }
    };
    let state = match &view.failed {
        Some(why) => Line::styled(
            format!("not read for {} s: {}", view.age().as_secs(), text::line(why)),
            tone(color, Color::Red),
        ),
        None => concern,
    };
    vec![
        Line::from(format!("postroom {} at {}, up since {up}", status.version, view.endpoint)),
        Line::from(format!(
            "mailboxes: {}; contacts waiting: {waiting}; workers: {}; ledger: {}",
            count(mailboxes.collect()),
            view.seen().workers.iter().filter(|it| it.state() == WorkerState::Live).count(),
            time::size(status.ledger_bytes)
        )),
        state,
    ]
}

fn tabs_line(view: &View) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, tab) in (1..).zip(Tab::ALL) {
        let style = if tab == view.tab { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        let name =
            if tab == view.tab { format!("[{number} {}]", tab.name()) } else { format!(" {number} {} ", tab.name()) };
        spans.push(Span::styled(name, style));
        spans.push(Span::raw(" "));
    }
    if view.tab == Tab::Mailboxes {
        spans.push(Span::raw(format!(
            "sorted by {}{}",
            view.sort.name(),
            if view.reversed { ", reversed" } else { "" }
        )));
    }
    if !view.filter.is_empty() || view.typing {
        spans.push(Span::raw(format!("  filter: {}{}", text::line(&view.filter), if view.typing { "_" } else { "" })));
    }
    Line::from(spans)
}

fn keys_line(view: &View) -> &'static str {
    if view.typing {
        "type to filter; Enter keeps it, Esc drops it"
    } else {
        "q quit  Tab 1 2 3 lists  s sort  r reverse  / filter  arrows move"
    }
}

fn mailboxes<'v>(view: &'v View, now: Timestamp, color: bool) -> Table<'v> {
    let row = |it: &&v1::Mailbox| {
        let style = match trouble(it) {
            0 => tone(color, Color::Red),
            1 | 2 => tone(color, Color::Yellow),
            _ => Style::new(),
        };
        let lag = it
            .delivery_lag
            .as_ref()
            .and_then(from_duration)
            .map_or("-".into(), |lag| format!("{:.1}s", lag.as_secs_f64()));
        let holder = it
            .holder
            .as_ref()
            .map_or_else(|| words::unassigned_reason(it.unassigned_reason), |holder| holder.worker.clone());
        cells([
            it.email.clone(),
            it.queue.clone(),
            words::mailbox_state(it.state),
            age(it.since_time.as_ref(), now),
            age(it.proof_time.as_ref(), now),
            age(it.unfetched_time.as_ref(), now),
            lag,
            it.contact_count.to_string(),
            holder,
            it.problem.as_ref().map(|problem| problem.code.clone()).unwrap_or_default(),
        ])
        .style(style)
    };
    table(
        ["MAILBOX", "QUEUE", "STATE", "SINCE", "SEEN", "OLDEST", "LAG", "CONTACTS", "WORKER", "PROBLEM"],
        [28, 16, 11, 7, 7, 7, 8, 8, 14, 16],
        view.mailboxes().iter().map(row),
    )
}

fn workers<'v>(view: &'v View, now: Timestamp, color: bool) -> Table<'v> {
    let row = |it: &&v1::Worker| {
        let style = match it.state() {
            WorkerState::Live => Style::new(),
            _ => tone(color, Color::Yellow),
        };
        let capacity = if it.capacity == 0 { "-".into() } else { it.capacity.to_string() };
        let told = if it.drained { "drained".into() } else { it.stands_in_for.join(", ") };
        cells([
            it.name.clone(),
            it.pool.clone(),
            words::worker_role(it.role),
            words::worker_state(it.state),
            it.mailbox_count.to_string(),
            it.held_count.to_string(),
            capacity,
            age(it.heartbeat_time.as_ref(), now),
            age(it.start_time.as_ref(), now),
            told,
        ])
        .style(style)
    };
    table(
        ["WORKER", "POOL", "ROLE", "STATE", "MAILBOXES", "HELD", "CAPACITY", "HEARD", "SINCE", "STANDS IN FOR"],
        [24, 14, 8, 10, 9, 8, 8, 8, 8, 20],
        view.workers().iter().map(row),
    )
}

fn queues<'v>(view: &'v View, now: Timestamp) -> Table<'v> {
    let row = |it: &&v1::QueueStatus| {
        let waiting = if it.waiting_count >= 10_000 { "10000+".into() } else { it.waiting_count.to_string() };
        cells([it.queue.clone(), it.instance.clone(), waiting, age(it.oldest_time.as_ref(), now)])
    };
    table(["QUEUE", "INSTANCE", "WAITING", "LONGEST"], [32, 24, 10, 10], view.queues().iter().map(row))
}

fn cells<const N: usize>(texts: [String; N]) -> Row<'static> {
    Row::new(texts.map(|it| Cell::from(text::line(&it))))
}

fn table<'v, const N: usize>(
    header: [&'static str; N],
    widths: [u16; N],
    rows: impl Iterator<Item = Row<'v>>,
) -> Table<'v> {
    let header = Row::new(header.map(Cell::from)).style(Style::new().add_modifier(Modifier::BOLD));
    // What is long gets what is left.
    let mut widths = widths.map(Constraint::Length);
    if let Some(first) = widths.first_mut() {
        let Constraint::Length(least) = *first else { return Table::default() };
        *first = Constraint::Min(least);
    }
    Table::new(rows, widths).header(header).column_spacing(1)
}

/// How long ago, without the word.
fn age(value: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    let time = value.and_then(|time| Timestamp::from_microsecond(from_timestamp(time)).ok());
    time.map_or_else(|| "-".into(), |it| time::age(it.min(now), now).trim_end_matches(" ago").to_owned())
}

fn tone(color: bool, is: Color) -> Style {
    if color { Style::new().fg(is) } else { Style::new() }
}
