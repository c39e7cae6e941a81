//! Figures, and how they are measured.

use std::{fs, time::Duration};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};

use crate::Failure;

/// The cost of full cycles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Throughput {
    pub(crate) cycles_per_s: f64,
    /// The CPU time of the queue's servers for one job, in microseconds.
    pub(crate) server_cpu_us: f64,
    /// The CPU time of the producer and the worker for one job, in microseconds.
    pub(crate) client_cpu_us: f64,
}

impl Throughput {
    pub(crate) fn of(jobs: usize, elapsed: Duration, server: Duration, client: Duration) -> Self {
        let each_us = |cpu: Duration| cpu.as_secs_f64() * 1e6 / jobs as f64;
        Self {
            cycles_per_s: jobs as f64 / elapsed.as_secs_f64(),
            server_cpu_us: each_us(server),
            client_cpu_us: each_us(client),
        }
    }
}

/// The times from the call that submits a job to the job's start at the worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Latency {
    pub(crate) fn of(mut samples_ms: Vec<f64>) -> Self {
        samples_ms.sort_by(f64::total_cmp);
        let quantile = |percent: usize| samples_ms[(samples_ms.len() * percent).div_ceil(100).max(1) - 1];
        Self { p50_ms: quantile(50), p99_ms: quantile(99) }
    }
}

pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The CPU time of another process so far.
pub(crate) fn cpu_of(pid: i32) -> Result<Duration, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may contain any character.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // Linux counts in hundredths of a second on every architecture that this runs on.
    Ok(Duration::from_millis(ticks * 10))
}

/// The CPU time of this process so far.
pub(crate) fn own_cpu() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(microseconds.unsigned_abs()))
}

/// The memory of another process, in MiB.
pub(crate) fn memory_of_mib(pid: i32) -> Result<f64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib / 1024.0)
}
