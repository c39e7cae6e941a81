//! What lies in the file.

use bytes::Bytes;
use redb::{AccessGuard, Database, ReadableDatabase as _, ReadableTable, TableDefinition};

use crate::store::{Order, Range, Record};

/// By key: version and value.
pub(super) const RECORDS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("records");
/// By index and entry.
pub(super) const INDEXES: TableDefinition<'_, (&str, &str), ()> = TableDefinition::new("indexes");
/// By key.
pub(super) const COUNTERS: TableDefinition<'_, &str, i64> = TableDefinition::new("counters");
/// The store's own numbers.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The version of this layout; a file of another one is refused.
const FORMAT_VERSION: u64 = 1;
const FORMAT: &str = "format";
/// The last version that was given to a record.
pub(super) const VERSION: &str = "version";
/// The greatest time that was told before the last commit, in milliseconds since 1970 UTC.
pub(super) const TIME: &str = "time";

/// Makes the tables of a new file, checks the format of an old one, and returns the greatest time that it has seen.
pub(super) fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let time = {
        transaction.open_table(RECORDS)?;
        transaction.open_table(INDEXES)?;
        transaction.open_table(COUNTERS)?;
        let mut meta = transaction.open_table(META)?;
        let found = meta.get(FORMAT)?.map_or(FORMAT_VERSION, |guard| guard.value());
        if found != FORMAT_VERSION {
            let message = format!("the file has format {found}, this software reads format {FORMAT_VERSION}");
            return Err(redb::Error::Corrupted(message));
        }
        meta.insert(FORMAT, FORMAT_VERSION)?;
        meta.get(TIME)?.map_or(0, |guard| guard.value())
    };
    transaction.commit()?;
    Ok(time)
}

/// A record from its stored form.
pub(super) fn record((version, value): (u64, &[u8])) -> Record {
    Record { version, value: Bytes::copy_from_slice(value) }
}

/// A read of parts of indexes, in the order of `ranges`, at one moment.
pub(super) fn reader(ranges: Vec<Range>) -> impl Fn(&Database) -> Result<Vec<Vec<String>>, redb::Error> {
    move |database| {
        let indexes = database.begin_read()?.open_table(INDEXES)?;
        ranges.iter().map(|range| entries(&indexes, range)).collect()
    }
}

/// The entries of a part of an index.
fn entries(
    indexes: &impl ReadableTable<(&'static str, &'static str), ()>,
    range: &Range,
) -> Result<Vec<String>, redb::Error> {
    // The index's name with the byte 0 behind it is the least name that is greater.
    let next_index = format!("{}\0", range.index);
    let until = match &range.until {
        Some(until) if *until <= range.from => return Ok(Vec::new()),
        Some(until) => (range.index.as_str(), until.as_str()),
        None => (next_index.as_str(), ""),
    };
    let entries = indexes.range((range.index.as_str(), range.from.as_str())..until)?;
    let entry = |item: Result<(AccessGuard<'_, (&str, &str)>, _), redb::StorageError>| Ok(item?.0.value().1.to_owned());
    match range.order {
        Order::Ascending => entries.take(range.limit).map(entry).collect(),
        Order::Descending => entries.rev().take(range.limit).map(entry).collect(),
    }
}
