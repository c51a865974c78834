//! What people see while a command works: a line on standard error that is redrawn on a terminal, and a plain line now
//! and then elsewhere. Never on standard output, and nothing at all with `--quiet` or when the work is done at once.
//!
//! The only module that knows indicatif. A command wraps its work in [`Progress::during`] and tells what it has done by
//! [`Progress::at`]:
//!
//! ```ignore
//! let progress = session.progress("reading mailboxes");
//! let client = session.client()?.with_progress(&progress);
//! let all = progress.during(client.list_mailboxes()).await?;
//! ```

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Work that is done sooner shows nothing.
const BEFORE_FIRST: Duration = Duration::from_millis(400);
/// Between two drawings on a terminal.
const FRAME: Duration = Duration::from_millis(120);
/// Between two plain lines.
const LINE: Duration = Duration::from_secs(10);

/// Who sees the progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// A terminal: one line, redrawn.
    Redrawn,
    /// A log or a file: a line every ten seconds.
    Lines,
    /// Nobody.
    Nothing,
}

/// The progress of one piece of work. Clones are the same progress.
#[derive(Debug, Clone)]
pub struct Progress {
    shown: Shown,
    work: Arc<Work>,
}

#[derive(Debug)]
struct Work {
    what: String,
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Progress of `what`, for example "reading mailboxes".
    pub fn new(what: impl Into<String>, shown: Shown) -> Self {
        let work = Work { what: what.into(), done: AtomicU64::new(0), total: AtomicU64::new(0) };
        Self { shown, work: Arc::new(work) }
    }

    /// Progress that nobody sees.
    pub fn none() -> Self {
        Self::new("", Shown::Nothing)
    }

    /// Tells how much is done, and of how much where that is known (0: it is not).
    pub fn at(&self, done: u64, total: u64) {
        self.work.done.store(done, Ordering::Relaxed);
        self.work.total.store(total, Ordering::Relaxed);
    }

    /// Does the work and shows its progress meanwhile. When it ends, or is dropped by Ctrl-C, its line is gone.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let period = match self.shown {
            Shown::Nothing => return work.await,
            Shown::Lines => LINE,
            Shown::Redrawn => FRAME,
        };
        let first = if self.shown == Shown::Lines { LINE } else { BEFORE_FIRST };
        let mut ticks = interval_at(Instant::now() + first, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut bar = None;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = ticks.tick() => match self.shown {
                    Shown::Redrawn => bar.get_or_insert_with(|| Bar::new(&self.work.what)).draw(self),
                    _ => say(&self.line()),
                },
            }
        }
    }

    fn line(&self) -> String {
        match (self.work.done.load(Ordering::Relaxed), self.work.total.load(Ordering::Relaxed)) {
            (0, 0) => format!("{} ...", self.work.what),
            (done, 0) => format!("{}: {done} ...", self.work.what),
            (done, total) => format!("{}: {done} of {total} ...", self.work.what),
        }
    }
}

/// A line on the terminal that is cleared when it goes out of scope.
struct Bar {
    bar: ProgressBar,
    has_total: bool,
}

impl Bar {
    fn new(what: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_message(what.to_owned());
        bar.set_style(style("{spinner} {msg} {pos} ({elapsed})"));
        Self { bar, has_total: false }
    }

    fn draw(&mut self, progress: &Progress) {
        let total = progress.work.total.load(Ordering::Relaxed);
        if total > 0 && !self.has_total {
            self.bar.set_style(style("{spinner} {msg} {bar:30} {pos}/{len} ({elapsed}, {eta} left)"));
            self.has_total = true;
        }
        if total > 0 {
            self.bar.set_length(total);
        }
        self.bar.set_position(progress.work.done.load(Ordering::Relaxed));
        self.bar.tick();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // A test holds every template; were one wrong, the library's own would do.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[allow(clippy::print_stderr, reason = "the streams of the command are borrowed while it works")]
fn say(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_is_known() {
        let progress = Progress::new("reading mailboxes", Shown::Lines);
        assert_eq!(progress.line(), "reading mailboxes ...");
        progress.at(3, 0);
        assert_eq!(progress.line(), "reading mailboxes: 3 ...");
        progress.at(3, 10);
        assert_eq!(progress.line(), "reading mailboxes: 3 of 10 ...");
    }

    #[test]
    fn the_templates_are_right() {
        for template in
            ["{spinner} {msg} {pos} ({elapsed})", "{spinner} {msg} {bar:30} {pos}/{len} ({elapsed}, {eta} left)"]
        {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[tokio::test]
    async fn work_is_done_whoever_sees_it() {
        for shown in [Shown::Nothing, Shown::Lines, Shown::Redrawn] {
            let progress = Progress::new("work", shown);
            let told = progress.clone();
            let work = async {
                tokio::task::yield_now().await;
                told.at(1, 2);
                7
            };
            assert_eq!(progress.during(work).await, 7);
            assert_eq!(progress.line(), "work: 1 of 2 ...");
        }
    }
}
