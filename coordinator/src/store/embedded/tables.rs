//! The tables: a redb file that holds everything up to the last checkpoint.

use bytes::Bytes;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
};

use super::{low_marks::LowMarks, memtable::Memtable};
use crate::store::{Order, Range, Record};

/// Records: their versions and values by their keys.
const RECORDS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("records");
/// Entries of all indexes, by index and entry.
const INDEXES: TableDefinition<'_, (&str, &str), ()> = TableDefinition::new("indexes");
/// Counters by their keys.
const COUNTERS: TableDefinition<'_, &str, i64> = TableDefinition::new("counters");
/// The store's own numbers.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The version of this layout; a file of a later version is refused.
const FORMAT_VERSION: u64 = 2;
/// The version before it, in which a store had no logs.
const FORMAT_WITHOUT_LOGS: u64 = 1;
const FORMAT: &str = "format";
/// The last version that was given to a record.
const VERSION: &str = "version";
/// The greatest time that was reported, in milliseconds since 1970 UTC.
const TIME: &str = "time";
/// A random id, chosen when the store is created; it marks the logs that belong to it.
const SEED: &str = "seed";
/// The last generation of the log that was written into the tables.
const GENERATION: &str = "generation";

/// The store's own numbers, as the tables hold them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    pub(super) seed: u64,
    pub(super) generation: u64,
    pub(super) last_version: u64,
    pub(super) time: u64,
}

/// Creates the tables of a new file or checks the format of an existing one, and returns the store's own numbers.
pub(super) fn prepare(database: &Database) -> Result<Meta, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let found = {
        transaction.open_table(RECORDS)?;
        transaction.open_table(INDEXES)?;
        transaction.open_table(COUNTERS)?;
        let mut meta = transaction.open_table(META)?;
        let number = |key| Ok::<_, redb::Error>(meta.get(key)?.map(|guard| guard.value()));
        let format = number(FORMAT)?.unwrap_or(FORMAT_VERSION);
        if format != FORMAT_VERSION && format != FORMAT_WITHOUT_LOGS {
            let message = format!("the file has format {format}, this software reads format {FORMAT_VERSION}");
            return Err(redb::Error::Corrupted(message));
        }
        let found = Meta {
            seed: number(SEED)?.unwrap_or_else(rand::random),
            generation: number(GENERATION)?.unwrap_or_default(),
            last_version: number(VERSION)?.unwrap_or_default(),
            time: number(TIME)?.unwrap_or_default(),
        };
        meta.insert(FORMAT, FORMAT_VERSION)?;
        meta.insert(SEED, found.seed)?;
        found
    };
    transaction.commit()?;
    Ok(found)
}

/// Whether the store has logs beside this file, which may hold what the tables lack.
pub(super) fn has_logs(database: &Database) -> Result<bool, redb::Error> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get(SEED)?.is_some()),
        Err(TableError::TableDoesNotExist(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes the changes of one generation of the log into the tables and syncs them. The quick repair saves the next start a scan of
/// the whole file.
pub(super) fn checkpoint(database: &Database, memtable: &Memtable, generation: u64) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    {
        let mut records = transaction.open_table(RECORDS)?;
        for (key, record) in &memtable.records {
            match record {
                Some(record) => drop(records.insert(&**key, (record.version, record.value.as_ref()))?),
                None => drop(records.remove(&**key)?),
            }
        }
        let mut indexes = transaction.open_table(INDEXES)?;
        for key in &memtable.removed {
            indexes.remove(split(key))?;
        }
        for key in &memtable.inserted {
            indexes.insert(split(key), ())?;
        }
        let mut counters = transaction.open_table(COUNTERS)?;
        for (key, count) in &memtable.counters {
            if *count == 0 {
                counters.remove(&**key)?
            } else {
                counters.insert(&**key, count)?
            };
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(VERSION, memtable.last_version)?;
        meta.insert(TIME, memtable.time)?;
        meta.insert(GENERATION, generation)?;
    }
    transaction.commit()?;
    Ok(())
}

/// The index and the entry in the key of an entry.
fn split(entry_key: &str) -> (&str, &str) {
    entry_key.split_once('\0').expect("the key is an index, the character 0, and an entry")
}

/// A snapshot of the tables after the last checkpoint.
pub(super) struct Tables {
    records: ReadOnlyTable<&'static str, (u64, &'static [u8])>,
    indexes: ReadOnlyTable<(&'static str, &'static str), ()>,
    counters: ReadOnlyTable<&'static str, i64>,
    pub(super) low_marks: LowMarks,
}

impl Tables {
    /// Takes a snapshot.
    pub(super) fn of(database: &Database) -> Result<Self, redb::Error> {
        let transaction: ReadTransaction = database.begin_read()?;
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            indexes: transaction.open_table(INDEXES)?,
            counters: transaction.open_table(COUNTERS)?,
            low_marks: LowMarks::default(),
        })
    }

    /// A record.
    pub(super) fn record(&self, key: &str) -> Result<Option<Record>, redb::Error> {
        let record = |(version, value): (u64, &[u8])| Record { version, value: Bytes::copy_from_slice(value) };
        Ok(self.records.get(key)?.map(|guard| record(guard.value())))
    }

    /// The version of a record.
    pub(super) fn version(&self, key: &str) -> Result<Option<u64>, redb::Error> {
        Ok(self.records.get(key)?.map(|guard| guard.value().0))
    }

    /// A counter.
    pub(super) fn counter(&self, key: &str) -> Result<i64, redb::Error> {
        Ok(self.counters.get(key)?.map_or(0, |guard| guard.value()))
    }

    /// The entries of `range`. The search begins at `from` instead of at the beginning of the range.
    pub(super) fn entries(
        &self,
        range: &Range,
        from: &str,
    ) -> Result<impl Iterator<Item = Result<String, redb::Error>> + use<>, redb::Error> {
        // The next greater name is the index's name followed by the character 0.
        let next_index = [&range.index, "\0"].concat();
        let until = match &range.until {
            Some(until) => (range.index.as_str(), until.as_str()),
            None => (next_index.as_str(), ""),
        };
        let from = (range.index.as_str(), from).min(until);
        let (mut entries, order) = (self.indexes.range(from..until)?, range.order);
        let next = move || match order {
            Order::Ascending => entries.next(),
            Order::Descending => entries.next_back(),
        };
        Ok(std::iter::from_fn(next).map(|item| Ok(item?.0.value().1.to_owned())))
    }
}
