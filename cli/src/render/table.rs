//! Tables and key/value lists.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};

use super::text;

/// A table with a header line, without lines around cells. On a terminal it keeps to the terminal's width.
pub fn rows<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = plain();
    table.set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| filled(&cell)));
    }
    finish(&mut table)
}

/// One thing with everything: a line a key.
pub fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = plain();
    for (key, value) in pairs {
        table.add_row([format!("{key}:"), filled(&value)]);
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
    table
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
    // What names the row is there to be copied: it is never broken in two.
    if let Some(first) = table.column_mut(0) {
        first.set_constraint(ColumnConstraint::ContentWidth);
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

    #[test]
    fn a_cell_cannot_steer_the_terminal() {
        let shown = rows(["SUBJECT"], [["\u{1b}[2J\u{9b}1A first\nsecond".into()]]);
        assert_eq!(shown, "SUBJECT\n\u{fffd}[2J\u{fffd}1A first second\n");
    }
}
