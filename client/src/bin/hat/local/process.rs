//! Processes, identified by id and start time, so that an id that now belongs to another process is never taken for ours.

use std::{fs, io, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

const POLL: Duration = Duration::from_millis(20);
/// The position of the start time in `/proc/PID/stat`, counted from the field after the name: field 22 in proc(5).
const START_TIME_AFTER_NAME: usize = 19;

/// One process: its id, and when it started, in clock ticks since the machine's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessMark {
    pub(crate) pid: u32,
    start_ticks: u64,
}

impl ProcessMark {
    /// The process that has this id now.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_ticks = start_time(&stat).ok_or_else(|| io::Error::other("its status cannot be parsed"))?;
        Ok(Self { pid, start_ticks })
    }

    /// Whether this very process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid));
        // A zombie has ended; only its parent has not yet asked how.
        stat.is_ok_and(|stat| start_time(&stat) == Some(self.start_ticks) && !stat.contains(") Z "))
    }

    /// Sends a signal, unless the process has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.is_alive()
            && let Ok(pid) = i32::try_from(self.pid)
        {
            // If the process has ended in between, there is nothing to do.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Asks the process to end, waits for at most `patience`, and then kills it.
    pub(crate) async fn stop(&self, patience: Duration) {
        self.signal(Signal::SIGTERM);
        if !self.ends_within(patience).await {
            self.signal(Signal::SIGKILL);
            self.ends_within(patience).await;
        }
    }

    /// Waits until the process has ended, for at most `patience`, and returns whether it has.
    pub(crate) async fn ends_within(&self, patience: Duration) -> bool {
        let start = Instant::now();
        while self.is_alive() {
            if start.elapsed() > patience {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }
}

#[cfg(test)]
impl ProcessMark {
    /// A process that does not run: its id is too large to exist.
    pub(super) fn ended() -> Self {
        Self { pid: u32::MAX, start_ticks: 1 }
    }
}

fn start_time(stat: &str) -> Option<u64> {
    // The name may contain spaces and brackets. It ends at the last bracket of the line.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(START_TIME_AFTER_NAME)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_now_belongs_to_another_process_is_not_ours() {
        let own = ProcessMark::of(std::process::id()).expect("we run");
        assert!(own.is_alive());
        let former = ProcessMark { start_ticks: own.start_ticks - 1, ..own };
        assert!(!former.is_alive());
        former.signal(Signal::SIGKILL);
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let fields: Vec<String> = (3..30).map(|n| n.to_string()).collect();
        let stat = format!("17 (a) b (c) {}", fields.join(" "));
        assert_eq!(start_time(&stat), Some(22));
    }
}
