//! How much at once, and how many within a minute. Values in, values out.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Limits {
    concurrent: usize,
    rate: Option<(usize, Duration)>,
    /// By application and mailbox: now.
    working: HashMap<(String, String), usize>,
    /// By mailbox: at most.
    most: HashMap<String, usize>,
    /// By mailbox: when mails were taken.
    taken: HashMap<String, VecDeque<Instant>>,
}

impl Limits {
    pub(super) fn new(concurrent: usize) -> Self {
        let (working, most, taken) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { concurrent, rate: None, working, most, taken }
    }

    pub(super) fn set_concurrent(&mut self, concurrent: usize) {
        self.concurrent = concurrent;
    }

    pub(super) fn set_rate(&mut self, mails: usize, minute: Duration) {
        self.rate = Some((mails, minute));
    }

    pub(super) fn most(&self, mailbox: &str) -> usize {
        self.most.get(&mailbox.to_lowercase()).copied().unwrap_or_default()
    }

    /// Begins the work on a request, unless there is too much already. Each that begins must end.
    pub(super) fn begin(&mut self, app: &str, mailbox: &str) -> bool {
        let working = self.working.entry((app.to_owned(), mailbox.to_owned())).or_default();
        let most = self.most.entry(mailbox.to_owned()).or_default();
        *most = (*most).max(*working + 1);
        if *working >= self.concurrent {
            return false;
        }
        *working += 1;
        true
    }

    pub(super) fn end(&mut self, app: &str, mailbox: &str) {
        if let Some(working) = self.working.get_mut(&(app.to_owned(), mailbox.to_owned())) {
            *working -= 1;
        }
    }

    /// Takes a mail of a mailbox, or says after what time one would be taken.
    pub(super) fn take(&mut self, mailbox: &str, now: Instant) -> Result<(), Duration> {
        let Some((mails, minute)) = self.rate else { return Ok(()) };
        let taken = self.taken.entry(mailbox.to_owned()).or_default();
        while taken.front().is_some_and(|at| now.duration_since(*at) >= minute) {
            taken.pop_front();
        }
        match taken.front() {
            Some(first) if taken.len() >= mails => Err(minute.saturating_sub(now.duration_since(*first))),
            _ => {
                taken.push_back(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_worked_on_so_often_at_once() {
        let mut limits = Limits::new(2);
        assert!(limits.begin("app", "a@b") && limits.begin("app", "a@b") && !limits.begin("app", "a@b"));
        assert!(limits.begin("other", "a@b") && limits.begin("app", "c@b"));
        limits.end("app", "a@b");
        assert!(limits.begin("app", "a@b"));
        assert_eq!((limits.most("A@b"), limits.most("c@b"), limits.most("d@b")), (3, 1, 0));
    }

    #[test]
    fn so_many_mails_are_taken_within_any_minute() {
        let (mut limits, start, minute) = (Limits::new(4), Instant::now(), Duration::from_secs(60));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(limits.take("a@b", start), Ok(()));
        limits.set_rate(2, minute);
        assert_eq!(limits.take("a@b", at(0)), Ok(()));
        assert_eq!(limits.take("a@b", at(30)), Ok(()));
        assert_eq!(limits.take("a@b", at(40)), Err(Duration::from_secs(20)));
        assert_eq!(limits.take("c@b", at(40)), Ok(()));
        assert_eq!(limits.take("a@b", at(60)), Ok(()));
        assert_eq!(limits.take("a@b", at(61)), Err(Duration::from_secs(29)));
    }
}
