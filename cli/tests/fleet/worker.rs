//! One worker of a fleet over all its lives, and what the log of each says about who believed to hold what.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use postroom_testbed::link::Link;
use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::process::Process;

/// A worker that is started, stopped, killed and frozen.
pub(crate) struct Worker {
    pub(crate) name: String,
    /// The way to the control plane, when it is not another one.
    pub(crate) road: Link,
    args: Vec<String>,
    folder: PathBuf,
    lives: Vec<Life>,
    process: Option<Process>,
}

/// One process of a worker.
pub(crate) struct Life {
    log: String,
    /// When it was killed, or had ended; it holds nothing after that.
    over: Option<Timestamp>,
    /// When it was frozen, and when it went on.
    slept: Vec<(Timestamp, Option<Timestamp>)>,
}

/// A mailbox that one process believed to hold for some time.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) worker: String,
    pub(crate) mailbox: String,
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
    /// It ended with trust, of which the log tells later than it is so.
    pub(crate) lapsed: bool,
}

impl Worker {
    pub(crate) fn new(name: &str, road: Link, args: &[&str], folder: PathBuf) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { name: name.into(), road, args, folder, lives: Vec::new(), process: None }
    }

    /// Starts a process of it.
    pub(crate) fn start(&mut self, plane: &ControlPlane) {
        let endpoint = format!("http://{}", self.road.addr());
        self.start_calling(plane, &endpoint);
    }

    /// The same, by another way to the control plane.
    pub(crate) fn start_calling(&mut self, plane: &ControlPlane, endpoint: &str) {
        assert!(self.process.is_none(), "{} runs", self.name);
        let log = format!("{}-{}.log", self.name, self.lives.len() + 1);
        let args: Vec<&str> = self.args.iter().map(String::as_str).chain(["--log-format=json"]).collect();
        self.process = Some(plane.worker_calling(endpoint, &self.name, &log, &args));
        self.lives.push(Life { log, over: None, slept: Vec::new() });
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let process = self.process.take().expect("a process");
        self.life().over = Some(Timestamp::now());
        process.kill();
    }

    /// SIGTERM, and waits until it has let everything go and ended well.
    pub(crate) async fn stop(&mut self) {
        let mut process = self.process.take().expect("a process");
        process.terminate();
        let status = process.ended().await;
        assert_eq!(status.code(), Some(0), "{}", process.log());
        self.life().over = Some(Timestamp::now());
    }

    /// Freezes it where it stands.
    pub(crate) fn freeze(&mut self) {
        self.process().signal("STOP");
        self.life().slept.push((Timestamp::now(), None));
    }

    /// Lets it go on.
    pub(crate) fn wake(&mut self) {
        let now = Timestamp::now();
        self.life().slept.last_mut().expect("it was frozen").1 = Some(now);
        self.process().signal("CONT");
    }

    /// True while a process of it runs.
    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().expect("a process")
    }

    /// How often the logs of all its lives say this.
    pub(crate) fn said(&self, text: &str) -> usize {
        self.lives.iter().map(|life| self.lines(life).filter(|(_, said, _)| said == text).count()).sum()
    }

    /// Everything that it believed to hold, life by life. `trust`: how long one heartbeat is trusted.
    pub(crate) fn held(&self, trust: Duration) -> Vec<Held> {
        self.lives.iter().flat_map(|life| self.held_in(life, trust)).collect()
    }

    fn held_in(&self, life: &Life, trust: Duration) -> Vec<Held> {
        let mut beliefs = Beliefs { worker: self.name.clone(), ..Beliefs::default() };
        let mut sleeps = life.slept.iter().peekable();
        for (time, said, fields) in self.lines(life) {
            while let Some((from, until)) = sleeps.next_if(|(from, _)| *from <= time) {
                beliefs.sleep(*from, *until, trust);
            }
            let lease = || (text(&fields, "mailbox"), text(&fields, "epoch").parse().unwrap());
            match said.as_str() {
                "a mailbox is leased to this worker" => beliefs.begin(lease(), time),
                "a mailbox was let go" | "the lease on a mailbox was lost" => beliefs.end(&lease(), time),
                "the control plane is silent: nothing is reported or changed until it answers" => beliefs.lapse(time),
                "the control plane answers again" => beliefs.resume(time),
                _ => {}
            }
        }
        for (from, until) in sleeps {
            beliefs.sleep(*from, *until, trust);
        }
        beliefs.over(life.over.unwrap_or_else(Timestamp::now))
    }

    fn lines(&self, life: &Life) -> impl Iterator<Item = (Timestamp, String, Value)> {
        let log = std::fs::read_to_string(self.folder.join(&life.log)).unwrap_or_default();
        let lines: Vec<_> = log
            .lines()
            // The last line of a process that was killed may be cut off.
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .map(|mut line| {
                let time = text(&line, "timestamp").parse().unwrap();
                let fields = line["fields"].take();
                (time, text(&fields, "message"), fields)
            })
            .collect();
        lines.into_iter()
    }

    fn life(&mut self) -> &mut Life {
        self.lives.last_mut().expect("it was started")
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// What a process believes to hold, line by line of its log.
#[derive(Default)]
struct Beliefs {
    worker: String,
    /// Held and trusted, since when.
    trusted: Vec<((String, u64), Timestamp)>,
    /// Held, while nothing may be done.
    suspended: Vec<(String, u64)>,
    held: Vec<Held>,
}

impl Beliefs {
    fn begin(&mut self, lease: (String, u64), time: Timestamp) {
        self.trusted.push((lease, time));
    }

    fn end(&mut self, lease: &(String, u64), time: Timestamp) {
        self.suspended.retain(|it| it != lease);
        if let Some(at) = self.trusted.iter().position(|(it, _)| it == lease) {
            let (lease, from) = self.trusted.swap_remove(at);
            self.note(lease, from, time, false);
        }
    }

    fn lapse(&mut self, time: Timestamp) {
        for (lease, from) in std::mem::take(&mut self.trusted) {
            self.suspended.push(lease.clone());
            self.note(lease, from, time, true);
        }
    }

    fn resume(&mut self, time: Timestamp) {
        let resumed = std::mem::take(&mut self.suspended);
        self.trusted.extend(resumed.into_iter().map(|lease| (lease, time)));
    }

    /// Nothing is done in its sleep; what it was trusted with is so afterwards if the sleep was short.
    fn sleep(&mut self, from: Timestamp, until: Option<Timestamp>, trust: Duration) {
        let before: Vec<_> = self.suspended.clone();
        self.lapse(from);
        if let Some(until) = until.filter(|until| until.duration_since(from).unsigned_abs() < trust) {
            let all = std::mem::replace(&mut self.suspended, before);
            let again = all.into_iter().filter(|lease| !self.suspended.contains(lease));
            self.trusted.extend(again.map(|lease| (lease, until)));
        }
    }

    fn over(mut self, time: Timestamp) -> Vec<Held> {
        for (lease, from) in std::mem::take(&mut self.trusted) {
            self.note(lease, from, time, false);
        }
        self.held
    }

    fn note(&mut self, (mailbox, _): (String, u64), from: Timestamp, until: Timestamp, lapsed: bool) {
        self.held.push(Held { worker: self.worker.clone(), mailbox, from, until, lapsed });
    }
}
