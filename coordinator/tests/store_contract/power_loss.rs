//! The embedded store on storage that loses power: the acknowledged batches are there, and the files open.

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use redb::StorageBackend;
use sortinghat_coordinator::store::{
    Batch, EmbeddedStore, Expectation, Range, Store, StoreError, SystemClock, Verdict, conformance,
};

use crate::{create, number_from};

/// How many cuts of the power one run makes; `SORTINGHAT_POWER_CUTS` sets another number.
const CUTS: u64 = 2_000;
/// How many cuts each store goes through.
const LIVES: u64 = 20;
/// The most operations on the storage before a cut.
const MAX_OPERATIONS: u64 = 120;
/// The length from which a log is checkpointed, in bytes: that of a few calls.
const LOG_BYTES: u64 = 64 << 10;
/// The number of the disk with the tables. The other disks have the logs.
const TABLES: usize = 0;
/// The size of a sector, which a disk keeps or loses as a whole, in bytes.
const SECTOR_BYTES: usize = 512;
/// The conformance suite runs once in about this many cuts.
const CUTS_PER_CONFORMANCE: u64 = 50;

/// A machine that loses its disk caches together with its power. It has one disk for each storage of the store.
#[derive(Debug, Clone)]
struct Machine(Arc<Mutex<Hardware>>);

#[derive(Debug, Clone, Default)]
struct Hardware {
    platters: [Platter; 3],
    /// How many operations on all disks are left until the power is cut.
    operations_left: u64,
    /// How many syncs of a log are left until one fails.
    log_syncs_left: u64,
}

#[derive(Debug, Clone, Default)]
struct Platter {
    /// The contents that survive a cut.
    synced: Vec<u8>,
    /// The contents that a reader sees.
    current: Vec<u8>,
    /// The changes since the last sync, in order.
    unsynced: Vec<Change>,
}

/// One of the disks of a machine.
#[derive(Debug)]
struct Disk {
    machine: Machine,
    number: usize,
}

#[derive(Debug, Clone)]
enum Change {
    Length(usize),
    Sector(usize, Vec<u8>),
}

impl Change {
    fn happen(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Sector(offset, sector) => {
                let end = offset + sector.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(sector);
            }
        }
    }
}

impl Platter {
    fn change(&mut self, change: Change) {
        change.happen(&mut self.current);
        self.unsynced.push(change);
    }
}

impl Machine {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn hardware(&self) -> MutexGuard<'_, Hardware> {
        self.0.lock()
    }

    /// Cuts the power after this many operations.
    fn run_for(&self, operations: u64) {
        let mut hardware = self.hardware();
        hardware.operations_left = operations;
        hardware.log_syncs_left = u64::MAX;
    }

    /// Lets the sync of a log fail after so many others.
    fn fail_a_sync_after(&self, log_syncs: u64) {
        self.hardware().log_syncs_left = log_syncs;
    }

    /// Leaves on the disks what was synced, and of the rest whatever had been written by chance.
    fn lose_power(&self, dice: &mut StdRng) {
        let kept_of_100 = dice.random_range(0..=100);
        for platter in &mut self.hardware().platters {
            for change in std::mem::take(&mut platter.unsynced) {
                if dice.random_range(0..100) < kept_of_100 {
                    change.happen(&mut platter.synced);
                }
            }
            platter.current = platter.synced.clone();
        }
    }

    /// Another machine with the same contents on its disks.
    fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.hardware().clone())))
    }

    fn disks(&self) -> [Disk; 3] {
        [0, 1, 2].map(|number| Disk { machine: self.clone(), number })
    }
}

impl Disk {
    /// Does one operation. Fails once the power is cut.
    fn operate<T>(&self, work: impl FnOnce(&mut Platter) -> T) -> Result<T, io::Error> {
        let mut hardware = self.machine.hardware();
        let Some(left) = hardware.operations_left.checked_sub(1) else {
            return Err(io::Error::other("the power is gone"));
        };
        hardware.operations_left = left;
        Ok(work(&mut hardware.platters[self.number]))
    }

    /// Whether this sync is to fail.
    fn fails_to_sync(&self) -> bool {
        let mut hardware = self.machine.hardware();
        if self.number == TABLES {
            return false;
        }
        let left = hardware.log_syncs_left.checked_sub(1);
        hardware.log_syncs_left = left.unwrap_or(u64::MAX);
        left.is_none()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        self.operate(|platter| platter.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let offset = offset as usize;
        self.operate(|platter| match platter.current.get(offset..offset + out.len()) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        })?
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.operate(|platter| platter.change(Change::Length(len as usize)))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if self.fails_to_sync() {
            // As on Linux, readers still see the data that this sync failed to write, and no later sync writes them.
            self.operate(|platter| platter.unsynced.clear())?;
            return Err(io::Error::other("the disk failed"));
        }
        self.operate(|platter| {
            std::mem::take(&mut platter.unsynced).iter().for_each(|change| change.happen(&mut platter.synced));
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.operate(|platter| {
            for (number, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                platter.change(Change::Sector(offset as usize + number * SECTOR_BYTES, sector.to_vec()));
            }
        })
    }
}

/// The records that were written. Acknowledged records must exist, records with unknown verdicts may exist.
#[derive(Debug, Default)]
struct Known {
    acknowledged: BTreeMap<String, Bytes>,
    unknown: BTreeMap<String, Bytes>,
}

impl Known {
    fn note(&mut self, batch: &Batch, verdict: &Verdict) {
        let (key, value) = batch.writes[0].clone();
        match verdict {
            Verdict::Applied(counters) => {
                assert_eq!(counters.len(), 1);
                self.acknowledged.insert(key, value);
            }
            Verdict::Unknown => {
                self.unknown.insert(key, value);
            }
            Verdict::Conflict => panic!("{key} was written before it was"),
        }
    }

    /// Checks the store after a cut. If the power was cut, the disk stays as it is (`is_settled`): the records that survived must exist from
    /// now on, and the records that did not survive and were never acknowledged are forgotten.
    async fn check(&mut self, store: &EmbeddedStore, is_settled: bool) {
        let keys: Vec<String> = self.acknowledged.keys().chain(self.unknown.keys()).cloned().collect();
        let records = store.read(&keys).await.expect("the file opens and can be read");
        let mut survived = 0;
        for (key, record) in keys.iter().zip(records) {
            let expected = self.acknowledged.get(key).or(self.unknown.get(key)).expect("the record was written");
            match record {
                Some(record) => assert_eq!(record.value, *expected, "{key}"),
                None => assert!(!self.acknowledged.contains_key(key), "{key} was acknowledged and is lost"),
            }
            survived += i64::from(record_exists(store, key).await);
        }
        let entries = store.range(Range::first("entries", usize::MAX)).await.expect("the file can be read");
        assert_eq!(entries.len() as i64, survived, "a batch is applied as a whole or not at all");
        let counted = store.counters(&["count".into()]).await.expect("the file can be read");
        assert_eq!(counted, [survived]);
        if !is_settled {
            return;
        }
        for (key, value) in std::mem::take(&mut self.unknown) {
            if entries.contains(&key) {
                self.acknowledged.insert(key, value);
            }
        }
    }
}

async fn record_exists(store: &EmbeddedStore, key: &str) -> bool {
    store.read(&[key.to_owned()]).await.expect("the file can be read")[0].is_some()
}

fn batch(key: &str, dice: &mut StdRng) -> Batch {
    let value = Bytes::from(vec![dice.random::<u8>(); dice.random_range(1..3_000)]);
    Batch {
        checks: vec![(key.to_owned(), Expectation::Absent)],
        writes: vec![(key.to_owned(), value)],
        insertions: vec![("entries".to_owned(), key.to_owned())],
        increments: vec![("count".to_owned(), 1)],
        ..Batch::default()
    }
}

/// Writes until the power is cut.
async fn write(store: &EmbeddedStore, machine: &Machine, life: u64, known: &mut Known, dice: &mut StdRng) {
    for call in 0_u64.. {
        let batches: Vec<Batch> =
            (0..dice.random_range(1..8)).map(|number| batch(&format!("{life}-{call}-{number}"), dice)).collect();
        let verdicts = store.apply(batches.clone()).await.expect("the writer lives");
        batches.iter().zip(&verdicts).for_each(|(batch, verdict)| known.note(batch, verdict));
        if machine.hardware().operations_left == 0 {
            return;
        }
    }
}

fn open(machine: &Machine) -> Result<EmbeddedStore, StoreError> {
    let machine = machine.clone();
    EmbeddedStore::over(move || machine.disks(), LOG_BYTES, Arc::new(SystemClock::new()))
}

/// Takes one store through many cuts, some of them during the recovery from the cut before. Sometimes only the process dies, and the system
/// keeps the unsynced writes until the next cut of the power.
async fn live(seed: u64, lives: u64) {
    let mut dice = StdRng::seed_from_u64(seed);
    let machine = Machine::new();
    let mut known = Known::default();
    // The files are created without a cut, since real ones get their name only once they are complete.
    machine.run_for(u64::MAX);
    drop(open(&machine).expect("it is made"));
    for life in 0..lives {
        machine.run_for(dice.random_range(1..MAX_OPERATIONS));
        if dice.random_ratio(1, 3) {
            machine.fail_a_sync_after(dice.random_range(0..10));
        }
        if let Ok(store) = open(&machine) {
            write(&store, &machine, life, &mut known, &mut dice).await;
        }
        let loses_power = dice.random_ratio(2, 3);
        if loses_power {
            machine.lose_power(&mut dice);
        }
        // A copy is checked, so that the next life begins with the contents after the cut.
        let copy = machine.copy();
        copy.run_for(u64::MAX);
        known.check(&open(&copy).expect("the store opens after every cut"), loses_power).await;
    }
    machine.run_for(u64::MAX);
    let store = open(&machine).expect("the store opens");
    assert_eq!(store.apply(vec![create("last")]).await.expect("the writer lives"), [Verdict::Applied(vec![])]);
    if seed.is_multiple_of(CUTS_PER_CONFORMANCE / LIVES + 1) {
        conformance::check(Arc::new(store)).await;
    }
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_to_cuts_of_the_power() {
    let files = number_from("SORTINGHAT_POWER_CUTS", CUTS).div_ceil(LIVES);
    let first = number_from("SORTINGHAT_SEED", 0);
    for seed in first..first + files {
        println!("seed {seed}");
        live(seed, LIVES).await;
    }
}
