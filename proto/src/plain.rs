//! The rule that makes foreign text harmless: names of files and classes, paths, and messages that quote them.
//!
//! Such text can hold characters that command a terminal (control characters), that make it show something else than what is there
//! (bidirectional characters), or that make a spreadsheet run a cell as a formula. The rule is the same wherever such text is shown or
//! written. JSON stays exact: there, the characters are written as JSON's own escapes, which every reader undoes.

use std::{borrow::Cow, fmt::Write as _};

/// Text for a terminal: every unsafe character except line ends and tabs is escaped.
pub fn text(text: &str) -> Cow<'_, str> {
    escape(text, |character| is_unsafe(character) && !matches!(character, '\n' | '\t'), rust_escape)
}

/// One cell of a row for a terminal: every unsafe character is escaped, also line ends and tabs.
pub fn cell(text: &str) -> Cow<'_, str> {
    escape(text, is_unsafe, rust_escape)
}

/// One cell of a file that a spreadsheet may open: like [`cell`], and with an apostrophe in front if a spreadsheet would take the cell for
/// a formula. That is the advice of OWASP on CSV injection.
pub fn spreadsheet_cell(text: &str) -> Cow<'_, str> {
    match text.starts_with(FORMULA_SIGNS) {
        true => format!("'{}", cell(text)).into(),
        false => cell(text),
    }
}

/// A JSON document for a terminal or a cell. Its value does not change, because in valid JSON such characters stand inside of strings only.
pub fn json(document: &str) -> Cow<'_, str> {
    escape(document, is_unsafe, |escaped, character| {
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    })
}

/// What begins a formula, in ASCII and in the full-width forms that East Asian versions of spreadsheets accept. A tab or a carriage return
/// in front is skipped by a spreadsheet, and the sign behind it counts.
const FORMULA_SIGNS: [char; 10] = ['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠'];

/// Whether a character commands a terminal or changes the direction or the lines of what is shown.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn rust_escape(escaped: &mut String, character: char) {
    escaped.extend(character.escape_default());
}

fn escape(text: &str, is_unsafe: impl Fn(char) -> bool, write: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.contains(&is_unsafe) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_unsafe(character) { write(&mut escaped, character) } else { escaped.push(character) }
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

    #[test]
    fn a_name_that_would_show_in_another_order_than_it_is_written_in_is_escaped() {
        assert_eq!(text("photo\u{202e}gpj.exe"), "photo\\u{202e}gpj.exe");
        assert_eq!(cell("\u{2066}a\u{2069}\u{200f}\u{61c}\u{2028}"), "\\u{2066}a\\u{2069}\\u{200f}\\u{61c}\\u{2028}");
        // A joiner is part of ordinary words and pictures, and the scripts that run from right to left need no mark.
        assert_eq!(cell("👩\u{200d}🌾 کتاب"), "👩\u{200d}🌾 کتاب");
    }

    #[test]
    fn a_cell_that_a_spreadsheet_would_run_begins_with_an_apostrophe() {
        for formula in ["=cmd|'/c calc'!A1", "+1", "-1", "@SUM(A1)", "＝1"] {
            assert_eq!(spreadsheet_cell(formula), format!("'{formula}"));
        }
        assert_eq!([spreadsheet_cell("\t=1"), spreadsheet_cell("\r=1")], ["'\\t=1", "'\\r=1"]);
        assert_eq!([spreadsheet_cell("a=1"), spreadsheet_cell("")], ["a=1", ""]);
    }

    #[test]
    fn a_json_document_is_harmless_and_says_the_same() {
        let name = "\u{9b}2J\u{202e}\x7f猫\x1b";
        let document = serde_json::to_string(name).expect("a string");
        let shown = json(&document);
        assert_eq!(shown, "\"\\u009b2J\\u202e\\u007f猫\\u001b\"");
        assert_eq!(serde_json::from_str::<String>(&shown).expect("JSON"), name);
    }
}
