//! How a process says that it does not start: in the form and with the exit codes of the `postroom` command.

use std::path::Path;

use super::{Default, Program, Setting, Source};

/// Exit code of a wrong command line, or of a place that cannot be used.
pub const USAGE: u8 = 2;
/// Exit code of settings that are at fault.
pub const INVALID: u8 = 4;
/// Exit code of a token that is refused.
pub const REFUSED: u8 = 5;
/// Exit code of anything else.
pub const INTERNAL: u8 = 8;
/// Exit code after a second signal.
pub const INTERRUPTED: u8 = 130;

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Name of the setting, as far as it has one.
    pub setting: String,
    /// Where the value comes from. None: it is nowhere.
    pub source: Option<Source>,
    /// What is wrong, and what to write instead.
    pub what: String,
}

impl Fault {
    pub(super) fn missing(program: &Program, setting: &Setting) -> Self {
        let what = format!(
            "is missing; write it into the file, or say --{} {} or {}",
            setting.flag(),
            setting.value,
            setting.variable(program.prefix)
        );
        Self { setting: setting.name.into(), source: None, what }
    }

    pub(super) fn unknown(name: &str, source: Source, known: impl Iterator<Item = String>) -> Self {
        let near = known.map(|known| (strsim::jaro_winkler(name, &known), known));
        let nearest = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(near, _)| *near > 0.7);
        let what = match nearest {
            Some((_, nearest)) => format!("is not known; did you mean {nearest}?"),
            None => "is not known; take it out, or see --help for what there is".to_owned(),
        };
        Self { setting: name.into(), source: Some(source), what }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{} ({source}): {}", self.setting, self.what),
            None => write!(f, "{}: {}", self.setting, self.what),
        }
    }
}

/// Why a process does not start, or has ended.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What the process ends with.
    pub exit_code: u8,
    /// What failed. Never contains a secret.
    pub message: String,
    /// Every single fault.
    pub faults: Vec<Fault>,
    /// What to do next.
    pub help: String,
}

impl Refusal {
    /// A refusal without single faults.
    pub fn new(exit_code: u8, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { exit_code, message: message.into(), faults: Vec::new(), help: help.into() }
    }

    /// A file that cannot be read.
    pub fn unreadable(what: &str, path: &Path, error: &std::io::Error) -> Self {
        let message = format!("cannot read {what} {}: {error}", path.display());
        Self::new(USAGE, message, "name a file that this user may read")
    }

    /// Faults of the settings.
    pub fn of_settings(program: &Program, faults: Vec<Fault>) -> Self {
        let message = match faults.len() {
            1 => "a setting is at fault".to_owned(),
            count => format!("{count} settings are at fault"),
        };
        let help = format!("`{} --help` lists all settings; --check-config says what holds", program.name);
        Self { exit_code: INVALID, message, faults, help }
    }

    /// As it is shown: `error:`, one line a fault, `help:`.
    pub fn render(&self) -> String {
        let mut shown = format!("error: {}\n", self.message);
        for fault in &self.faults {
            shown += &format!("  {}\n", fault.to_string().replace(|c: char| c.is_control(), " "));
        }
        shown + &format!("help: {}\n", self.help)
    }
}

impl Setting {
    /// The help text of its flag.
    pub(super) fn long_help(&self, prefix: &str) -> String {
        let default = match self.default {
            Default::Is(text) => format!("default: {text}"),
            Default::Nothing(what) => format!("default: {what}"),
            Default::Required => "required".to_owned(),
        };
        format!("{} [{default}] [env: {}]", self.help, self.variable(prefix))
    }
}
