//! Makes foreign text, such as the names of files and classes, safe for a terminal: control characters, which could command the terminal,
//! are escaped.

use std::borrow::Cow;

/// Escapes every control character except line ends and tabs.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escape(text, |character| character.is_control() && !matches!(character, '\n' | '\t'))
}

/// Escapes every control character, for a cell of a row.
pub(crate) fn cell(text: &str) -> Cow<'_, str> {
    escape(text, char::is_control)
}

fn escape(text: &str, is_unsafe: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_unsafe) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_unsafe(character) { escaped.extend(character.escape_default()) } else { escaped.push(character) }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_command_the_terminal_or_break_a_row_is_escaped() {
        let name = "\x1b]0;owned\x07\u{9b}2J.jpg\tb\n猫";
        assert_eq!(text(name), "\\u{1b}]0;owned\\u{7}\\u{9b}2J.jpg\tb\n猫");
        assert_eq!(cell(name), "\\u{1b}]0;owned\\u{7}\\u{9b}2J.jpg\\tb\\n猫");
        assert!(matches!(cell("été.png"), Cow::Borrowed(_)));
    }
}
