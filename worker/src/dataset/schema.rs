//! The columns of a shard, in the layout that Hugging Face `datasets` reads as images and class names.

use std::{collections::HashMap, sync::Arc};

use arrow_schema::{ArrowError, DataType, Field, Fields, Schema};
use parquet::errors::ParquetError;
use serde_json::{Map, Value, json};
use sortinghat_proto::{
    Digest,
    manifest::{Credit, PhotoSource},
};

use super::split::Side;

/// What a dataset knows of a photo besides its pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhotoRecord {
    /// Its path in the upload.
    pub path: String,
    /// Index of its class.
    pub label: usize,
    /// The original file.
    pub digest: Digest,
    /// Which side of the split it lies on.
    pub place: Place,
    /// Photos with the same number are near-duplicates.
    pub group: u64,
    /// Width of the original in pixels, upright.
    pub width: u32,
    /// Height of the original in pixels, upright.
    pub height: u32,
    /// Format of the original in lower case.
    pub original_format: String,
    /// Where on the web it was found; `None` if somebody uploaded it.
    pub origin: Option<Box<Origin>>,
}

/// Where on the web a photo was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Who found it.
    pub provider: String,
    /// What was searched for.
    pub query: Option<String>,
    /// Its place among all that was found for the query, or in the list of URLs.
    pub rank: u64,
    /// Where it is.
    pub url: String,
    /// What its source says of it.
    pub credit: Credit,
}

impl From<&PhotoSource> for Origin {
    fn from(source: &PhotoSource) -> Self {
        let PhotoSource { provider, query, rank, url, credit, .. } = source.clone();
        Self { provider, query, rank, url, credit }
    }
}

/// A text of an [`Origin`], if it is known.
pub(super) type OriginText = fn(&Origin) -> Option<&str>;

/// The columns of an [`Origin`] that hold texts, each with its text. A dataset has these columns if any photo of it was gathered.
pub(super) const ORIGIN_TEXTS: [(&str, OriginText); 8] = [
    ("provider", |origin| Some(&origin.provider)),
    ("query", |origin| origin.query.as_deref()),
    ("url", |origin| Some(&origin.url)),
    ("source_page", |origin| origin.credit.source_page.as_deref()),
    ("title", |origin| origin.credit.title.as_deref()),
    ("author", |origin| origin.credit.author.as_deref()),
    ("licence", |origin| origin.credit.licence.as_deref()),
    ("licence_url", |origin| origin.credit.licence_url.as_deref()),
];
/// The column of its rank.
pub(super) const ORIGIN_RANK: &str = "rank";

/// Where a photo lies in the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On one side of a split.
    Side(Side),
    /// In this fold, numbered from 0; it is held out when the fold is.
    Fold(u32),
}

impl Place {
    /// Whether the photo is held out; `fold` is the fold that is, and matters only to a dataset with folds.
    pub fn is_held_out(self, fold: Option<u32>) -> bool {
        match self {
            Self::Side(side) => side == Side::Valid,
            Self::Fold(own) => Some(own) == fold,
        }
    }
}

/// Why a shard cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The Parquet file is damaged, or could not be read.
    #[error("failed to process the Parquet shard: {0}")]
    Parquet(#[from] ParquetError),
    /// The columns do not fit the schema.
    #[error("failed to process the shard's columns: {0}")]
    Arrow(#[from] ArrowError),
    /// A column is missing or has another type.
    #[error("the shard has no usable column {column}")]
    Column {
        /// The column's name.
        column: &'static str,
    },
    /// A value is not one that its column may have.
    #[error("row {row} of the shard has an invalid {column}")]
    Value {
        /// The column's name.
        column: &'static str,
        /// The row, from 0.
        row: usize,
    },
    /// The row does not exist.
    #[error("the dataset has {rows} photos; there is none with number {row}")]
    NoSuchRow {
        /// The row that was asked for, from 0.
        row: usize,
        /// How many there are.
        rows: usize,
    },
}

/// Fields of the image column.
pub(super) fn image_fields() -> Fields {
    vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)].into()
}

/// The schema of a dataset with these classes, with the metadata from which `datasets` takes its features. If photos were gathered, there
/// are columns that say where.
pub(super) fn schema(classes: &[String], is_gathered: bool) -> Arc<Schema> {
    let mut fields = vec![
        Field::new("image", DataType::Struct(image_fields()), true),
        Field::new("label", DataType::Int64, true),
        Field::new("digest", DataType::Utf8, true),
        Field::new("split", DataType::Utf8, true),
        Field::new("fold", DataType::Int32, true),
        Field::new("group", DataType::Int64, true),
        Field::new("width", DataType::Int32, true),
        Field::new("height", DataType::Int32, true),
        Field::new("original_format", DataType::Utf8, true),
    ];
    if is_gathered {
        fields.extend(ORIGIN_TEXTS.map(|(name, _)| Field::new(name, DataType::Utf8, true)));
        fields.push(Field::new(ORIGIN_RANK, DataType::Int64, true));
    }
    let metadata = HashMap::from([("huggingface".to_owned(), features(classes, is_gathered).to_string())]);
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// The `huggingface` metadata: `{"info": {"features": {column: feature}}}`.
fn features(classes: &[String], is_gathered: bool) -> Value {
    let mut features = Map::new();
    features.insert("image".into(), json!({"_type": "Image"}));
    features.insert("label".into(), json!({"names": classes, "_type": "ClassLabel"}));
    let values = [
        ("digest", "string"),
        ("split", "string"),
        ("fold", "int32"),
        ("group", "int64"),
        ("width", "int32"),
        ("height", "int32"),
        ("original_format", "string"),
    ];
    let origin = ORIGIN_TEXTS.map(|(name, _)| (name, "string")).into_iter().chain([(ORIGIN_RANK, "int64")]);
    for (column, dtype) in values.into_iter().chain(origin.filter(|_| is_gathered)) {
        features.insert(column.into(), json!({"dtype": dtype, "_type": "Value"}));
    }
    json!({"info": {"features": features}})
}
