//! Datasets: their split, their folds and their Parquet shards. Knows no tensor.

pub mod split;
