//! Text of others on a terminal: names of files and classes, messages. What could command the terminal is written out instead.

use std::borrow::Cow;

/// With every control character written out but line ends and tabs.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    write_out(text, |character| character.is_control() && !matches!(character, '\n' | '\t'))
}

/// With every control character written out: one cell of a row.
pub(crate) fn cell(text: &str) -> Cow<'_, str> {
    write_out(text, char::is_control)
}

fn write_out(text: &str, commands: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&commands) {
        return text.into();
    }
    let mut written = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if commands(character) { written.extend(character.escape_default()) } else { written.push(character) }
    }
    written.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_command_the_terminal_or_break_a_row_is_written_out() {
        let name = "\x1b]0;owned\x07\u{9b}2J.jpg\tb\n猫";
        assert_eq!(text(name), "\\u{1b}]0;owned\\u{7}\\u{9b}2J.jpg\tb\n猫");
        assert_eq!(cell(name), "\\u{1b}]0;owned\\u{7}\\u{9b}2J.jpg\\tb\\n猫");
        assert!(matches!(cell("été.png"), Cow::Borrowed(_)));
    }
}
