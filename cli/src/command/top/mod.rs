//! `top`: mailboxes, workers and queues, live.
//!
//! [`state`] is what is shown and what keys do to it, [`view`] draws it; both are pure. Here is the shell: it asks, listens
//! to the keyboard, and gives the terminal back as it was.

use std::convert::Infallible;
use std::time::Duration;

use jiff::Timestamp;
use postroom_proto::convert::from_timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use state::{Seen, Step, View};

use super::{Output, Session};
use crate::args::Top;
use crate::client::Client;
use crate::error::{Error, Kind};
use crate::render::style;

mod state;
mod view;

/// How long it is listened to the keyboard at a time.
const LISTEN: Duration = Duration::from_millis(100);
/// Longest time for one look.
const LOOK: Duration = Duration::from_secs(60);
/// A look takes at most this part of the time: one in so many.
const SHARE: u32 = 4;
/// Most columns of a frame that no terminal shows: with the longest names of all.
const COLUMNS: usize = 1000;
/// Most lines of one.
const LINES: usize = 1000;

/// Whoever holds it has the terminal for a screen. When it goes, by whatever way, the terminal is the person's again.
struct Screen;

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

pub(super) async fn run(session: &mut Session<'_, '_>, args: &Top) -> Result<(), Error> {
    if session.output != Output::Table {
        let help =
            "leave out -o; `postroom status -o json`, `mailbox list` and `worker list` tell the same to programs";
        return Err(Error::new(Kind::Usage, "this command draws a screen and knows neither json nor yaml").help(help));
    }
    let client = session.client()?;
    let mut view = View::new(client.endpoint(), args.sort, args.filter.clone().unwrap_or_default());
    if args.once {
        view.see(Ok(look(&client).await?));
        let frame = frame(&mut view, session.now(), style::width())?;
        return session.write(frame.as_bytes());
    }
    if !session.streams.terminal.out {
        let help = "say --once for one look, or see `postroom status`";
        return Err(Error::new(Kind::Usage, "this is no terminal, so nothing can be shown live").help(help));
    }
    // Ordering: before the screen is taken, so that a refusal is seen.
    view.see(Ok(look(&client).await?));
    // Ordering: first, for the screen may be taken by halves; it gives back what is not taken, too.
    let _screen = Screen;
    let terminal = ratatui::try_init()?;
    live(terminal, &client, &mut view, args.interval).await
}

/// Everything that is shown.
async fn look(client: &Client) -> Result<Seen, Error> {
    let asked = async {
        let (status, mailboxes) = tokio::try_join!(client.get_status(), client.list_mailboxes())?;
        // Only the leader knows the workers; without one the rest is worth seeing all the more.
        let workers = client.list_workers().await.map(|answer| answer.workers).unwrap_or_default();
        Ok::<_, crate::client::Error>(Seen { status, mailboxes: mailboxes.mailboxes, workers })
    };
    match timeout(LOOK, asked).await {
        Ok(seen) => Ok(seen?),
        Err(_) => Err(Error::new(Kind::TimedOut, format!("no answer within {} s", LOOK.as_secs()))),
    }
}

async fn live(
    mut terminal: ratatui::DefaultTerminal,
    client: &Client,
    view: &mut View,
    interval: Duration,
) -> Result<(), Error> {
    let mut looking = Box::pin(later(client, interval));
    let mut pressed = spawn_blocking(next_event);
    loop {
        terminal.draw(|frame| view::draw(frame, view, clock(view), style::has_color()))?;
        tokio::select! {
            seen = &mut looking => {
                let (seen, took) = seen;
                view.see(seen.map_err(|error| error.to_string()));
                looking = Box::pin(later(client, interval.max(took * SHARE)));
            }
            event = &mut pressed => {
                pressed = spawn_blocking(next_event);
                match event {
                    Ok(Ok(Some(Event::Key(key)))) if key.kind != KeyEventKind::Release => {
                        if view.press(key) == Step::Quit {
                            return Ok(());
                        }
                    }
                    // Another size, or nothing at all: drawn anew.
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Err(error.into()),
                    Err(_) => return Err(Error::new(Kind::Internal, "the keyboard cannot be read")),
                }
            }
        }
    }
}

/// A look after a pause, and how long it took.
async fn later(client: &Client, pause: Duration) -> (Result<Seen, Error>, Duration) {
    sleep(pause).await;
    let begun = Instant::now();
    (look(client).await, begun.elapsed())
}

/// What was pressed meanwhile, if anything.
fn next_event() -> std::io::Result<Option<Event>> {
    if event::poll(LISTEN)? { event::read().map(Some) } else { Ok(None) }
}

/// The time that ages are told by: that of the control plane, moved on by what has passed here.
fn clock(view: &View) -> Timestamp {
    let read = view.seen().status.read_time.as_ref();
    let read = read.and_then(|time| Timestamp::from_microsecond(from_timestamp(time)).ok());
    let passed = i64::try_from(view.age().as_secs()).unwrap_or(0);
    read.unwrap_or_else(Timestamp::now).checked_add(jiff::SignedDuration::from_secs(passed)).unwrap_or(Timestamp::MAX)
}

/// One frame with all rows, as text. Without a terminal, whose columns are told, nothing is cut but rows beyond the first
/// thousand, and that is said.
fn frame(view: &mut View, now: Timestamp, columns: Option<u16>) -> Result<String, Error> {
    let read = view.seen().status.read_time.as_ref();
    let now = read.and_then(|time| Timestamp::from_microsecond(from_timestamp(time)).ok()).unwrap_or(now);
    view.whole = columns.is_none();
    let columns = columns.unwrap_or_else(|| u16::try_from(view::columns(view, now).min(COLUMNS)).unwrap_or(u16::MAX));
    let lines = (view.rows() + view::AROUND).min(LINES);
    let backend = TestBackend::new(columns, u16::try_from(lines).unwrap_or(u16::MAX));
    let mut terminal = Terminal::new(backend).map_err(never)?;
    terminal.draw(|frame| view::draw(frame, view, now, false)).map_err(never)?;
    let buffer = terminal.backend().buffer();
    let line = |row: u16| {
        let text: String = (0..columns).map(|column| buffer[(column, row)].symbol()).collect();
        text.trim_end().to_owned() + "\n"
    };
    let mut text: String = (0..buffer.area.height).map(line).collect();
    let hidden = (view.rows() + view::AROUND).saturating_sub(lines);
    if hidden > 0 {
        text += &format!("{hidden} more rows are not shown: see `postroom mailbox list`\n");
    }
    Ok(text)
}

fn never(never: Infallible) -> Error {
    match never {}
}

#[cfg(test)]
mod tests;
