//! Reads shards: all records at once, pictures one by one, from any number of threads.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use arrow_array::{
    Array as _, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, StructArray, cast::AsArray as _,
};
use bytes::Bytes;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    errors::Result as ParquetResult,
    file::reader::{ChunkReader, Length},
};
use sortinghat_proto::manifest::Credit;

use super::{
    schema::{ORIGIN_RANK, ORIGIN_TEXTS, Origin, PhotoRecord, Place, ShardError},
    split::Side,
};

/// An open shard.
#[derive(Debug)]
pub struct ShardReader {
    file: SharedFile,
    metadata: ArrowReaderMetadata,
    /// First row of each row group, and the number of rows.
    starts: Vec<usize>,
}

impl ShardReader {
    /// Opens a shard; reads its footer only.
    ///
    /// # Errors
    /// [`ShardError::Parquet`].
    pub fn open(file: File) -> Result<Self, ShardError> {
        let length = file.metadata().map_err(|error| ShardError::Parquet(error.into()))?.len();
        let file = SharedFile { file: Arc::new(file), length };
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
        let mut starts = vec![0];
        for group in metadata.metadata().row_groups() {
            starts.push(starts[starts.len() - 1] + group.num_rows() as usize);
        }
        Ok(Self { file, metadata, starts })
    }

    /// Photos in the shard.
    pub fn rows(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// All records, in row order, without the pictures.
    ///
    /// # Errors
    /// [`ShardError`].
    pub fn records(&self) -> Result<Vec<PhotoRecord>, ShardError> {
        let columns = self.metadata.metadata().file_metadata().schema_descr();
        let light = (0..columns.num_columns()).filter(|leaf| columns.column(*leaf).path().string() != "image.bytes");
        let mask = ProjectionMask::leaves(columns, light);
        let reader = self.builder().with_projection(mask).build()?;
        let mut records = Vec::with_capacity(self.rows());
        for batch in reader {
            records_of(&batch?, &mut records)?;
        }
        Ok(records)
    }

    /// The encoded picture in `row`. Reads one row group.
    ///
    /// # Errors
    /// [`ShardError`].
    pub fn image(&self, row: usize) -> Result<Bytes, ShardError> {
        let rows = self.rows();
        if row >= rows {
            return Err(ShardError::NoSuchRow { row, rows });
        }
        let group = self.starts.partition_point(|start| *start <= row) - 1;
        let columns = self.metadata.metadata().file_metadata().schema_descr();
        let mask = ProjectionMask::columns(columns, ["image.bytes"]);
        let mut reader = self
            .builder()
            .with_projection(mask)
            .with_row_groups(vec![group])
            .with_offset(row - self.starts[group])
            .with_limit(1)
            .build()?;
        let missing = ShardError::Column { column: "image.bytes" };
        let Some(batch) = reader.next().transpose()? else { return Err(missing) };
        let image: &StructArray = column(&batch, "image")?;
        let bytes: &BinaryArray = image.column(0).as_binary_opt::<i32>().ok_or(missing)?;
        Ok(Bytes::copy_from_slice(bytes.value(0)))
    }

    fn builder(&self) -> ParquetRecordBatchReaderBuilder<SharedFile> {
        ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone())
    }
}

/// The photos of a dataset, over all its shards.
#[derive(Debug)]
pub struct Dataset {
    records: Vec<PhotoRecord>,
    shards: Vec<ShardReader>,
    /// First photo of each shard.
    starts: Vec<usize>,
}

impl Dataset {
    /// Opens shards in their order; keeps all records in memory, and no picture.
    ///
    /// # Errors
    /// [`ShardError`].
    pub fn open(files: impl IntoIterator<Item = File>) -> Result<Self, ShardError> {
        let mut dataset = Self { records: Vec::new(), shards: Vec::new(), starts: Vec::new() };
        for file in files {
            let shard = ShardReader::open(file)?;
            dataset.starts.push(dataset.records.len());
            dataset.records.extend(shard.records()?);
            dataset.shards.push(shard);
        }
        Ok(dataset)
    }

    /// All records, in order.
    pub fn records(&self) -> &[PhotoRecord] {
        &self.records
    }

    /// The encoded picture of the photo with this index in [`Self::records`]. May be called from many threads.
    ///
    /// # Errors
    /// [`ShardError`].
    pub fn image(&self, index: usize) -> Result<Bytes, ShardError> {
        if index >= self.records.len() {
            return Err(ShardError::NoSuchRow { row: index, rows: self.records.len() });
        }
        let shard = self.starts.partition_point(|start| *start <= index) - 1;
        self.shards[shard].image(index - self.starts[shard])
    }
}

fn column<'a, T: 'static>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a T, ShardError> {
    batch
        .column_by_name(name)
        .and_then(|column| column.as_any().downcast_ref::<T>())
        .ok_or(ShardError::Column { column: name })
}

fn records_of(batch: &RecordBatch, records: &mut Vec<PhotoRecord>) -> Result<(), ShardError> {
    let image: &StructArray = column(batch, "image")?;
    let paths = image.column_by_name("path").and_then(|paths| paths.as_string_opt::<i32>());
    let paths = paths.ok_or(ShardError::Column { column: "image.path" })?;
    let labels: &Int64Array = column(batch, "label")?;
    let digests: &StringArray = column(batch, "digest")?;
    let splits: &StringArray = column(batch, "split")?;
    let folds: &Int32Array = column(batch, "fold")?;
    let groups: &Int64Array = column(batch, "group")?;
    let widths: &Int32Array = column(batch, "width")?;
    let heights: &Int32Array = column(batch, "height")?;
    let formats: &StringArray = column(batch, "original_format")?;
    let origins = Origins::of_batch(batch);
    for row in 0..batch.num_rows() {
        let invalid = |column| ShardError::Value { column, row };
        let place = match (folds.is_valid(row), splits.value(row)) {
            (true, _) => Place::Fold(u32::try_from(folds.value(row)).map_err(|_| invalid("fold"))?),
            (false, "train") => Place::Side(Side::Train),
            (false, "valid") => Place::Side(Side::Valid),
            (false, _) => return Err(invalid("split")),
        };
        records.push(PhotoRecord {
            path: paths.value(row).to_owned(),
            label: usize::try_from(labels.value(row)).map_err(|_| invalid("label"))?,
            digest: digests.value(row).parse().map_err(|_| invalid("digest"))?,
            place,
            group: u64::try_from(groups.value(row)).map_err(|_| invalid("group"))?,
            width: u32::try_from(widths.value(row)).map_err(|_| invalid("width"))?,
            height: u32::try_from(heights.value(row)).map_err(|_| invalid("height"))?,
            original_format: formats.value(row).to_owned(),
            origin: origins.as_ref().and_then(|origins| origins.of(row)).map(Box::new),
        });
    }
    Ok(())
}

/// The columns that say where gathered photos were found.
struct Origins<'a> {
    texts: [&'a StringArray; ORIGIN_TEXTS.len()],
    ranks: &'a Int64Array,
}

impl<'a> Origins<'a> {
    /// `None` if no photo of the dataset was gathered.
    fn of_batch(batch: &'a RecordBatch) -> Option<Self> {
        let texts = ORIGIN_TEXTS.map(|(name, _)| column::<StringArray>(batch, name).ok());
        let texts: Option<Vec<&StringArray>> = texts.into_iter().collect();
        Some(Self { texts: texts?.try_into().ok()?, ranks: column(batch, ORIGIN_RANK).ok()? })
    }

    /// Where the photo of a row was found.
    fn of(&self, row: usize) -> Option<Origin> {
        let text = |column: &&StringArray| column.is_valid(row).then(|| column.value(row).to_owned());
        let [provider, query, url, source_page, title, author, licence, licence_url] = self.texts.each_ref().map(text);
        let credit = Credit { source_page, title, author, licence, licence_url };
        let rank = u64::try_from(self.ranks.value(row)).ok()?;
        Some(Origin { provider: provider?, query, rank, url: url?, credit })
    }
}

/// A file that is read by position, so that threads do not move each other's cursor.
#[derive(Debug, Clone)]
struct SharedFile {
    file: Arc<File>,
    length: u64,
}

impl Length for SharedFile {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for SharedFile {
    type T = SharedFileReader;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(SharedFileReader { file: self.file.clone(), position: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// Reads on from a position.
#[derive(Debug)]
struct SharedFileReader {
    file: Arc<File>,
    position: u64,
}

impl Read for SharedFileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}
