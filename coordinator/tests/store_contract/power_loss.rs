//! The embedded store on storage that loses its power: what was acknowledged is there, and the file opens.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use redb::StorageBackend;
use sortinghat_coordinator::store::{
    Batch, EmbeddedStore, Expectation, Range, Store, SystemClock, Verdict, conformance,
};

use crate::{create, number_from};

/// Cuts of the power in one run; another number by `SORTINGHAT_POWER_CUTS`.
const CUTS: u64 = 2_000;
/// Cuts that one file lives through.
const LIVES: u64 = 20;
/// Operations on the storage before a cut, at most.
const MAX_OPERATIONS: u64 = 120;
/// The least piece of a write that a disk keeps or loses.
const SECTOR_BYTES: usize = 512;
/// The suite is run after every so many cuts.
const CUTS_PER_CONFORMANCE: u64 = 50;

/// A disk whose cache is lost with its power.
#[derive(Debug, Clone)]
struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    /// What survives.
    synced: Vec<u8>,
    /// What a reader sees.
    current: Vec<u8>,
    /// Since the last sync, in order.
    unsynced: Vec<Change>,
    /// Operations until the power goes.
    operations_left: u64,
}

#[derive(Debug)]
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

impl Disk {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().expect("no holder of the platter panics")
    }

    /// Switches it on; the power goes after so many operations.
    fn switch_on(&self, operations: u64) {
        let mut platter = self.platter();
        platter.operations_left = operations;
        platter.current = platter.synced.clone();
        platter.unsynced.clear();
    }

    /// What is on it after the power went: all that was synced, and of the rest whatever had been written by chance.
    fn lose_power(&self, dice: &mut StdRng) {
        let mut platter = self.platter();
        let kept_of_100 = dice.random_range(0..=100);
        for change in std::mem::take(&mut platter.unsynced) {
            if dice.random_range(0..100) < kept_of_100 {
                change.happen(&mut platter.synced);
            }
        }
    }

    /// One operation more; an error once the power is gone.
    fn operate(&self) -> Result<MutexGuard<'_, Platter>, io::Error> {
        let mut platter = self.platter();
        let Some(left) = platter.operations_left.checked_sub(1) else {
            return Err(io::Error::other("the power is gone"));
        };
        platter.operations_left = left;
        Ok(platter)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.operate()?.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let platter = self.operate()?;
        let offset = offset as usize;
        let Some(bytes) = platter.current.get(offset..offset + out.len()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut platter = self.operate()?;
        platter.current.resize(len as usize, 0);
        platter.unsynced.push(Change::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut platter = self.operate()?;
        platter.synced = platter.current.clone();
        platter.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut platter = self.operate()?;
        for (number, sector) in data.chunks(SECTOR_BYTES).enumerate() {
            let change = Change::Sector(offset as usize + number * SECTOR_BYTES, sector.to_vec());
            change.happen(&mut platter.current);
            platter.unsynced.push(change);
        }
        Ok(())
    }
}

/// What is known of the records that were written: acknowledged ones must be there, others may.
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

    /// Checks the store after a cut, and forgets what did not survive and was never acknowledged.
    async fn check(&mut self, store: &EmbeddedStore) {
        let keys: Vec<String> = self.acknowledged.keys().chain(self.unknown.keys()).cloned().collect();
        let records = store.read(&keys).await.expect("the file opens and can be read");
        let mut survived = 0;
        for (key, record) in keys.iter().zip(records) {
            let expected = self.acknowledged.get(key).or(self.unknown.get(key)).expect("it is one of both");
            match record {
                Some(record) => assert_eq!(record.value, *expected, "{key}"),
                None => assert!(!self.acknowledged.contains_key(key), "{key} was acknowledged and is lost"),
            }
            survived += i64::from(record_exists(store, key).await);
        }
        let entries = store.range(Range::first("entries", usize::MAX)).await.expect("the file can be read");
        assert_eq!(entries.len() as i64, survived, "a batch is there as a whole or not at all");
        let counted = store.counters(&["count".into()]).await.expect("the file can be read");
        assert_eq!(counted, [survived]);
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

/// Writes until the power goes.
async fn write(store: &EmbeddedStore, life: u64, known: &mut Known, dice: &mut StdRng) {
    for call in 0_u64.. {
        let batches: Vec<Batch> =
            (0..dice.random_range(1..8)).map(|number| batch(&format!("{life}-{call}-{number}"), dice)).collect();
        let verdicts = store.apply(batches.clone()).await.expect("the writer lives");
        batches.iter().zip(&verdicts).for_each(|(batch, verdict)| known.note(batch, verdict));
        if verdicts.contains(&Verdict::Unknown) {
            return;
        }
    }
}

fn open(disk: &Disk) -> Result<EmbeddedStore, sortinghat_coordinator::store::StoreError> {
    let disk = disk.clone();
    EmbeddedStore::over(move || disk.clone(), Arc::new(SystemClock::new()))
}

/// One file through many cuts, some of them while it is repaired after the one before.
async fn live(seed: u64, lives: u64) {
    let mut dice = StdRng::seed_from_u64(seed);
    let disk = Disk::new();
    let mut known = Known::default();
    // A file is made under another name, and so never found half made.
    disk.switch_on(u64::MAX);
    drop(open(&disk).expect("it is made"));
    for life in 0..lives {
        disk.switch_on(dice.random_range(1..MAX_OPERATIONS));
        if let Ok(store) = open(&disk) {
            write(&store, life, &mut known, &mut dice).await;
        }
        disk.lose_power(&mut dice);
        disk.switch_on(u64::MAX);
        known.check(&open(&disk).expect("the file opens after every cut")).await;
        // Nothing of this look is kept, so that the next life begins where the cut ended.
    }
    disk.switch_on(u64::MAX);
    let store = open(&disk).expect("the file opens");
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
