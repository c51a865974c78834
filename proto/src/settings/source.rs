//! The three sources: flags, environment, file.

use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::Value;

use super::{Fault, Program, Said, Setting, Settings, Source};

/// What the command line says.
#[derive(Debug, Default, Clone)]
pub struct CommandLine {
    /// The settings file.
    pub file: Option<PathBuf>,
    /// Only say what holds.
    pub check: bool,
    /// Values by setting.
    values: Vec<(&'static str, String)>,
}

impl Program {
    /// The command line: `--config`, `--check-config`, and a flag for each setting.
    pub fn command(&self) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .help(format!("Settings file, in TOML [env: {}CONFIG]", self.prefix));
        let check = Arg::new("check-config")
            .long("check-config")
            .action(ArgAction::SetTrue)
            .help("Only say what holds, and where each value comes from");
        let flags = self.settings.iter().map(|setting| {
            let flag = Arg::new(setting.name)
                .long(setting.flag())
                .help(setting.long_help(self.prefix))
                .value_parser(NonEmptyStringValueParser::new());
            match setting.value {
                "" => flag.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL"),
                value => flag.value_name(value),
            }
        });
        Command::new(self.name)
            .version(crate::version::full())
            .about(self.about)
            .after_help(format!(
                "Flags beat the environment, which beats the file, which beats the defaults. In the file a setting has \
                 the name of its flag; those of a table, such as lease, lease-ttl, stand in it as ttl.\n\n{}",
                self.examples
            ))
            .arg(config)
            .arg(check)
            .args(flags)
    }

    /// What was typed.
    pub fn typed(&self, matches: &ArgMatches, variable: impl Fn(&str) -> Option<String>) -> CommandLine {
        let typed = |setting: &Setting| {
            let said = matches.value_source(setting.name) == Some(ValueSource::CommandLine);
            let value = said.then(|| matches.get_one::<String>(setting.name).cloned()).flatten()?;
            Some((setting.name, value))
        };
        let values = self.settings.iter().filter_map(typed).collect();
        let file = matches.get_one::<String>("config").cloned();
        let file = file.or_else(|| variable(&format!("{}CONFIG", self.prefix))).map(Into::into);
        CommandLine { file, check: matches.get_flag("check-config"), values }
    }
}

/// Everything that is said.
#[derive(Debug)]
pub struct Sources<'a> {
    /// By flags.
    pub typed: &'a CommandLine,
    /// By the environment: all variables.
    pub variables: Vec<(String, String)>,
    /// By a file: where it is, and its text.
    pub file: Option<(&'a Path, &'a str)>,
}

impl Sources<'_> {
    /// Ordering: the weakest first, so that the stronger replace it.
    pub(super) fn tell(&self, settings: &mut Settings) {
        if let Some((path, text)) = self.file {
            file(settings, path, text);
        }
        for (name, value) in &self.variables {
            variable(settings, name, value);
        }
        for (name, value) in &self.typed.values {
            let setting = settings.setting(name);
            let source = Source::Flag(format!("--{}", setting.flag()));
            settings.said.insert(setting.name, Said { text: value.clone(), source });
        }
    }
}

/// An empty variable counts as none.
fn variable(settings: &mut Settings, name: &str, value: &str) {
    let program = settings.program;
    if !name.starts_with(program.prefix) || name == format!("{}CONFIG", program.prefix) || value.is_empty() {
        return;
    }
    let source = Source::Variable(name.into());
    match program.settings.iter().find(|setting| setting.variable(program.prefix) == name) {
        Some(setting) => drop(settings.said.insert(setting.name, Said { text: value.into(), source })),
        None => {
            let known = program.settings.iter().map(|setting| setting.variable(program.prefix));
            settings.faults.push(Fault::unknown(name, Source::Variable("environment".into()), known));
        }
    }
}

fn file(settings: &mut Settings, path: &Path, text: &str) {
    let source = Source::File(path.into());
    match text.parse::<toml::Table>() {
        Ok(table) => within(settings, &source, "", &table),
        Err(error) => {
            let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            let what = format!("{}; correct the file", error.message().trim_end());
            settings.faults.push(Fault { setting: format!("line {line}"), source: Some(source), what });
        }
    }
}

fn within(settings: &mut Settings, source: &Source, table: &str, values: &toml::Table) {
    let all = settings.program.settings;
    for (key, value) in values {
        let name = if table.is_empty() { key.clone() } else { format!("{table}.{key}") };
        let found = all.iter().find(|setting| setting.name == name);
        let has_inner = table.is_empty() && all.iter().any(|setting| setting.name.starts_with(&format!("{name}.")));
        match (found, value) {
            (None, Value::Table(inner)) if has_inner => within(settings, source, &name, inner),
            (None, _) if has_inner => {
                let what = format!("is a table; write [{name}] and its settings below it");
                settings.faults.push(Fault { setting: name, source: Some(source.clone()), what });
            }
            (None, _) => {
                let known = all.iter().map(|setting| setting.name.to_owned());
                settings.faults.push(Fault::unknown(&name, source.clone(), known));
            }
            (Some(setting), value) => match text_of(value) {
                Some(text) => drop(settings.said.insert(setting.name, Said { text, source: source.clone() })),
                None => {
                    let what = "is no value; write a text, a number, true or false, or a list of texts".to_owned();
                    settings.faults.push(Fault { setting: name, source: Some(source.clone()), what });
                }
            },
        }
    }
}

/// The one form that all sources share. A list has commas.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(switch) => Some(switch.to_string()),
        Value::Array(all) => Some(all.iter().map(text_of).collect::<Option<Vec<_>>>()?.join(",")),
        Value::Datetime(_) | Value::Table(_) => None,
    }
}
