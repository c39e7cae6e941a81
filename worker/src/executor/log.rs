//! Reads the lines that an executor prints. They are bounded, and the last ones are kept to explain why the executor died.

use std::collections::VecDeque;

use sortinghat_proto::limits;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::mpsc,
};

use crate::out_of_memory;

/// How many lines the report of a death quotes.
const TAIL_LINES: usize = 12;
/// Lines of one task that go into the worker's own log, which is not bounded otherwise.
const MAX_LOGGED_LINES: usize = 10_000;

/// Forwards each line of `stream`, cut to the longest text that is kept, until the stream ends.
pub(super) async fn forward_lines(mut stream: impl AsyncRead + Unpin, lines: mpsc::Sender<String>) {
    let mut buffer = vec![0; 8192];
    let mut line = Vec::new();
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        for &byte in &buffer[..read] {
            if byte != b'\n' {
                // The rest of an endless line is not kept.
                if line.len() < limits::MAX_TEXT_BYTES {
                    line.push(byte);
                }
            } else if lines.send(text_of(&mut line)).await.is_err() {
                return;
            }
        }
    }
    if !line.is_empty() {
        // If nobody listens any more, nobody needs the line.
        let _ = lines.send(text_of(&mut line)).await;
    }
}

fn text_of(line: &mut Vec<u8>) -> String {
    // A library may colour what it prints, as for a terminal.
    let plain = anstream::adapter::strip_bytes(&std::mem::take(line)).into_vec();
    let mut text = String::from_utf8_lossy(&plain).trim_end().to_owned();
    // Replacement characters are longer than the bytes they stand for.
    text.truncate(text.floor_char_boundary(limits::MAX_TEXT_BYTES));
    text
}

/// The last lines that an executor printed.
#[derive(Debug, Default)]
pub(super) struct Tail {
    last: VecDeque<String>,
    /// All lines so far.
    lines: usize,
}

impl Tail {
    /// Keeps a line; logs it, unless there were too many.
    pub(super) fn push(&mut self, slot: usize, line: String) {
        self.lines += 1;
        match self.lines {
            ..=MAX_LOGGED_LINES => tracing::info!(target: "executor", slot, "{line}"),
            line if line == MAX_LOGGED_LINES + 1 => {
                tracing::warn!(
                    slot,
                    "the executor prints more than {MAX_LOGGED_LINES} lines; the others are not logged"
                );
            }
            _ => {}
        }
        if self.last.len() == TAIL_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether one of the lines says that an allocation failed.
    pub(super) fn says_that_memory_ran_out(&self) -> bool {
        self.last.iter().any(|line| out_of_memory::is_last_word(line))
    }

    /// `cause`, followed by the last lines.
    pub(super) fn explain(&self, cause: &str) -> String {
        if self.last.is_empty() {
            return cause.to_owned();
        }
        let lines: Vec<_> = self.last.iter().map(String::as_str).collect();
        let mut text = format!("{cause}; it printed last:\n{}", lines.join("\n"));
        text.truncate(text.floor_char_boundary(limits::MAX_TEXT_BYTES));
        text
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    async fn lines_of(content: &[u8]) -> Vec<String> {
        let (sender, mut receiver) = mpsc::channel(16);
        forward_lines(content, sender).await;
        let mut lines = Vec::new();
        while let Some(line) = receiver.recv().await {
            lines.push(line);
        }
        lines
    }

    #[tokio::test]
    async fn lines_arrive_without_their_ends_and_the_last_one_needs_none() {
        assert_eq!(lines_of(b"one\ntwo\r\n\nterminate called").await, ["one", "two", "", "terminate called"]);
    }

    #[tokio::test]
    async fn colours_are_left_out() {
        assert_eq!(lines_of(b"\x1b[1;31merror\x1b[0m: no \x1b[4mphoto\x1b[24m\n").await, ["error: no photo"]);
    }

    #[tokio::test]
    async fn an_endless_line_that_is_not_text_is_cut() {
        let lines = lines_of(&[0xff; 100_000]).await;
        assert_eq!(lines.len(), 1);
        assert!(lines[0].len() <= limits::MAX_TEXT_BYTES);
    }

    #[test]
    fn a_death_is_explained_with_the_last_lines_only() {
        let mut tail = Tail::default();
        assert_eq!(tail.explain("killed"), "killed");
        (0..50).for_each(|number| tail.push(0, format!("line {number}")));
        let text = tail.explain("killed");
        assert!(text.ends_with("line 49") && !text.contains("line 37\n"), "{text}");
    }

    #[test]
    fn a_process_that_prints_without_end_does_not_fill_the_workers_log() {
        let mut file = tempfile::tempfile().unwrap();
        let log = tracing_subscriber::fmt().with_writer(file.try_clone().unwrap()).with_ansi(false).finish();
        tracing::subscriber::with_default(log, || {
            let mut tail = Tail::default();
            (0..MAX_LOGGED_LINES + 50).for_each(|number| tail.push(0, format!("line {number}")));
            assert!(tail.explain("killed").ends_with(&format!("line {}", MAX_LOGGED_LINES + 49)), "the last are kept");
        });
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), MAX_LOGGED_LINES + 1, "and it is said that there are more");
    }
}
