//! A terminal of some width, for commands that print to a person.

use std::{
    fs::File,
    io::Read as _,
    num::NonZero,
    process::{Command, ExitStatus, Stdio},
};

use nix::pty::{OpenptyResult, Winsize, openpty};

/// More lines than any command prints, so that nothing leaves the screen.
const LINES: NonZero<u16> = NonZero::new(1_000).expect("it is not 0");

/// What a command wrote to a terminal.
#[derive(Debug, Clone)]
pub struct Screen {
    /// The lines that are on the screen once the command has ended, without the spaces at their ends.
    pub lines: Vec<String>,
    /// Every byte, with what moves the cursor and erases lines.
    pub bytes: Vec<u8>,
    /// How the command ended.
    pub status: ExitStatus,
}

impl Screen {
    /// Runs a command in a terminal with so many columns.
    ///
    /// # Panics
    /// If the system has no pseudo-terminal, or the command does not start.
    pub fn of(mut command: Command, columns: u16) -> Self {
        let size = Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("the system has pseudo-terminals");
        let end = || Stdio::from(slave.try_clone().expect("the system has file descriptors"));
        command.env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end());
        let mut child = command.spawn().expect("the command starts");
        // Only the child holds the terminal open from here on.
        drop((command, slave));
        let (mut master, mut bytes, mut piece) = (File::from(master), Vec::new(), [0; 4096]);
        // Linux reports it as an error that nobody holds the other end any more.
        while let Ok(length @ 1..) = master.read(&mut piece) {
            bytes.extend_from_slice(&piece[..length]);
        }
        let status = child.wait().expect("it is our child");
        let mut parser = vt100::Parser::new(LINES, NonZero::new(columns).expect("a width"), 0);
        parser.process(&bytes);
        let mut lines: Vec<String> = parser.screen().rows(0, columns).map(|line| line.trim_end().to_owned()).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        Self { lines, bytes, status }
    }

    /// Whether the terminal broke a line because it was longer than the terminal is wide.
    pub fn has_broken_lines(&self) -> bool {
        self.lines.len() != self.bytes.iter().filter(|byte| **byte == b'\n').count()
    }
}
