//! Command lines in manuals, help texts and remedies.

use clap::error::ErrorKind;
use postroom_cli::args;
use postroom_proto::catalogue;

use super::pages;

/// How much of a command line stands there.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    /// All of it: it is there to be typed.
    Whole,
    /// It is talked about, so its values may be missing.
    Mentioned,
}

#[test]
fn command_lines_of_the_manuals_are_understood() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for page in pages() {
        // What was, is not what is.
        let form = |form| if page.name() == "CHANGELOG.md" { Form::Mentioned } else { form };
        let (blocks, prose) = parts(&page.text);
        let lines = blocks.iter().flat_map(|block| shell_lines(block)).map(|line| (line, form(Form::Whole)));
        let mentioned = prose.split('`').skip(1).step_by(2).map(|code| (code.to_owned(), Form::Mentioned));
        for (line, form) in lines.chain(mentioned.collect::<Vec<_>>()) {
            for command in commands(&line) {
                seen += 1;
                if let Err(what) = understood(&command, form) {
                    wrong.push(format!("{}: {line}\n    {what}", page.name()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 150, "{seen} command lines were found");
}

#[test]
fn command_lines_of_help_texts_are_understood() {
    let mut nouns = vec![args::command()];
    let (mut wrong, mut seen) = (Vec::new(), 0);
    while let Some(command) = nouns.pop() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter(|line| line.starts_with("  postroom")) {
            for command in commands(line) {
                seen += 1;
                if let Err(what) = understood(&command, Form::Whole) {
                    wrong.push(format!("{line}\n    {what}"));
                }
            }
        }
        nouns.extend(command.get_subcommands().cloned());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 30, "{seen} command lines were found");
}

#[test]
fn command_lines_of_remedies_are_understood() {
    for entry in catalogue::all() {
        for code in entry.remedy.split('`').skip(1).step_by(2) {
            for command in commands(code) {
                understood(&command, Form::Mentioned).unwrap_or_else(|what| panic!("{}: {code}: {what}", entry.code()));
            }
        }
    }
}

#[test]
fn what_is_wrong_is_noticed() {
    let whole = |line: &str| understood(&commands(line)[0], Form::Whole);
    assert_eq!(whole("postroom status --check   # for monitoring"), Ok(()));
    assert!(whole("postroom status --chek").is_err());
    assert!(whole("postroom mailbox chek a@b").is_err());
    assert!(whole("postroom mailbox check").is_err(), "a value is missing");
    assert_eq!(understood(&commands("postroom mailbox check")[0], Form::Mentioned), Ok(()));
    assert!(whole("postroom-worker --nmae x").is_err());
    assert_eq!(commands("M365=x sudo postroom status | grep x && postroom export >y").len(), 2);
    assert_eq!(commands("systemctl restart postroom").len(), 0);
}

/// A command line is what a program knows.
fn understood(words: &[String], form: Form) -> Result<(), String> {
    let command = match words[0].as_str() {
        "postroom" => args::command(),
        "postroom-control-plane" => postroom_control_plane::config::settings::PROGRAM.command(),
        _ => postroom_worker::config::settings::PROGRAM.command(),
    };
    let Err(error) = command.try_get_matches_from(words) else { return Ok(()) };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(()),
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::InvalidValue
            if form == Form::Mentioned =>
        {
            Ok(())
        }
        _ => Err(error.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}

/// The blocks of shell code, and everything outside of blocks as one line.
fn parts(text: &str) -> (Vec<String>, String) {
    let (mut blocks, mut prose) = (Vec::new(), String::new());
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.trim().to_owned(), String::new())),
            (None, None) => {
                prose += line.trim();
                prose.push(' ');
            }
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (Some((language, block)), Some(_)) => {
                if language == "sh" {
                    blocks.push(std::mem::take(block));
                }
                open = None;
            }
        }
    }
    (blocks, prose)
}

/// Lines, those joined that end in a backslash.
fn shell_lines(block: &str) -> Vec<String> {
    block.replace("\\\n", " ").lines().map(|line| line.trim().to_owned()).collect()
}

/// The commands of ours in a line of shell, as words. What the shell would put in is some word.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("$(") {
        plain.push_str(before);
        plain.push('X');
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    let Some(words) = shlex::split(&plain) else { return Vec::new() };
    let is_operator = |word: &String| matches!(word.as_str(), "|" | "&&" | "||" | ";" | "&");
    words.split(is_operator).filter_map(command).collect()
}

fn command(words: &[String]) -> Option<Vec<String>> {
    let ours = |word: &str| matches!(word, "postroom" | "postroom-control-plane" | "postroom-worker");
    let before = |word: &&String| word.contains('=') || matches!(word.as_str(), "sudo" | "exec" | "nohup");
    let at = words.iter().take_while(before).count();
    // Behind `--` stands what runs in a container.
    let at = words.iter().position(|word| word == "--").map_or(at, |inside| inside + 1);
    let words = words.get(at..)?;
    if !ours(words.first()?) {
        return None;
    }
    // Redirections are the shell's; `…`, `[…]` and `a|b` stand for several commands.
    let redirects = |word: &str| word.starts_with(['>', '<']) || word.starts_with("2>");
    let words: Vec<String> = words.iter().take_while(|word| !redirects(word)).cloned().collect();
    let several = |word: &String| word.contains('|') || word.starts_with('[') || word == "…";
    (!words.iter().any(several)).then_some(words)
}
