//! Tables and key/value lists.

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table, Width, presets};

use super::style::{self, Tone};
use super::text;

/// Cells up to this width are kept whole.
const SHORT: u16 = 12;
/// Longer ones are broken into lines, but not into narrower ones than this: a table that is wider than its terminal is
/// easier to read than a column of letters.
const LEAST: u16 = 20;
/// A terminal that says it is narrower does not know its width.
const NARROWEST: u16 = 20;

/// Columns of the terminal that standard output is.
pub fn terminal_width() -> Option<u16> {
    Table::new().width().filter(|width| *width >= NARROWEST)
}

/// A table with a header line, without lines around cells. On a terminal it keeps to the terminal's width.
pub fn rows<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = plain();
    table.set_header(header.map(|heading| toned(Some(Tone::Label), heading)));
    for row in rows {
        let cells = row.iter().zip(header).map(|(cell, heading)| {
            let cell = filled(cell);
            toned(style::tone(heading, &cell), &cell)
        });
        table.add_row(cells);
    }
    finish(&mut table)
}

/// One thing with everything: a line a key.
pub fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = plain();
    for (key, value) in pairs {
        let value = filled(&value);
        let value = toned(style::tone(&key.to_uppercase(), &value), &value);
        table.add_row([toned(Some(Tone::Label), &format!("{key}:")), value]);
    }
    finish(&mut table)
}

/// Text below a table, indented by two spaces a level.
pub fn indented(level: usize, text: &str) -> String {
    format!("{:width$}{}\n", "", text::line(text), width = level * 2)
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    // The command knows its streams; the library would ask the process for its own.
    table.force_no_tty();
    let style = style::current();
    if style.color {
        table.enforce_styling();
    }
    if let Some(width) = style.width {
        table.set_width(width);
    }
    table
}

fn toned(tone: Option<Tone>, text: &str) -> Cell {
    let cell = Cell::new(text);
    match tone {
        None => cell,
        Some(Tone::Label) => cell.add_attribute(Attribute::Bold),
        Some(Tone::Good) => cell.fg(Color::DarkGreen),
        Some(Tone::Waiting) => cell.fg(Color::DarkYellow),
        Some(Tone::Bad) => cell.fg(Color::DarkRed).add_attribute(Attribute::Bold),
    }
}

/// An empty cell would shift what scripts see as columns.
fn filled(cell: &str) -> String {
    let cell = text::line(cell);
    if cell.is_empty() { "-".into() } else { cell }
}

fn finish(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    // What names the row is there to be copied, and short words lose more by a break than they save: both are never
    // broken in two. Where the terminal is narrow, the long texts take more lines.
    let widths: Vec<u16> = table.column_max_content_widths();
    for (column, width) in table.column_iter_mut().zip(widths) {
        if column.index == 0 || width <= SHORT {
            column.set_constraint(ColumnConstraint::ContentWidth);
        } else {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(LEAST.min(width) + 2)));
        }
    }
    let mut shown = String::new();
    for line in table.lines() {
        shown += line.trim_end();
        shown.push('\n');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let shown = rows(["NAME", "POOL"], [["core1".into(), "default".into()], ["東京-desk".into(), String::new()]]);
        insta::assert_snapshot!(shown, @r"
        NAME       POOL
        core1      default
        東京-desk  -
        ");
    }

    #[tokio::test]
    async fn a_table_keeps_to_its_terminal_and_its_colours() {
        let style = style::Style { color: true, width: Some(60) };
        let shown = style::scope(style, async {
            let subject = "東京 a subject that is much too long for one line";
            rows(["EMAIL", "STATE", "SUBJECT"], [["a@contoso.example".into(), "failing".into(), subject.into()]])
        });
        let shown = shown.await;
        assert!(shown.contains("\u{1b}["), "{shown:?}");
        let plain = text_alone(&shown);
        assert!(plain.contains("a@contoso.example  failing"), "{plain}");
        let widest = plain.lines().map(columns).max().unwrap();
        assert!(widest <= 60, "{widest} columns:\n{plain}");
    }

    /// Without the sequences that colour it.
    fn text_alone(shown: &str) -> String {
        let mut pieces = shown.split("\u{1b}[");
        let first = pieces.next().unwrap_or_default().to_owned();
        pieces.fold(first, |all, piece| all + piece.split_once('m').unwrap().1)
    }

    /// Columns on a terminal: the wide characters of this test take two.
    fn columns(line: &str) -> usize {
        line.chars().map(|c| if c > '\u{2fff}' { 2 } else { 1 }).sum()
    }

    #[test]
    fn a_cell_cannot_steer_the_terminal() {
        let shown = rows(["SUBJECT"], [["\u{1b}[2J\u{9b}1A first\nsecond".into()]]);
        assert_eq!(shown, "SUBJECT\n\u{fffd}[2J\u{fffd}1A first second\n");
    }
}
