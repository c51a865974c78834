//! How `top` looks. Colours only repeat what the words say.

use jiff::Timestamp;
use postroom_proto::convert::{from_duration, from_timestamp};
use postroom_proto::v1::{self, ContactState, WorkerState};
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
    frame.render_stateful_widget(
        list(view, now, color).table.row_highlight_style(Style::new().add_modifier(Modifier::REVERSED)),
        table,
        &mut state,
    );
    frame.render_widget(Paragraph::new(keys_line(view)), keys);
}

/// Columns in which nothing is cut, if the view is whole.
pub(super) fn columns(view: &View, now: Timestamp) -> usize {
    let lines = summary(view, now, false).iter().map(Line::width).max().unwrap_or(0);
    lines.max(tabs_line(view).width()).max(keys_line(view).len()).max(list(view, now, false).columns)
}

/// Rows of cells under a header.
struct List {
    table: Table<'static>,
    /// Columns in which no cell is cut.
    columns: usize,
}

fn list(view: &View, now: Timestamp, color: bool) -> List {
    match view.tab {
        Tab::Mailboxes => mailboxes(view, now, color),
        Tab::Workers => workers(view, now, color),
        Tab::Queues => queues(view, now),
    }
}

fn summary(view: &View, now: Timestamp, color: bool) -> Vec<Line<'static>> {
    let status = &view.seen().status;
    let count = |counts: Vec<String>| if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
    let mailboxes = status.mailboxes.iter().map(|it| format!("{} {}", words::mailbox_state(it.state), it.count));
    // Not the sum of the queues, of which each is counted up to a bound.
    let tallies = status.instances.iter().flat_map(|it| &it.contacts);
    let waiting: u64 = tallies.filter(|it| it.state() == ContactState::Queued).map(|it| it.count).sum();
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

fn mailboxes(view: &View, now: Timestamp, color: bool) -> List {
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
        let cells = [
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
        ];
        (cells, style)
    };
    rows(
        ["MAILBOX", "QUEUE", "STATE", "SINCE", "SEEN", "OLDEST", "LAG", "CONTACTS", "WORKER", "PROBLEM"],
        [28, 16, 11, 7, 7, 7, 8, 8, 14, 16],
        view.mailboxes().iter().map(row),
        view.whole,
    )
}

fn workers(view: &View, now: Timestamp, color: bool) -> List {
    let row = |it: &&v1::Worker| {
        let style = match it.state() {
            WorkerState::Live => Style::new(),
            _ => tone(color, Color::Yellow),
        };
        let capacity = if it.capacity == 0 { "-".into() } else { it.capacity.to_string() };
        let told = if it.drained { "drained".into() } else { it.stands_in_for.join(", ") };
        let cells = [
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
        ];
        (cells, style)
    };
    rows(
        ["WORKER", "POOL", "ROLE", "STATE", "MAILBOXES", "HELD", "CAPACITY", "HEARD", "SINCE", "STANDS IN FOR"],
        [24, 14, 8, 10, 9, 8, 8, 8, 8, 20],
        view.workers().iter().map(row),
        view.whole,
    )
}

fn queues(view: &View, now: Timestamp) -> List {
    let row = |it: &&v1::QueueStatus| {
        let waiting = if it.waiting_count >= 10_000 { "10000+".into() } else { it.waiting_count.to_string() };
        let cells = [it.queue.clone(), it.instance.clone(), waiting, age(it.oldest_time.as_ref(), now)];
        (cells, Style::new())
    };
    rows(["QUEUE", "INSTANCE", "WAITING", "LONGEST"], [32, 24, 10, 10], view.queues().iter().map(row), view.whole)
}

/// Rows in columns of these widths, of which the first gets what is left; if the list is to be whole, in as wide ones as
/// the longest cell wants.
fn rows<const N: usize>(
    header: [&'static str; N],
    mut widths: [u16; N],
    rows: impl Iterator<Item = ([String; N], Style)>,
    whole: bool,
) -> List {
    let rows: Vec<([String; N], Style)> =
        rows.map(|(cells, style)| (cells.map(|cell| text::line(&cell)), style)).collect();
    if whole {
        for (cells, _) in &rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(u16::try_from(Span::raw(cell.as_str()).width()).unwrap_or(u16::MAX));
            }
        }
    }
    let columns = widths.iter().map(|width| usize::from(*width) + 1).sum::<usize>().saturating_sub(1);
    let mut constraints = widths.map(Constraint::Length);
    if let (false, [first, ..]) = (whole, constraints.as_mut_slice()) {
        *first = Constraint::Min(widths[0]);
    }
    let header = Row::new(header.map(Cell::from)).style(Style::new().add_modifier(Modifier::BOLD));
    let rows = rows.into_iter().map(|(cells, style)| Row::new(cells.map(Cell::from)).style(style));
    List { table: Table::new(rows, constraints).header(header).column_spacing(1), columns }
}

/// How long ago, without the word.
fn age(value: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    let time = value.and_then(|time| Timestamp::from_microsecond(from_timestamp(time)).ok());
    time.map_or_else(|| "-".into(), |it| time::age(it.min(now), now).trim_end_matches(" ago").to_owned())
}

fn tone(color: bool, is: Color) -> Style {
    if color { Style::new().fg(is) } else { Style::new() }
}
