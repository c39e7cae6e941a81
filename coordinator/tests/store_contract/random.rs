//! Random commands get the same answers from every store. Versions are compared by their order.

use std::sync::Arc;

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use redb::backends::InMemoryBackend;
use sortinghat_coordinator::store::{
    Batch, EmbeddedStore, Expectation, MemoryStore, Range, Record, RedisServer, RedisStore, Store, SystemClock, Verdict,
};

use crate::{number_from, options};

/// How many commands one run sends; `SORTINGHAT_RANDOM_COMMANDS` sets another number. A batch is a command, and so is a read.
const COMMANDS: u64 = 100_000;
/// The length from which the embedded store checkpoints a log, in bytes: that of some calls.
const LOG_BYTES: u64 = 256 << 10;
const MAX_BATCHES_PER_CALL: u64 = 64;
const KEYS: u64 = 12;
const INDEXES: u64 = 4;
const ENTRIES: u64 = 24;
const COUNTERS: u64 = 5;

/// What a batch expects of a record, in terms that hold for every store.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// The record's state before the call.
    Right,
    /// The version that the record had some calls ago.
    Stale,
    Absent,
    /// A version that no record has.
    Never,
}

/// A batch without the versions, which differ between the stores.
#[derive(Debug, Clone)]
struct Plan {
    checks: Vec<(u64, Expected)>,
    rest: Batch,
}

/// One of the stores, with the records that were read from it.
struct Contestant {
    name: &'static str,
    store: Arc<dyn Store>,
    now: Vec<Option<Record>>,
    earlier: Vec<Option<Record>>,
}

impl Contestant {
    fn new(name: &'static str, store: impl Store) -> Self {
        let none = vec![None; KEYS as usize];
        Self { name, store: Arc::new(store), now: none.clone(), earlier: none }
    }

    fn batch(&self, plan: &Plan) -> Batch {
        let of = |record: &Option<Record>| {
            record.as_ref().map_or(Expectation::Absent, |record| Expectation::Version(record.version))
        };
        let expectation = |(number, expected): &(u64, Expected)| match expected {
            Expected::Right => of(&self.now[*number as usize]),
            Expected::Stale => of(&self.earlier[*number as usize]),
            Expected::Absent => Expectation::Absent,
            Expected::Never => Expectation::Version(u64::MAX),
        };
        let checks = plan.checks.iter().map(|check| (key(check.0), expectation(check))).collect();
        Batch { checks, ..plan.rest.clone() }
    }

    /// Reads all records again. Returns what does not depend on the store: the values, and the order of the versions.
    async fn look(&mut self, remember: bool) -> Vec<Option<(usize, Bytes)>> {
        let keys: Vec<String> = (0..KEYS).map(key).collect();
        let now = self.store.read(&keys).await.expect("the store answers");
        if remember {
            self.earlier = std::mem::replace(&mut self.now, now);
        } else {
            self.now = now;
        }
        let mut versions: Vec<u64> = self.now.iter().flatten().map(|record| record.version).collect();
        versions.sort_unstable();
        let rank = |record: &Record| versions.binary_search(&record.version).expect("it is one of them");
        self.now.iter().map(|record| record.as_ref().map(|record| (rank(record), record.value.clone()))).collect()
    }
}

fn key(number: u64) -> String {
    format!("key{number}")
}

struct Game {
    dice: StdRng,
    contestants: Vec<Contestant>,
    applied: u64,
    refused: u64,
}

impl Game {
    fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut StdRng) -> T) -> Vec<T> {
        (0..self.dice.random_range(0..=most)).map(|_| make(&mut self.dice)).collect()
    }

    fn plan(&mut self) -> Plan {
        let entry = |dice: &mut StdRng| {
            (format!("index{}", dice.random_range(0..INDEXES)), format!("entry{:02}", dice.random_range(0..ENTRIES)))
        };
        let changed = self.some(3, |dice| dice.random_range(0..KEYS));
        let read = self.some(1, |dice| dice.random_range(0..KEYS));
        let mut expect = |number: &u64| {
            let expected = match self.dice.random_range(0..40) {
                0 => Expected::Never,
                1 => Expected::Absent,
                2 => Expected::Stale,
                _ => Expected::Right,
            };
            (*number, expected)
        };
        let checks = changed.iter().chain(&read).map(&mut expect).collect();
        let (mut writes, mut deletes) = (Vec::new(), Vec::new());
        for number in changed {
            if self.dice.random_range(0..4) == 0 {
                deletes.push(key(number));
            } else {
                let length = self.dice.random_range(0..40);
                writes.push((key(number), Bytes::from(vec![self.dice.random::<u8>(); length])));
            }
        }
        let amount = |dice: &mut StdRng| match dice.random_range(0..20) {
            0 => i64::MAX - 3,
            1 => i64::MIN + 3,
            _ => dice.random_range(-50..50),
        };
        let counter = |dice: &mut StdRng| (format!("counter{}", dice.random_range(0..COUNTERS)), amount(dice));
        let (removals, insertions, increments) = (self.some(3, entry), self.some(3, entry), self.some(2, counter));
        Plan { checks, rest: Batch { writes, deletes, removals, insertions, increments, ..Batch::default() } }
    }

    /// Sends one call of many batches to every store, and compares the verdicts and the contents.
    async fn turn(&mut self) -> u64 {
        let count = self.dice.random_range(1..=MAX_BATCHES_PER_CALL);
        let plans: Vec<Plan> = (0..count).map(|_| self.plan()).collect();
        let ranges = self.some(3, range);
        let remember = self.dice.random_range(0..4) == 0;
        let mut answers = Vec::new();
        for contestant in &mut self.contestants {
            let mut batches: Vec<Batch> = plans.iter().map(|plan| contestant.batch(plan)).collect();
            // Malformed batches are refused before any store sees them.
            batches.retain(|batch| batch.validate().is_ok());
            let verdicts = contestant.store.apply(batches).await.expect("well formed");
            let records = contestant.look(remember).await;
            let counters: Vec<String> = (0..COUNTERS).map(|number| format!("counter{number}")).collect();
            let counters = contestant.store.counters(&counters).await.expect("the store answers");
            let mut entries = Vec::new();
            for range in &ranges {
                entries.push(contestant.store.range(range.clone()).await.expect("the store answers"));
            }
            answers.push((verdicts, records, counters, entries));
        }
        for (contestant, answer) in self.contestants.iter().zip(&answers).skip(1) {
            assert_eq!(*answer, answers[0], "{} differs from {}", contestant.name, self.contestants[0].name);
        }
        let is_applied = |verdict: &&Verdict| matches!(verdict, Verdict::Applied(_));
        let applied = answers[0].0.iter().filter(is_applied).count() as u64;
        self.applied += applied;
        self.refused += answers[0].0.len() as u64 - applied;
        answers[0].0.len() as u64 + ranges.len() as u64 + 2
    }
}

fn range(dice: &mut StdRng) -> Range {
    let bound = |dice: &mut StdRng| format!("entry{:02}", dice.random_range(0..ENTRIES));
    let mut range = Range::first(format!("index{}", dice.random_range(0..INDEXES)), dice.random_range(0..30));
    if dice.random() {
        range = range.from(bound(dice));
    }
    if dice.random() {
        range = range.until(bound(dice));
    }
    if dice.random() { range.descending() } else { range }
}

#[tokio::test]
async fn memory_embedded_and_redis_answer_a_hundred_thousand_random_commands_alike() {
    let commands = number_from("SORTINGHAT_RANDOM_COMMANDS", COMMANDS);
    let seed = number_from("SORTINGHAT_SEED", 1);
    let folder = tempfile::tempdir().expect("a folder");
    // Other tests cover durability.
    let server = RedisServer::start_with(folder.path(), &["--appendonly", "no"]);
    let mut unsafe_options = options(&server.url());
    unsafe_options.allow_data_loss = true;
    let embedded = EmbeddedStore::over(
        || std::array::from_fn(|_| InMemoryBackend::new()),
        LOG_BYTES,
        Arc::new(SystemClock::new()),
    )
    .expect("it is empty");
    let contestants = vec![
        Contestant::new("memory", MemoryStore::new(Arc::new(SystemClock::new()))),
        Contestant::new("embedded", embedded),
        Contestant::new("Redis", RedisStore::open(unsafe_options).await.expect("the checks are turned off")),
    ];
    let mut game = Game { dice: StdRng::seed_from_u64(seed), contestants, applied: 0, refused: 0 };
    println!("SORTINGHAT_SEED={seed}");
    let mut done = 0;
    while done < commands {
        done += game.turn().await;
    }
    println!("{done} commands: {} batches applied, {} refused", game.applied, game.refused);
    assert!(
        game.applied > commands / 10 && game.refused > commands / 10,
        "too few batches were applied or refused for a useful comparison"
    );
}
