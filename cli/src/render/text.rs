//! Makes text of strangers harmless: subjects and names may hold sequences that steer a terminal.

/// One line: line breaks and tabs become spaces, other dangerous characters U+FFFD.
pub fn line(text: &str) -> String {
    text.replace("\r\n", " ").chars().map(|c| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { visible(c) }).collect()
}

/// Text of several lines: line breaks and tabs stay.
pub fn lines(text: &str) -> String {
    text.replace("\r\n", "\n").chars().map(|c| if matches!(c, '\n' | '\t') { c } else { visible(c) }).collect()
}

/// A word of a command line as it can be pasted into a POSIX shell.
pub fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", line(word).replace('\'', r"'\''"))
}

/// True for what must not reach a terminal as it is: control characters (among them ESC and the eight-bit CSI), and
/// marks that reorder what surrounds them or break lines.
pub fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn visible(c: char) -> char {
    if is_dangerous(c) { char::REPLACEMENT_CHARACTER } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        let hostile = "a\u{1b}[2Jb\u{9b}31mc\u{7}d\u{202e}e\r\nf\tg\u{0}h";
        assert_eq!(line(hostile), "a\u{fffd}[2Jb\u{fffd}31mc\u{fffd}d\u{fffd}e f g\u{fffd}h");
        assert_eq!(lines("a\r\nb\tc\u{1b}"), "a\nb\tc\u{fffd}");
    }

    #[test]
    fn a_word_is_one_word_for_a_shell() {
        assert_eq!(shell("https://a.example:7430"), "https://a.example:7430");
        assert_eq!(shell("Büro 1"), "'Büro 1'");
        assert_eq!(shell("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(shell(""), "''");
    }

    #[test]
    fn letters_of_the_world_stay() {
        let text = "Münster / \"Büro\" #1 🙂 \u{5e9}\u{5dc}\u{5d5}\u{5dd} 東京";
        assert_eq!(line(text), text);
    }
}
