//! The reference: what the programs say of themselves, as pages.

use std::fmt::Write as _;
use std::fs;

use clap::CommandFactory as _;
use postroom_cli::render::words;
use postroom_proto::catalogue;
use postroom_proto::settings::{Default, Program};

use super::root;

const ANEW: &str = "POSTROOM_DOCS=1 cargo test --workspace --test docs";

#[test]
fn the_reference_is_what_the_programs_say() {
    let mut stale = Vec::new();
    for (name, text) in [("cli.md", commands()), ("settings.md", settings()), ("codes.md", codes())] {
        let path = root().join("docs/reference").join(name);
        if std::env::var_os("POSTROOM_DOCS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        if fs::read_to_string(&path).unwrap_or_default() != text {
            stale.push(path.display().to_string());
        }
    }
    assert!(stale.is_empty(), "write {} anew: {ANEW}", stale.join(", "));
}

fn commands() -> String {
    let mut page = String::from(
        "# Commands\n\nMade of what `--help` says. `postroom man DIR` writes the same as man pages, and \
         `postroom completions SHELL` a completion script.\n\nEvery command takes the options of `postroom` itself, which stand \
         only there.\n",
    );
    let mut root = postroom_cli::args::Cli::command().term_width(100);
    root.build();
    let mut waiting = vec![(String::from("postroom"), root)];
    while let Some((path, command)) = waiting.pop() {
        let verbs: Vec<_> = command.get_subcommands().filter(|verb| verb.get_name() != "help").cloned().collect();
        waiting.extend(verbs.into_iter().rev().map(|verb| (format!("{path} {}", verb.get_name()), verb)));
        // Options of all commands are told once.
        let inherited = |id: &str| path != "postroom" && is_global(id);
        let hidden = command.get_arguments().map(|arg| arg.get_id().to_string()).filter(|id| inherited(id));
        let hidden: Vec<String> = hidden.collect();
        let mut command = command.term_width(100);
        for id in hidden {
            command = command.mut_arg(id, |arg| arg.hide(true));
        }
        let help = command.render_long_help().to_string();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        write!(page, "\n## {path}\n\n```text\n{}\n```\n", lines.join("\n").trim_end()).unwrap();
    }
    page
}

fn is_global(id: &str) -> bool {
    matches!(id, "output" | "color" | "quiet" | "data" | "endpoint" | "token_file" | "ca_file" | "insecure" | "help")
}

fn settings() -> String {
    let mut page = String::from(
        "# Settings\n\nOf the two programs that run as services. Flags beat the environment, which beats the file \
         (`--config FILE`), which beats the defaults. In the file a setting with a dot stands in a table: `lease.ttl` as \
         `ttl` below `[lease]`. `--check-config` says what holds and where each value comes from. Examples with comments are \
         in [deploy/config](../../deploy/config).\n\nTimes are written `500ms`, `12s`, `5m`, `1h`; sizes `64KiB`, `10MiB`.\n",
    );
    for program in [postroom_control_plane::config::settings::PROGRAM, postroom_worker::config::settings::PROGRAM] {
        program_settings(&mut page, &program);
    }
    page
}

fn program_settings(page: &mut String, program: &Program) {
    write!(page, "\n## {}\n\n{}.\n\n", program.name, program.about).unwrap();
    page.push_str("| setting | default | what |\n|---|---|---|\n");
    for setting in program.settings {
        let default = match setting.default {
            Default::Is(value) => format!("`{value}`"),
            Default::Nothing(words) => words.to_owned(),
            Default::Required => "must be said".to_owned(),
        };
        let value = if setting.value.is_empty() { String::new() } else { format!(" {}", setting.value) };
        let (flag, variable) = (setting.flag(), setting.variable(program.prefix));
        let names = format!("`{}`<br>`--{flag}{value}`<br>`{variable}`", setting.name);
        writeln!(page, "| {names} | {} | {} |", cell(&default), cell(setting.help)).unwrap();
    }
}

fn codes() -> String {
    let mut page = String::from(
        "# Codes\n\nBy which Postroom, Entra or a mail server says that something is wrong. `postroom explain CODE` says the \
         same without a network. The kind says who can mend it: what is `transient` or `throttled` passes by itself.\n\n\
         | code | kind | what it means | what lies behind it | what to do |\n|---|---|---|---|---|\n",
    );
    for entry in catalogue::all() {
        let codes: Vec<String> = entry.codes.iter().map(|code| format!("`{code}`")).collect();
        let kind = words::problem_kind(entry.kind.into());
        let (title, cause, remedy) = (cell(entry.title), cell(entry.cause), cell(entry.remedy));
        writeln!(page, "| {} | {kind} | {title} | {cause} | {remedy} |", codes.join(" ")).unwrap();
    }
    page
}

/// A text within a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}
