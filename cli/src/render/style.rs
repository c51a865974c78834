//! Colour and width: what of the terminal the rendering may use.
//!
//! A command renders inside [`scope`]; outside of it, as in tests of a single function, everything is plain and as wide
//! as it needs to be. So the functions that render stay free of arguments that only say where their text goes.

use std::ffi::OsString;
use std::future::Future;

use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Style as Ansi};

use crate::Environment;

tokio::task_local! {
    static STYLE: Style;
}

/// What the data on standard output may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// Colours.
    pub color: bool,
    /// Columns of the terminal; none: as many as needed.
    pub width: Option<u16>,
}

/// What a piece of text means. Colour only ever repeats what the words say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// A heading or a label.
    Label,
    /// All is well.
    Good,
    /// Passes by itself, or is not yet.
    Waiting,
    /// Somebody has to do something.
    Bad,
}

/// Runs a command whose output has this style.
pub async fn scope<T>(style: Style, command: impl Future<Output = T>) -> T {
    STYLE.scope(style, command).await
}

/// The style of the command that is running.
pub(super) fn current() -> Style {
    STYLE.try_with(|style| *style).unwrap_or_default()
}

/// True when the command that is running may use colours.
pub fn has_color() -> bool {
    current().color
}

/// Columns of the terminal of the command that is running, if there is one.
pub fn width() -> Option<u16> {
    current().width
}

/// Whether colours are wanted: `--color`, else `NO_COLOR` (no-color.org), `CLICOLOR_FORCE` and `CLICOLOR`
/// (bixense.com/clicolors), else whether the stream is a terminal that knows them.
pub fn wants_color(choice: ColorChoice, is_terminal: bool, environment: Environment<'_>) -> bool {
    let set = |name: &str| environment(name).filter(|value: &OsString| !value.is_empty());
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if set("NO_COLOR").is_some() => false,
        ColorChoice::Auto if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
        ColorChoice::Auto if set("CLICOLOR").is_some_and(|value| value == "0") => false,
        ColorChoice::Auto => is_terminal && set("TERM").is_some_and(|value| value != "dumb"),
    }
}

/// The text in its colour, where the command may use colours.
pub fn paint(tone: Tone, text: &str) -> String {
    painted(current().color, tone, text)
}

/// The text in its colour, or as it is.
pub fn painted(color: bool, tone: Tone, text: &str) -> String {
    if !color {
        return text.to_owned();
    }
    let ansi = match tone {
        Tone::Label => Ansi::new().bold(),
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Waiting => AnsiColor::Yellow.on_default(),
        Tone::Bad => AnsiColor::Red.on_default().bold(),
    };
    format!("{ansi}{text}{ansi:#}")
}

/// What a cell below this heading means. Words that are not known here have no colour.
pub(super) fn tone(heading: &str, cell: &str) -> Option<Tone> {
    match (heading, cell) {
        (_, "" | "-") => None,
        ("PROBLEM" | "REASON", _) => Some(Tone::Bad),
        ("STATE", "idle" | "accepted" | "ended" | "ok" | "live") => Some(Tone::Good),
        ("STATE", "failing" | "dead" | "quarantined" | "failed" | "lost" | "silent" | "gone") => Some(Tone::Bad),
        ("STATE", "stopping" | "returning") => Some(Tone::Waiting),
        ("FIT", "ours") => Some(Tone::Good),
        ("FIT", _) => Some(Tone::Bad),
        ("STATE", "unassigned" | "connecting" | "catching-up" | "rekeying" | "queued" | "allocated") => {
            Some(Tone::Waiting)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(is_terminal: bool, variables: &[(&str, &str)]) -> bool {
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        wants_color(ColorChoice::Auto, is_terminal, &variable)
    }

    #[test]
    fn colours_are_for_terminals_and_can_be_refused_and_forced() {
        let xterm = ("TERM", "xterm-256color");
        assert!(auto(true, &[xterm]));
        assert!(!auto(false, &[xterm]));
        assert!(!auto(true, &[("TERM", "dumb")]));
        assert!(!auto(true, &[xterm, ("NO_COLOR", "1")]));
        assert!(auto(true, &[xterm, ("NO_COLOR", "")]));
        assert!(!auto(true, &[xterm, ("CLICOLOR", "0")]));
        assert!(auto(false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!auto(false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
        assert!(wants_color(ColorChoice::Always, false, &|_| Some("1".into())));
        assert!(!wants_color(ColorChoice::Never, true, &|_| None));
    }

    #[tokio::test]
    async fn text_is_plain_outside_of_a_command_that_may_use_colours() {
        assert_eq!(paint(Tone::Bad, "x"), "x");
        let shown = scope(Style { color: true, width: None }, async { paint(Tone::Bad, "x") }).await;
        assert!(shown.starts_with("\u{1b}[") && shown.ends_with("\u{1b}[0m"), "{shown:?}");
    }
}
