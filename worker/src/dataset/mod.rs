//! Datasets: which file is which photo of which class, who trains and who validates, and the Parquet shards. This room knows no
//! tensor.

pub mod intake;
pub mod plan;
mod reader;
pub mod remarks;
mod schema;
mod spill;
pub mod split;
pub mod usable;
mod writer;

pub use reader::{Dataset, ShardReader};
pub use schema::{Origin, PhotoRecord, Place, ShardError};
pub use spill::Spill;
pub use writer::{FinishedShard, ShardWriter};
