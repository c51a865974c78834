//! Settings of a process: from its command line, its environment and a TOML file, in this order of strength, else the
//! default.
//!
//! Every value is a text until its reader makes something of it, wherever it comes from, so all sources take the same
//! forms. Every fault is kept, and all are told at once: unknown names with the nearest known one, values that cannot be
//! read, what is missing. Nothing here reads a file or asks the environment: [`Program`] is told what they hold.
//!
//! Reading order: [`Setting`] (what can be set), [`source`] (the three sources), [`Settings`] (what holds), [`form`]
//! (texts into values), [`refusal`] (how faults are told).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub mod form;
pub mod refusal;
pub mod source;

pub use refusal::{Fault, Refusal};
pub use source::{CommandLine, Sources};

/// One thing that can be set.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name: a key of the file, or a table and a key of it with a dot between them.
    pub name: &'static str,
    /// What stands for the value in help texts, in capitals. Empty: a switch, which is `true` or `false`.
    pub value: &'static str,
    /// What holds when nothing is said.
    pub default: Default,
    /// What it does, with its unit; one sentence without a full stop.
    pub help: &'static str,
}

/// What holds when nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// This value.
    Is(&'static str),
    /// No value; the words say what that means.
    Nothing(&'static str),
    /// It must be said.
    Required,
}

impl Setting {
    /// The flag on the command line: `--lease-ttl` for `lease.ttl`.
    pub fn flag(&self) -> String {
        self.name.replace('.', "-")
    }

    /// The variable in the environment, after the prefix: `LEASE_TTL` for `lease.ttl`.
    pub fn variable(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.name.replace(['.', '-'], "_").to_uppercase())
    }
}

/// A program with settings.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Name of its binary.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub about: &'static str,
    /// What the names of its variables begin with, for example `POSTROOM_WORKER_`.
    pub prefix: &'static str,
    /// All that can be set.
    pub settings: &'static [Setting],
    /// Examples for `--help`.
    pub examples: &'static str,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A flag, by its name with the hyphens.
    Flag(String),
    /// A variable of the environment.
    Variable(String),
    /// A file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The value.
    pub text: String,
    /// Who said it.
    pub source: Source,
}

/// What holds, and every fault found so far.
#[derive(Debug)]
pub struct Settings {
    program: Program,
    said: BTreeMap<&'static str, Said>,
    faults: Vec<Fault>,
}

impl Settings {
    /// The strongest word on each setting.
    pub fn gather(program: Program, sources: &Sources<'_>) -> Self {
        let mut settings = Self { program, said: BTreeMap::new(), faults: Vec::new() };
        sources.tell(&mut settings);
        settings
    }

    /// What a setting is made into by `form`; `None` when nothing is said, or something that is at fault.
    ///
    /// # Panics
    /// When there is no such setting, which every start of the program would show.
    pub fn optional<T>(&mut self, name: &str, form: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let setting = self.setting(name);
        let said = match (self.said.get(setting.name), setting.default) {
            (Some(said), _) => said.clone(),
            (None, Default::Is(text)) => Said { text: text.into(), source: Source::Default },
            (None, Default::Nothing(_)) => return None,
            (None, Default::Required) => {
                self.faults.push(Fault::missing(&self.program, setting));
                return None;
            }
        };
        match form(&said.text) {
            Ok(value) => Some(value),
            Err(what) => {
                self.faults.push(Fault { setting: setting.name.into(), source: Some(said.source), what });
                None
            }
        }
    }

    /// The same for a setting that has a default or is required. After a fault the value is an empty one, which nobody
    /// uses: [`Settings::end`] refuses.
    pub fn value<T: std::default::Default>(&mut self, name: &str, form: impl Fn(&str) -> Result<T, String>) -> T {
        self.optional(name, form).unwrap_or_default()
    }

    /// A path. One in the file is meant from the folder of the file on.
    pub fn path(&mut self, name: &str) -> Option<PathBuf> {
        let path = self.optional(name, form::path)?;
        match self.said.get(name).map(|said| &said.source) {
            Some(Source::File(file)) => Some(file.parent().unwrap_or(Path::new("")).join(path)),
            _ => Some(path),
        }
    }

    /// Adds a fault that shows only when settings are looked at together.
    pub fn fault(&mut self, name: &str, what: impl Into<String>) {
        let source = self.said.get(name).map_or(Source::Default, |said| said.source.clone());
        self.faults.push(Fault { setting: name.into(), source: Some(source), what: what.into() });
    }

    /// What nobody said anything about.
    pub fn unsaid(&self) -> Vec<&'static str> {
        let all = self.program.settings.iter().map(|setting| setting.name);
        all.filter(|name| !self.said.contains_key(name)).collect()
    }

    /// Nothing, or every fault.
    pub fn end(&mut self) -> Result<(), Refusal> {
        if self.faults.is_empty() {
            return Ok(());
        }
        Err(Refusal::of_settings(&self.program, std::mem::take(&mut self.faults)))
    }

    /// What holds, in the form of the file, each with its source.
    pub fn show(&self) -> String {
        let mut shown = String::new();
        let mut table = "";
        for setting in self.program.settings {
            let (within, key) = setting.name.split_once('.').unwrap_or(("", setting.name));
            if within != table {
                table = within;
                shown += &format!("\n[{table}]\n");
            }
            let line = match (self.said.get(setting.name), setting.default) {
                (Some(said), _) => format!("{key} = {} # {}", written(setting, &said.text), said.source),
                (None, Default::Is(text)) => format!("{key} = {} # default", written(setting, text)),
                (None, Default::Nothing(what)) => format!("# {key}: {what} # default"),
                (None, Default::Required) => format!("# {key}: missing"),
            };
            shown += &line;
            shown.push('\n');
        }
        shown
    }

    fn setting(&self, name: &str) -> &'static Setting {
        let found = self.program.settings.iter().find(|setting| setting.name == name);
        found.unwrap_or_else(|| panic!("{} has no setting {name}", self.program.name))
    }
}

/// An example of a file in which every setting holds that is only mentioned, as `#key = value`. For tests of examples.
pub fn uncommented(example: &str) -> String {
    let is_key = |line: &str| line.starts_with(|first: char| first.is_ascii_lowercase()) && line.contains(" = ");
    let line = |line: &str| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line).to_owned() + "\n";
    example.lines().map(line).collect()
}

/// A value as it stands in a file.
fn written(setting: &Setting, text: &str) -> String {
    let text = form::without_password(text);
    if setting.value.is_empty() || text.parse::<u64>().is_ok() { text } else { toml::Value::String(text).to_string() }
}

#[cfg(test)]
mod tests;
