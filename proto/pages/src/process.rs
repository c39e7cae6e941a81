//! The metrics of the process itself, by the names that Prometheus' own libraries use, read from `/proc`.

use std::fs;

use crate::Metric;

/// Ticks of the clock a second in what the kernel tells processes; the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;
/// Which words of `/proc/self/stat` behind the name of the process hold what.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const THREADS: usize = 17;
const START_TICKS: usize = 19;

const CPU: Metric = Metric::counter("process_cpu_seconds_total", "Whole seconds of processor time");
const MEMORY: Metric = Metric::gauge("process_resident_memory_bytes", "Bytes of memory that are resident");
const OPEN_FILES: Metric = Metric::gauge("process_open_fds", "File descriptors that are open");
const MAX_FILES: Metric = Metric::gauge("process_max_fds", "File descriptors that may be open");
const THREAD_COUNT: Metric = Metric::gauge("process_threads", "Threads");
const START: Metric = Metric::gauge("process_start_time_seconds", "When the process began, in seconds since 1970");

/// All of them.
pub(crate) const ALL: [Metric; 6] = [CPU, MEMORY, OPEN_FILES, MAX_FILES, THREAD_COUNT, START];

/// Reads them. What the system does not tell keeps its last value.
pub(crate) fn measure() {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name may have spaces and brackets in it.
    let words: Vec<u64> = stat.rsplit_once(") ").map_or_else(Vec::new, |(_, rest)| {
        rest.split_whitespace().map(|word| word.parse().unwrap_or_default()).collect()
    });
    if let (Some(user), Some(system)) = (words.get(USER_TICKS), words.get(SYSTEM_TICKS)) {
        metrics::counter!(CPU.name()).absolute((user + system) / TICKS_PER_SECOND);
    }
    if let (Some(ticks), Some(booted)) = (words.get(START_TICKS), field("/proc/stat", "btime ")) {
        set(START, booted + ticks / TICKS_PER_SECOND);
    }
    words.get(THREADS).into_iter().for_each(|threads| set(THREAD_COUNT, *threads));
    let resident_kib = field("/proc/self/status", "VmRSS:");
    resident_kib.into_iter().for_each(|kib| set(MEMORY, kib << 10));
    let open = fs::read_dir("/proc/self/fd").map(Iterator::count);
    // One of them is open for the count.
    open.into_iter().for_each(|open| set(OPEN_FILES, open.saturating_sub(1) as u64));
    field("/proc/self/limits", "Max open files").into_iter().for_each(|most| set(MAX_FILES, most));
}

fn set(metric: Metric, value: u64) {
    metrics::gauge!(metric.name()).set(value as f64);
}

/// The first number in the line of a file that begins so.
fn field(path: &str, start: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(start)?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_what_is_asked_of_it() {
        assert!(field("/proc/stat", "btime ").is_some_and(|booted| booted > 1_500_000_000));
        assert!(field("/proc/self/status", "VmRSS:").is_some_and(|kib| kib > 100));
        assert!(field("/proc/self/limits", "Max open files").is_some_and(|most| most > 10));
        assert_eq!(field("/nowhere", "x"), None);
    }
}
