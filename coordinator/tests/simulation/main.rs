//! Simulates the real API, engine and rules in virtual time, on a network and a store that fail: coordinators and workers crash, messages are
//! delayed and lost, the store is unavailable or does not report its verdicts. Each seed has a process of its own, so that it can be
//! repeated.

mod client;
mod faults;
mod ledger;
mod network;
mod store;
mod worker;

use std::{
    collections::BTreeSet,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::{SeedableRng as _, rngs::StdRng};
use sortinghat_coordinator::{
    app,
    engine::{Engine, ObjectPresence, Settings},
    objects::Objects,
};
use sortinghat_proto::{Digest, ObjectRef, Refusal, Tenant};
use tokio_util::sync::CancellationToken;

use ledger::Ledger;
use store::SharedStore;

/// How many seeds one run simulates. `SORTINGHAT_SIMULATIONS` sets another number, `SORTINGHAT_SEED` another first seed.
const SEEDS: u64 = 200;
/// The variable that names the seed for the process that simulates it.
const SEED: &str = "SORTINGHAT_SIMULATED_SEED";

/// The duration of a lease, in milliseconds.
const LEASE_MS: u32 = 2_000;
const COORDINATORS: [&str; 2] = ["coordinator-1", "coordinator-2"];
const WORKERS: [&str; 4] = ["worker-1", "worker-2", "worker-3", "worker-4"];
const TICK: Duration = Duration::from_millis(10);
/// Every job must have ended by this time.
const LONGEST: Duration = Duration::from_secs(900);

/// The objects, which are in memory.
struct Present(Objects);

#[async_trait::async_trait]
impl ObjectPresence for Present {
    async fn holds(&self, tenant: &Tenant, object: &ObjectRef) -> Result<bool, Refusal> {
        self.0.holds(tenant, object).await
    }

    async fn is_sound(&self, tenant: &Tenant, digest: &Digest) -> Result<bool, Refusal> {
        self.0.is_sound(tenant, digest).await
    }

    async fn document(&self, tenant: &Tenant, digest: &Digest) -> Result<Option<Bytes>, Refusal> {
        self.0.document(tenant, digest).await
    }

    fn shows_outputs(&self) -> bool {
        false
    }
}

/// Runs a coordinator until it crashes.
async fn coordinator(store: SharedStore, objects: Objects, seed: u64) -> turmoil::Result {
    let settings = Settings {
        lease_ttl_ms: LEASE_MS,
        keepalive_ms: 2_000,
        seed: Some(seed),
        reads_ahead: true,
        ..Settings::default()
    };
    let store = Arc::new(store.faulty(seed));
    let engine = Engine::new(store, Arc::new(Present(objects.clone())), settings);
    let sweeper = engine.clone();
    tokio::spawn(async move { sweeper.run(CancellationToken::new()).await });
    app::serve_connections(&engine, objects, network::connections().await?).await?;
    Ok(())
}

/// Simulates one seed and returns what happened, in one line.
fn simulate(seed: u64) -> String {
    let mut simulation = turmoil::Builder::new()
        .rng_seed(seed)
        .enable_random_order()
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(40))
        .simulation_duration(LONGEST)
        .tcp_capacity(1024)
        .build();
    let store = SharedStore::new();
    let objects = Objects::in_memory();
    let ledger = Ledger::default();
    // Each start of a host has its own seed.
    let starts = Arc::new(AtomicU64::new(seed << 16));
    let next_seed = move || starts.fetch_add(1, Ordering::SeqCst);
    for name in COORDINATORS {
        let (store, objects, next_seed) = (store.clone(), objects.clone(), next_seed.clone());
        simulation.host(name, move || coordinator(store.clone(), objects.clone(), next_seed()));
    }
    for name in WORKERS {
        let (ledger, next_seed) = (ledger.clone(), next_seed.clone());
        simulation.host(name, move || {
            let seed = next_seed();
            worker::run(format!("{name}-{seed}"), ledger.clone(), StdRng::seed_from_u64(seed))
        });
    }
    simulation.client("client", client::run(ledger.clone(), StdRng::seed_from_u64(next_seed())));
    let faults = faults::run(&mut simulation, &store, StdRng::seed_from_u64(next_seed()));
    format!("seed {seed}: {}, {faults} faults in {:?}", ledger.summary(), simulation.elapsed())
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Simulates a seed in a process of its own.
fn simulate_apart(seed: u64) -> Output {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "one_seed", "--nocapture"])
        .env(SEED, seed.to_string())
        .output()
        .expect("this test starts again")
}

/// The last line of a simulation, if it succeeded.
fn summary(output: &Output) -> Option<String> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let line = stdout.lines().find_map(|line| line.rfind("seed ").map(|start| line[start..].to_owned()));
    line.filter(|_| output.status.success())
}

/// Simulates the seed that the environment names. The tests below run this in separate processes.
#[test]
fn one_seed() {
    if let Ok(seed) = std::env::var(SEED) {
        println!("{}", simulate(seed.parse().expect("a number")));
    }
}

#[test]
fn whatever_fails_every_job_ends_once_and_no_task_has_two_workers() {
    let first = number_from("SORTINGHAT_SEED", 0);
    let seeds = first..first + number_from("SORTINGHAT_SIMULATIONS", SEEDS);
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end {
                        return;
                    }
                    let output = simulate_apart(seed);
                    match summary(&output) {
                        Some(line) => println!("{line}"),
                        None => {
                            println!("seed {seed} failed: repeat it with {SEED}={seed} and the test one_seed");
                            println!("{}", String::from_utf8_lossy(&output.stdout));
                            println!("{}", String::from_utf8_lossy(&output.stderr));
                            failed.lock().insert(seed);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

#[test]
fn a_seed_repeats() {
    let first = simulate_apart(7);
    let line = summary(&first).expect("it ends well");
    assert_eq!(summary(&simulate_apart(7)), Some(line));
}
