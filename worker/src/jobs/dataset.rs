//! Datasets as jobs open them.

use sortinghat_proto::manifest::DatasetManifest;

use crate::{
    dataset::Dataset,
    task::{JobContext, JobError},
};

/// Opens all shards of a dataset through the cache of this machine.
pub(super) fn open_dataset(context: &JobContext, manifest: &DatasetManifest) -> Result<Dataset, JobError> {
    let total = manifest.shards.len() as u64;
    let mut files = Vec::with_capacity(manifest.shards.len());
    for (done, shard) in (0..).zip(&manifest.shards) {
        context.check_cancelled()?;
        context.progress("fetch", done, total, "shards");
        files.push(context.objects().open(&shard.object)?);
    }
    Dataset::open(files).map_err(|error| JobError::Internal(format!("failed to open the dataset: {error}")))
}
