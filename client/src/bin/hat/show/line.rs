//! Lines on standard output and standard error.

use std::{
    fmt::Display,
    io::{self, ErrorKind, IsTerminal as _, Write as _, stderr, stdout},
};

use serde_json::Value;
use terminal_size::{Width, terminal_size_of};
use textwrap::{Options, WordSeparator, WordSplitter};

use super::{paper::Paper, plain};
use crate::exit::Exit;

/// Prints a line on standard error. If nobody reads it any more, that is no reason to stop.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

/// Says on standard error what people read, broken between words where a terminal is too narrow. Commands stay whole. The text is safe for
/// a terminal already and may have colours.
pub(crate) fn say_prose(text: &str) {
    let is_terminal = stderr().is_terminal();
    let width = terminal_size_of(stderr()).filter(|_| is_terminal).map(|(Width(columns), _)| usize::from(columns));
    broken(text, width).iter().for_each(say);
}

/// Prints a line of data as it is, also where a terminal breaks it.
pub(crate) fn print_whole(line: &str) {
    print_styled(&plain::text(line));
}

/// Prints a line that people read. A terminal that is too narrow for a line would break it within a word; here it is broken between words.
pub(crate) fn print_line(line: &str) {
    broken(&plain::text(line), Paper::stdout(false).width).iter().for_each(|part| print_styled(part));
}

/// Prints lines that people read.
pub(crate) fn print_lines(lines: &[String]) {
    lines.iter().for_each(|line| print_line(line));
}

/// A line in parts that fit the width, all but the first indented. What stands between backticks is a command and stays whole.
fn broken(line: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width else { return vec![line.to_owned()] };
    let is_command = |part: usize| part % 2 == 1;
    let whole = line.split('`').enumerate();
    let whole =
        whole.map(|(part, text)| if is_command(part) { text.replace(' ', HARD_SPACE) } else { text.to_owned() });
    let line = &whole.collect::<Vec<_>>().join("`");
    let indent = " ".repeat(2 + line.len() - line.trim_start_matches(' ').len());
    let options = Options::new(width).subsequent_indent(&indent).break_words(false);
    let options = options.word_splitter(WordSplitter::NoHyphenation).word_separator(WordSeparator::AsciiSpace);
    textwrap::wrap(line, options).iter().map(|part| part.replace(HARD_SPACE, " ")).collect()
}

/// A space at which a line is not broken.
const HARD_SPACE: &str = "\u{a0}";

/// Prints a row of data: its cells with tabs between them, for `cut`, `sort` and spreadsheets. `raw` prints the cells as they are.
pub(crate) fn print_row(cells: &[String], raw: bool) {
    print_styled(&row(cells, raw));
}

/// A row of data as [`print_row`] prints it.
pub(crate) fn row(cells: &[String], raw: bool) -> String {
    let cells = cells.iter().map(|cell| if raw { cell.as_str().into() } else { plain::spreadsheet_cell(cell) });
    cells.collect::<Vec<_>>().join("\t")
}

/// Prints one object as a line, for programs.
pub(crate) fn print_json(value: &Value) {
    print_styled(&plain::json(&value.to_string()));
}

/// Prints lines that are safe for a terminal already and may have colours, such as those of a table.
pub(crate) fn print_table(lines: &[String]) {
    lines.iter().for_each(|line| print_styled(line));
}

/// Prints a line that is safe for a terminal already and may have colours. Ends the process if the line cannot be written; this is a success
/// if nobody reads any more, as in `hat jobs | head`.
pub(crate) fn print_styled(line: &str) {
    printed(writeln!(stdout(), "{line}"));
}

/// What came of writing to standard output. Ends the process if that has failed, as [`print_styled`] says.
pub(crate) fn printed<T>(result: io::Result<T>) -> T {
    match result {
        Ok(written) => written,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(Exit::Ok as i32),
        Err(error) => {
            say(format_args!("error: failed to write to standard output: {error}"));
            std::process::exit(Exit::Local as i32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_between_words_and_only_where_it_is_too_long() {
        let line = "  18 of 20 held-out photos  are right";
        assert_eq!(broken(line, Some(20)), ["  18 of 20 held-out", "    photos  are", "    right"]);
        assert_eq!(broken(line, Some(37)), [line]);
        assert_eq!(broken(line, None), [line], "a pipe has no width");
        assert_eq!(broken("next: `hat jobs watch 01`", Some(12)), ["next:", "  `hat jobs watch 01`"]);
        assert_eq!(broken("a/very-long-path/of-one-word.jpg", Some(10)), ["a/very-long-path/of-one-word.jpg"]);
    }
}
