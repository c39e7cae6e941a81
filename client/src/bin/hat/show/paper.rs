//! What lines are written on: a terminal of some width, with or without colours, or a pipe or file, which has neither.

use std::{
    fmt::Display,
    io::{IsTerminal as _, stdout},
};

use owo_colors::{AnsiColors, OwoColorize as _};
use terminal_size::{Width, terminal_size_of};

/// A terminal is never taken to be narrower than this, in columns.
const NARROWEST: usize = 40;

/// Width and colours of what standard output goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Paper {
    /// In columns; `None` for a pipe or a file, which is as wide as its lines.
    pub(crate) width: Option<usize>,
    /// Whether colours are wanted and can be shown.
    pub(crate) colours: bool,
}

/// How a cell is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tint {
    /// Not at all.
    #[default]
    None,
    /// All is well.
    Good,
    /// Something went wrong.
    Bad,
    /// It is being worked on.
    Busy,
    /// It waits.
    Waiting,
}

impl Paper {
    /// Standard output.
    pub(crate) fn stdout(colours_wanted: bool) -> Self {
        let is_terminal = stdout().is_terminal();
        let width = terminal_size_of(stdout()).map(|(Width(columns), _)| usize::from(columns).max(NARROWEST));
        Self { width: width.filter(|_| is_terminal), colours: colours_wanted && is_terminal }
    }

    /// `text` in this colour, if there are colours.
    pub(crate) fn tinted(self, text: impl Display, tint: Tint) -> String {
        let colour = match tint {
            Tint::None => return text.to_string(),
            Tint::Good => AnsiColors::Green,
            Tint::Bad => AnsiColors::Red,
            Tint::Busy => AnsiColors::Cyan,
            Tint::Waiting => AnsiColors::Yellow,
        };
        if self.colours { text.color(colour).to_string() } else { text.to_string() }
    }
}
