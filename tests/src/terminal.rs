//! A terminal of a given width, in which `hat` runs as it does before a person.

use std::{
    ffi::OsStr,
    fs::File,
    io::Read as _,
    num::NonZero,
    process::{Command, Stdio},
};

use nix::pty::{OpenptyResult, Winsize, openpty};

/// More lines than any command prints, so that nothing leaves the screen.
const LINES: NonZero<u16> = NonZero::new(2_000).expect("it is not 0");

/// What is on the screen once a command has ended.
#[derive(Debug, Clone)]
pub struct Screen {
    /// The exit code; -1 if a signal ended the command.
    pub code: i32,
    /// The lines as a person sees them: the terminal breaks a line that is too wide.
    pub lines: Vec<String>,
    /// The bytes that the command wrote, with every control sequence.
    pub bytes: Vec<u8>,
}

/// Runs `command` in a terminal with so many columns.
pub(crate) fn run(command: &mut Command, columns: NonZero<u16>) -> Screen {
    let size = Winsize { ws_row: 50, ws_col: columns.get(), ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("the system has pseudo-terminals");
    let end = || Stdio::from(slave.try_clone().expect("the system has file descriptors"));
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("hat starts");
    // The command holds the terminal open until here, and the child until it ends.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(slave);
    let bytes = read_to_end(File::from(master));
    let code = child.wait().expect("hat is our child").code().unwrap_or(-1);
    let mut parser = vt100::Parser::new(LINES, columns, 0);
    parser.process(&bytes);
    let mut lines: Vec<String> =
        parser.screen().rows(0, columns.get()).map(|line| line.trim_end().to_owned()).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    Screen { code, lines, bytes }
}

/// Reads until nobody holds the other end of the terminal any more. Linux reports that as an error.
fn read_to_end(mut master: File) -> Vec<u8> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = master.read(&mut piece) {
        bytes.extend_from_slice(&piece[..length]);
    }
    bytes
}

impl crate::Hat {
    /// Runs `hat` with these arguments in a terminal with so many columns.
    pub fn on_terminal<A: AsRef<OsStr>>(
        &self,
        columns: NonZero<u16>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Screen {
        run(self.command().args(arguments).env("TERM", "xterm-256color"), columns)
    }
}
