//! The tables: a redb file of all that the layers do not hold.

use bytes::Bytes;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
};

use super::{layer::Layer, view::Fronts};
use crate::store::{Order, Range, Record};

/// By key: version and value.
const RECORDS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("records");
/// By index and entry.
const INDEXES: TableDefinition<'_, (&str, &str), ()> = TableDefinition::new("indexes");
/// By key.
const COUNTERS: TableDefinition<'_, &str, i64> = TableDefinition::new("counters");
/// The store's own numbers.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The version of this layout; a file of a later one is refused.
const FORMAT_VERSION: u64 = 2;
/// The one before, which had no logs.
const FORMAT_WITHOUT_LOGS: u64 = 1;
const FORMAT: &str = "format";
/// The last version that was given to a record.
const VERSION: &str = "version";
/// The greatest time that was told, in milliseconds since 1970 UTC.
const TIME: &str = "time";
/// Told once, by chance: what the logs of this store are known by.
const SEED: &str = "seed";
/// The last generation of the log that is in the tables.
const GENERATION: &str = "generation";

/// The store's own numbers, as the tables hold them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    pub(super) seed: u64,
    pub(super) generation: u64,
    pub(super) last_version: u64,
    pub(super) time: u64,
}

/// Makes the tables of a new file, checks the format of an old one, and returns its numbers.
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

/// Whether some of what the file shall hold may be in logs beside it.
pub(super) fn has_logs(database: &Database) -> Result<bool, redb::Error> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get(SEED)?.is_some()),
        Err(TableError::TableDoesNotExist(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes what a generation of the log has changed, and syncs it. The next start need not look through the file.
pub(super) fn write(database: &Database, layer: &Layer, generation: u64) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    {
        let mut records = transaction.open_table(RECORDS)?;
        for (key, record) in &layer.records {
            match record {
                Some(record) => drop(records.insert(&**key, (record.version, record.value.as_ref()))?),
                None => drop(records.remove(&**key)?),
            }
        }
        let mut indexes = transaction.open_table(INDEXES)?;
        for place in &layer.removed {
            indexes.remove(split(place))?;
        }
        for place in &layer.inserted {
            indexes.insert(split(place), ())?;
        }
        let mut counters = transaction.open_table(COUNTERS)?;
        for (key, count) in &layer.counters {
            if *count == 0 {
                counters.remove(&**key)?
            } else {
                counters.insert(&**key, count)?
            };
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(VERSION, layer.last_version)?;
        meta.insert(TIME, layer.time)?;
        meta.insert(GENERATION, generation)?;
    }
    transaction.commit()?;
    Ok(())
}

/// The index and the entry of a place.
fn split(place: &str) -> (&str, &str) {
    place.split_once('\0').expect("a place is an index, the character 0, and an entry")
}

/// The tables as they were last written.
pub(super) struct Tables {
    records: ReadOnlyTable<&'static str, (u64, &'static [u8])>,
    indexes: ReadOnlyTable<(&'static str, &'static str), ()>,
    counters: ReadOnlyTable<&'static str, i64>,
    pub(super) fronts: Fronts,
}

impl Tables {
    pub(super) fn of(database: &Database) -> Result<Self, redb::Error> {
        let transaction: ReadTransaction = database.begin_read()?;
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            indexes: transaction.open_table(INDEXES)?,
            counters: transaction.open_table(COUNTERS)?,
            fronts: Fronts::default(),
        })
    }

    pub(super) fn record(&self, key: &str) -> Result<Option<Record>, redb::Error> {
        let record = |(version, value): (u64, &[u8])| Record { version, value: Bytes::copy_from_slice(value) };
        Ok(self.records.get(key)?.map(|guard| record(guard.value())))
    }

    pub(super) fn version(&self, key: &str) -> Result<Option<u64>, redb::Error> {
        Ok(self.records.get(key)?.map(|guard| guard.value().0))
    }

    pub(super) fn counter(&self, key: &str) -> Result<i64, redb::Error> {
        Ok(self.counters.get(key)?.map_or(0, |guard| guard.value()))
    }

    /// The entries of a part of an index, from another one on than the range's.
    pub(super) fn entries(
        &self,
        range: &Range,
        from: &str,
    ) -> Result<impl Iterator<Item = Result<String, redb::Error>> + use<>, redb::Error> {
        // The index's name with the character 0 behind it is the least name that is greater.
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
