//! Where a command writes, and what is known of those who read it.

use std::io::{self, IsTerminal as _, Write};

use jiff::Timestamp;

/// Where a command writes.
pub struct Streams<'a> {
    /// Data.
    pub out: &'a mut (dyn Write + Send),
    /// All else.
    pub err: &'a mut (dyn Write + Send),
    /// What reads them.
    pub terminal: Terminal,
    /// The time that ages are told by; none: now.
    pub now: Option<Timestamp>,
}

/// What is at the other end of the streams.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terminal {
    /// Standard output is a terminal.
    pub out: bool,
    /// Standard error is a terminal.
    pub err: bool,
    /// The streams are those of this process: Ctrl-C and progress are this command's business.
    pub is_process: bool,
}

impl<'a> Streams<'a> {
    /// Streams that no terminal reads: files, pipes, tests.
    pub fn plain(out: &'a mut (dyn Write + Send), err: &'a mut (dyn Write + Send)) -> Self {
        Self { out, err, terminal: Terminal::default(), now: None }
    }

    /// The streams of this process.
    pub fn of_process(out: &'a mut io::Stdout, err: &'a mut io::Stderr) -> Self {
        let terminal = Terminal { out: out.is_terminal(), err: err.is_terminal(), is_process: true };
        Self { out, err, terminal, now: None }
    }
}
