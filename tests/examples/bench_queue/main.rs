//! Full cycles a second (submit, claim, complete, all durable) beside BullMQ and Celery: `make bench-queue`.
//!
//! The contenders take turns. Each turn has its own processes and stores, and the medians are compared. No contender computes anything. The
//! payload, the slots and the bulk size are the same for all, and the CPU time of the load generator is shown separately.

mod executor;
mod measure;
mod ours;
mod overload;
mod peers;

use clap::{Parser, ValueEnum};

use measure::{Latency, Throughput, median};
use ours::{Ours, Store};
use peers::{Peer, Sync};

type Failure = Box<dyn std::error::Error + Send + std::marker::Sync>;

/// How many tasks the worker runs at a time, in every contender.
const SLOTS: u32 = 8;
/// How many tasks our workers take ahead of their slots. Together with the running tasks that is four for each slot, as with Celery. Real
/// workers take more where tasks take no time. The workers of BullMQ take none.
const AHEAD: u32 = 3 * SLOTS;
/// How many jobs one call brings.
const BULK: usize = 500;
/// The size of a job's payload, in bytes. The spec of a classification has about this size.
const PAYLOAD_BYTES: usize = 150;
/// How often jobs are taken from a long queue, and how many at a time.
const DRAINS: usize = 5;
const DRAINED: usize = 2_000;
/// How many workers there are at the same time.
const WORKERS: [usize; 4] = [1, 2, 4, 8];
/// How many jobs are sent one at a time to measure how soon each of them starts.
const TRICKLE: usize = 300;

/// Full cycles a second beside other queues, and how the cost grows.
#[derive(Debug, Parser)]
struct Settings {
    /// Number of turns of each contender
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Number of jobs in one turn
    #[arg(long, default_value_t = 20_000)]
    jobs: usize,
    /// Queue lengths at which the cost of a cycle is measured. It takes minutes to fill a queue of 1000000 jobs
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000")]
    depths: Vec<usize>,
    /// Number of workers that wait for work at the same time
    #[arg(long, default_value_t = 1_000)]
    workers: usize,
    /// Leave the other queues out
    #[arg(long)]
    alone: bool,
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::value_variants().to_vec())]
    parts: Vec<Part>,
}

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Full cycles beside other queues
    Compare,
    /// Memory of a coordinator with a long queue
    Memory,
    /// Many workers that wait for work
    Workers,
    /// Full cycles with several workers
    Scale,
    /// Cycles before a long queue
    Depths,
    /// Ten times the nominal load
    Overload,
    /// Small jobs in a real executor, near and far from the coordinator
    Executor,
}

/// A contender.
#[derive(Debug, Clone, Copy)]
enum Contender {
    /// A coordinator whose workers take this many tasks ahead of their slots.
    Ours(Store, u32),
    BullMq(Sync),
    Celery,
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Ours(_, 0) => "  the same, none taken ahead",
            Self::Ours(store, _) => store.name(),
            Self::BullMq(Sync::Always) => "BullMQ, appendfsync always",
            Self::BullMq(Sync::EverySecond) => "BullMQ, appendfsync everysec",
            Self::Celery => "Celery, appendfsync everysec",
        }
    }

    /// Full cycles a second with this many workers.
    async fn cycles_per_s(self, jobs: usize, workers: usize) -> Result<f64, Failure> {
        match self {
            Self::Ours(store, ahead) => {
                let mut ours = Ours::start(store).await?.taking_ahead(ahead);
                Ok(ours.cycles(jobs, BULK, workers).await?.cycles_per_s)
            }
            Self::BullMq(sync) => Peer::bullmq(sync)?.shared_cycles(jobs, BULK, workers),
            Self::Celery => Err("it is measured with one worker only".into()),
        }
    }

    async fn turn(self, settings: &Settings) -> Result<(Throughput, Latency), Failure> {
        match self {
            Self::Ours(store, ahead) => {
                let mut ours = Ours::start(store).await?.taking_ahead(ahead);
                Ok((ours.cycles(settings.jobs, BULK, 1).await?, ours.trickle(TRICKLE).await?))
            }
            Self::BullMq(sync) => Peer::bullmq(sync)?.turn(settings.jobs, BULK),
            Self::Celery => Peer::celery()?.turn(settings.jobs / 10, BULK),
        }
    }
}

fn main() -> Result<(), Failure> {
    let settings = Settings::parse();
    // One thread, like the workers of the other contenders.
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let all = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if settings.parts.contains(&Part::Compare) {
        one.block_on(compare(&settings))?;
    }
    if settings.parts.contains(&Part::Scale) {
        one.block_on(scale(&settings))?;
    }
    if settings.parts.contains(&Part::Executor) {
        all.block_on(executor::executor(settings.rounds))?;
    }
    let of_each_store = |part: &&Part| !matches!(part, Part::Compare | Part::Scale | Part::Executor);
    let of_each_store = settings.parts.iter().filter(of_each_store);
    let of_each_store: Vec<&Part> = of_each_store.collect();
    for store in Store::ALL.into_iter().filter(|_| !of_each_store.is_empty()) {
        println!("{}", store.name());
        for part in &of_each_store {
            match part {
                Part::Compare | Part::Scale | Part::Executor => {}
                Part::Memory => one.block_on(memory(store, 100_000))?,
                Part::Workers => one.block_on(many_workers(store, settings.workers))?,
                Part::Depths => one.block_on(depths(store, &settings.depths))?,
                Part::Overload => {
                    for jobs_per_call in [10, 100] {
                        all.block_on(overload::overload(store, jobs_per_call))?;
                    }
                }
            }
        }
    }
    Ok(())
}

async fn compare(settings: &Settings) -> Result<(), Failure> {
    let ours = Store::ALL.map(|store| [AHEAD, 0].map(|ahead| Contender::Ours(store, ahead))).concat();
    let mut contenders = ours.clone();
    if !settings.alone {
        contenders.extend([Contender::BullMq(Sync::EverySecond), Contender::BullMq(Sync::Always), Contender::Celery]);
    }
    let mut turns: Vec<Vec<(Throughput, Latency)>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..settings.rounds {
        for (contender, turns) in contenders.iter().zip(&mut turns) {
            turns.push(contender.turn(settings).await?);
        }
    }
    println!("{SLOTS} slots, bulks of {BULK}, {PAYLOAD_BYTES} bytes of payload, medians of {} turns", settings.rounds);
    println!(
        "{:<30} {:>9} {:>12} {:>12} {:>13} {:>13}",
        "", "cycles/s", "server us", "clients us", "start p50 ms", "p99 ms"
    );
    let rate = |turns: &[(Throughput, Latency)]| median(turns.iter().map(|(throughput, _)| throughput.cycles_per_s));
    let best = turns[..ours.len()].iter().map(|turns| rate(turns)).fold(0.0, f64::max);
    for (contender, turns) in contenders.iter().zip(&turns) {
        let of = |figure: fn(&(Throughput, Latency)) -> f64| median(turns.iter().map(figure));
        println!(
            "{:<30} {:>9.0} {:>12.0} {:>12.0} {:>13.2} {:>13.2}   our faster store is {:.2} times as fast",
            contender.name(),
            rate(turns),
            of(|(throughput, _)| throughput.server_cpu_us),
            of(|(throughput, _)| throughput.client_cpu_us),
            of(|(_, latency)| latency.p50_ms),
            of(|(_, latency)| latency.p99_ms),
            best / rate(turns),
        );
    }
    Ok(())
}

/// Measures the memory of the coordinator while this many jobs are queued.
async fn memory(store: Store, jobs: usize) -> Result<(), Failure> {
    let mut ours = Ours::start(store).await?;
    let before = ours.memory_mib()?;
    ours.fill(jobs).await?;
    println!("{jobs} jobs queued: the coordinator holds {:.0} MiB, {before:.0} MiB without them", ours.memory_mib()?);
    Ok(())
}

/// Measures what waiting workers cost, and how soon one of them gets a job.
async fn many_workers(store: Store, count: usize) -> Result<(), Failure> {
    let mut ours = Ours::start(store).await?;
    let idle = ours.idle_cpu_percent(count).await?;
    let latency = ours.trickle(TRICKLE).await?;
    println!(
        "{count} workers waiting: {idle:.1}% of a core while idle; submit to start p50 {:.2} ms, p99 {:.2} ms",
        latency.p50_ms, latency.p99_ms
    );
    Ok(())
}

/// Measures full cycles with several workers of [`SLOTS`] slots each, in turns with BullMQ.
async fn scale(settings: &Settings) -> Result<(), Failure> {
    let ours = Store::ALL.map(|store| Contender::Ours(store, AHEAD));
    let others = [Contender::BullMq(Sync::EverySecond), Contender::BullMq(Sync::Always)];
    let contenders = ours.into_iter().chain(others.into_iter().filter(|_| !settings.alone));
    let contenders: Vec<Contender> = contenders.collect();
    println!("cycles a second with several workers of {SLOTS} slots, medians of {} turns", settings.rounds);
    println!("{:<30} {}", "", WORKERS.map(|workers| format!("{workers:>9}")).concat());
    let mut turns = vec![[const { Vec::new() }; WORKERS.len()]; contenders.len()];
    for _ in 0..settings.rounds {
        for (contender, turns) in contenders.iter().zip(&mut turns) {
            for (workers, turns) in WORKERS.into_iter().zip(turns) {
                turns.push(contender.cycles_per_s(settings.jobs, workers).await?);
            }
        }
    }
    for (contender, turns) in contenders.iter().zip(turns) {
        let medians = turns.map(|turns: Vec<f64>| format!("{:>9.0}", median(turns.into_iter())));
        println!("{:<30} {}", contender.name(), medians.concat());
    }
    Ok(())
}

/// Measures what a cycle costs while this many jobs stay queued.
async fn depths(store: Store, depths: &[usize]) -> Result<(), Failure> {
    for depth in depths {
        let mut ours = Ours::start(store).await?;
        ours.fill(*depth).await?;
        let mut turns = Vec::with_capacity(DRAINS);
        for _ in 0..DRAINS {
            ours.fill(DRAINED).await?;
            ours.until_redis_rewrites_nothing().await?;
            turns.push(ours.drain_some(DRAINED).await?);
        }
        println!(
            "{depth:>8} queued: {:.0} claims and completions a second, {:.0} us of CPU of the servers each",
            median(turns.iter().map(|turn| turn.cycles_per_s)),
            median(turns.iter().map(|turn| turn.server_cpu_us)),
        );
    }
    Ok(())
}
