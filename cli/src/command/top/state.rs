//! What `top` shows, in which order, and what keys do. Pure.

use std::cmp::Reverse;
use std::time::Duration;

use postroom_proto::convert::{from_duration, from_timestamp};
use postroom_proto::v1::{self, MailboxState, ProblemKind};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tokio::time::Instant;

use crate::args::Sort;

/// One look at the installation.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) status: v1::Status,
    pub(super) mailboxes: Vec<v1::Mailbox>,
    pub(super) workers: Vec<v1::Worker>,
}

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Mailboxes,
    Workers,
    Queues,
}

impl Tab {
    pub(super) const ALL: [Self; 3] = [Self::Mailboxes, Self::Workers, Self::Queues];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mailboxes => "mailboxes",
            Self::Workers => "workers",
            Self::Queues => "queues",
        }
    }
}

/// What follows from a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    Quit,
}

/// What is on the screen.
#[derive(Debug)]
pub(super) struct View {
    pub(super) endpoint: String,
    pub(super) tab: Tab,
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) typing: bool,
    /// The row that is marked.
    pub(super) at: usize,
    /// Nothing of a cell is cut, however wide that gets.
    pub(super) whole: bool,
    /// Why the last look failed.
    pub(super) failed: Option<String>,
    seen: Seen,
    looked: Instant,
}

impl View {
    pub(super) fn new(endpoint: &str, sort: Sort, filter: String) -> Self {
        Self {
            endpoint: endpoint.into(),
            tab: Tab::Mailboxes,
            sort,
            reversed: false,
            filter,
            typing: false,
            at: 0,
            whole: false,
            failed: None,
            seen: Seen::default(),
            looked: Instant::now(),
        }
    }

    /// Takes in a look; after one that failed, what was seen before stays.
    pub(super) fn see(&mut self, looked: Result<Seen, String>) {
        match looked {
            Ok(seen) => {
                (self.seen, self.looked, self.failed) = (seen, Instant::now(), None);
            }
            Err(why) => self.failed = Some(why),
        }
        self.at = self.at.min(self.rows().saturating_sub(1));
    }

    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// How old what is seen is.
    pub(super) fn age(&self) -> Duration {
        self.looked.elapsed()
    }

    /// How many rows are listed.
    pub(super) fn rows(&self) -> usize {
        match self.tab {
            Tab::Mailboxes => self.mailboxes().len(),
            Tab::Workers => self.workers().len(),
            Tab::Queues => self.queues().len(),
        }
    }

    /// What a key does.
    pub(super) fn press(&mut self, key: KeyEvent) -> Step {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Step::Quit;
        }
        if self.typing {
            match key.code {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => (self.typing, self.filter) = (false, String::new()),
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(letter) => self.filter.push(letter),
                _ => {}
            }
            self.at = 0;
            return Step::Stay;
        }
        let last = self.rows().saturating_sub(1);
        match key.code {
            KeyCode::Char('q') => return Step::Quit,
            KeyCode::Esc if self.filter.is_empty() => return Step::Quit,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('s') => {
                let next = Sort::ALL.iter().position(|it| *it == self.sort).map_or(0, |at| at + 1);
                self.sort = Sort::ALL[next % Sort::ALL.len()];
            }
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char(digit @ '1'..='3') => self.turn_to(Tab::ALL[digit as usize - '1' as usize]),
            KeyCode::Tab => {
                let next = Tab::ALL.iter().position(|it| *it == self.tab).map_or(0, |at| at + 1);
                self.turn_to(Tab::ALL[next % Tab::ALL.len()]);
            }
            KeyCode::Down | KeyCode::Char('j') => self.at = (self.at + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.at = self.at.saturating_sub(1),
            KeyCode::PageDown => self.at = (self.at + 20).min(last),
            KeyCode::PageUp => self.at = self.at.saturating_sub(20),
            KeyCode::Home => self.at = 0,
            KeyCode::End => self.at = last,
            _ => {}
        }
        Step::Stay
    }

    fn turn_to(&mut self, tab: Tab) {
        (self.tab, self.at) = (tab, 0);
    }

    /// Mailboxes in their order, of those that pass the filter.
    pub(super) fn mailboxes(&self) -> Vec<&v1::Mailbox> {
        let passes = |it: &&v1::Mailbox| {
            let worker = it.holder.as_ref().map_or("", |holder| holder.worker.as_str());
            let code = it.problem.as_ref().map_or("", |problem| problem.code.as_str());
            self.passes(&[&it.email, &it.queue, &it.instance, worker, code, it.state().as_str_name()])
        };
        let mut all: Vec<&v1::Mailbox> = self.seen.mailboxes.iter().filter(passes).collect();
        let worker = |it: &v1::Mailbox| it.holder.as_ref().map(|holder| holder.worker.clone()).unwrap_or_default();
        let unfetched = |it: &v1::Mailbox| it.unfetched_time.as_ref().map_or(i64::MAX, from_timestamp);
        let lag = |it: &v1::Mailbox| it.delivery_lag.as_ref().and_then(from_duration).unwrap_or_default();
        match self.sort {
            Sort::Trouble => {
                all.sort_by_cached_key(|it| (trouble(it), unfetched(it), silent_since(it), it.email.clone()));
            }
            Sort::Email => all.sort_by_cached_key(|it| it.email.clone()),
            Sort::Queue => all.sort_by_cached_key(|it| (it.queue.clone(), it.email.clone())),
            Sort::Worker => all.sort_by_cached_key(|it| (worker(it), it.email.clone())),
            Sort::Seen => all.sort_by_cached_key(|it| (silent_since(it), it.email.clone())),
            Sort::Lag => all.sort_by_cached_key(|it| (unfetched(it), Reverse(lag(it)), it.email.clone())),
            Sort::Contacts => all.sort_by_cached_key(|it| (Reverse(it.contact_count), it.email.clone())),
        }
        self.turned(all)
    }

    /// Workers by name.
    pub(super) fn workers(&self) -> Vec<&v1::Worker> {
        let passes = |it: &&v1::Worker| self.passes(&[&it.name, &it.pool, it.state().as_str_name()]);
        self.turned(self.seen.workers.iter().filter(passes).collect())
    }

    /// Queues, those first that wait longest.
    pub(super) fn queues(&self) -> Vec<&v1::QueueStatus> {
        let passes = |it: &&v1::QueueStatus| self.passes(&[&it.queue, &it.instance]);
        let mut all: Vec<&v1::QueueStatus> = self.seen.status.queues.iter().filter(passes).collect();
        all.sort_by_key(|it| it.oldest_time.as_ref().map_or(i64::MAX, from_timestamp));
        self.turned(all)
    }

    fn turned<T>(&self, mut all: Vec<T>) -> Vec<T> {
        if self.reversed {
            all.reverse();
        }
        all
    }

    fn passes(&self, texts: &[&str]) -> bool {
        let wanted = self.filter.to_lowercase();
        wanted.is_empty() || texts.iter().any(|text| text.to_lowercase().contains(&wanted))
    }
}

/// 0: somebody has to do something; 3: it works.
pub(super) fn trouble(mailbox: &v1::Mailbox) -> u8 {
    let kind = mailbox.problem.as_ref().map(v1::Problem::kind);
    let passes =
        matches!(kind, None | Some(ProblemKind::Transient | ProblemKind::Throttled | ProblemKind::Unspecified));
    match mailbox.state() {
        MailboxState::Failing if !passes => 0,
        MailboxState::Failing | MailboxState::Unassigned => 1,
        MailboxState::Backlog => 2,
        _ => 3,
    }
}

/// When it was last seen to be read; never comes first.
fn silent_since(mailbox: &v1::Mailbox) -> i64 {
    mailbox.proof_time.as_ref().map_or(i64::MIN, from_timestamp)
}
