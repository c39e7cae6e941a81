//! Creates and opens the files of a store.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use redb::{Database, StorageBackend, backends::FileBackend};

use super::{files::Files, tables};

/// The length from which a log is checkpointed, in bytes. A checkpoint writes each key once that many commits have changed; until then
/// the memtable holds the changes.
const LOG_BYTES: u64 = 2 << 20;
/// How many bytes of the redb file are cached in memory. Frequently read pages were written lately, and the system caches the rest.
const CACHE_BYTES: usize = 128 << 20;

/// Opens the files at this path as they were left. A store of the format without logs gets them.
pub(super) fn open(path: &Path) -> Result<Files, redb::Error> {
    let database = builder().open(path)?;
    let is_new = !tables::has_logs(&database)?;
    let open = |log: PathBuf| {
        let opened = OpenOptions::new().read(true).write(true).create(is_new).open(&log);
        opened.map_err(|error| io::Error::other(format!("its log {}: {error}", log.display())))
    };
    let [even, odd] = logs_of(path).map(open);
    let logs = [FileBackend::new(even?)?, FileBackend::new(odd?)?];
    if is_new {
        sync_folder_of(path)?;
    }
    Files::open(database, logs, LOG_BYTES)
}

/// The same over other storages than files: the first one holds the tables, the others the logs.
pub(super) fn open_over<P: StorageBackend>(storages: [P; 3], log_bytes: u64) -> Result<Files, redb::Error> {
    let [tables, even, odd] = storages;
    Files::open(builder().create_with_backend(tables)?, [even, odd], log_bytes)
}

/// Creates the files of an empty store. The redb file gets its name last, so that a half-made file, which a loss of power may leave, is
/// never opened.
pub(super) fn create(path: &Path) -> Result<(), redb::Error> {
    let unfinished = path.with_added_extension("new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    tables::prepare(&Database::create(&unfinished)?)?;
    logs_of(path).iter().try_for_each(|log| File::create(log)?.sync_all())?;
    fs::rename(&unfinished, path)?;
    sync_folder_of(path)
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// The paths of the logs beside a redb file.
fn logs_of(path: &Path) -> [PathBuf; 2] {
    ["log0", "log1"].map(|extension| path.with_added_extension(extension))
}

fn sync_folder_of(path: &Path) -> Result<(), redb::Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok(File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?)
}
