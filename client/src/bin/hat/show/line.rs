//! Lines on standard output and standard error.

use std::{
    fmt::Display,
    io::{ErrorKind, Write as _, stderr, stdout},
};

use serde_json::Value;

use super::plain;
use crate::exit::Exit;

/// Prints a line on standard error. If nobody reads it any more, that is no reason to stop.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

/// Prints a line of data.
pub(crate) fn print_line(line: &str) {
    print_styled(&plain::text(line));
}

/// Prints lines of data.
pub(crate) fn print_lines(lines: &[String]) {
    lines.iter().for_each(|line| print_line(line));
}

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
    match writeln!(stdout(), "{line}") {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(Exit::Ok as i32),
        Err(error) => {
            say(format_args!("error: failed to write to standard output: {error}"));
            std::process::exit(Exit::Local as i32);
        }
    }
}
