//! How far files are read or sent, how fast, and how long that still takes. Times are in milliseconds of a clock that only the caller reads.

use sortinghat_client::Amount;
use sortinghat_proto::v1::Progress;

use super::estimate::{LEAST_MS, Step};
use crate::show::{numbers::bytes, progress::words};

/// Where there is no terminal, after how long the first line is told, and how long after each line the next one.
const FIRST_LINE_MS: u64 = 5_000;
const NEXT_LINE_MS: u64 = 10_000;

/// Work on files in phases.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    phase: &'static str,
    step: Step,
    /// How much was done when the phase began, and when that was.
    first: (Amount, u64),
    amount: Amount,
    /// When the next line is told.
    line_ms: u64,
}

impl Transfer {
    pub(super) fn new() -> Self {
        Self { line_ms: FIRST_LINE_MS, ..Self::default() }
    }

    pub(super) fn progress(&mut self, phase: &'static str, amount: Amount, now_ms: u64) {
        // What was done before the phase began, such as files whose digests are known, says nothing of its pace.
        if self.phase != phase || amount.bytes < self.amount.bytes {
            (self.phase, self.first) = (phase, (amount, now_ms));
        }
        self.amount = amount;
        let (done, total) = match amount.of_bytes {
            0 => (amount.files, amount.of_files),
            of_bytes => (amount.bytes, of_bytes),
        };
        let progress = Progress { phase: phase.to_owned(), done, total, unit: "bytes".to_owned() };
        self.step.progress(&progress, now_ms);
    }

    pub(super) fn share(&self) -> f64 {
        self.step.share().unwrap_or_default()
    }

    pub(super) fn left(&self, now_ms: u64) -> Option<String> {
        self.step.left(now_ms)
    }

    /// "uploading, 1,200 of 5,000 files, 3.1 MiB/s".
    pub(super) fn words(&self, now_ms: u64) -> String {
        let Amount { files, of_files, .. } = self.amount;
        let (first, since_ms) = self.first;
        let progress =
            Progress { phase: self.phase.to_owned(), done: files, total: of_files, unit: "files".to_owned() };
        let (done, ms) = (self.amount.bytes - first.bytes, now_ms.saturating_sub(since_ms));
        let rate = if ms < LEAST_MS || done == 0 { String::new() } else { format!(", {}/s", bytes(done * 1000 / ms)) };
        words(&progress) + &rate
    }

    /// A line for those who see no bar, if it is time for one.
    pub(super) fn line(&mut self, now_ms: u64) -> Option<String> {
        if now_ms < self.line_ms {
            return None;
        }
        self.line_ms = now_ms + NEXT_LINE_MS;
        let left = self.left(now_ms).map(|left| format!(", {left}")).unwrap_or_default();
        Some(self.words(now_ms) + &left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(files: u64, bytes: u64) -> Amount {
        Amount { files, of_files: 4_000, bytes, of_bytes: 400 << 20 }
    }

    #[test]
    fn a_transfer_tells_its_rate_and_the_time_left_and_each_phase_begins_anew() {
        let mut transfer = Transfer::new();
        transfer.progress("reading", amount(2_000, 200 << 20), 0);
        assert_eq!(transfer.words(0), "reading, 2,000 of 4,000 files");
        transfer.progress("reading", amount(3_000, 300 << 20), 2_000);
        assert_eq!(transfer.words(2_000), "reading, 3,000 of 4,000 files, 50.0 MiB/s", "half was known before");
        assert_eq!(transfer.left(2_000).as_deref(), Some("2.0 s left of this step"));
        transfer.progress("uploading", amount(0, 0), 4_000);
        assert_eq!((transfer.words(4_000).as_str(), transfer.left(4_000)), ("uploading, 0 of 4,000 files", None));
    }

    #[test]
    fn where_there_is_no_terminal_a_line_is_told_every_ten_seconds_of_a_long_transfer() {
        let mut transfer = Transfer::new();
        transfer.progress("uploading", amount(0, 0), 0);
        let mut told = Vec::new();
        for second in 1..=16 {
            transfer.progress("uploading", amount(second * 100, (second * 10) << 20), second * 1_000);
            told.extend(transfer.line(second * 1_000));
        }
        assert_eq!(
            told,
            [
                "uploading, 500 of 4,000 files, 10.0 MiB/s, 35 s left of this step",
                "uploading, 1,500 of 4,000 files, 10.0 MiB/s, 25 s left of this step"
            ]
        );
    }

    #[test]
    fn files_without_any_byte_are_counted_by_their_number() {
        let mut transfer = Transfer::new();
        transfer.progress("uploading", Amount { files: 1, of_files: 2, ..Amount::default() }, 0);
        assert!((transfer.share() - 0.5).abs() < 1e-9);
    }
}
