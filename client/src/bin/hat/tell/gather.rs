use sortinghat_client::Client;
use sortinghat_proto::{
    ObjectRef,
    manifest::{DatasetManifest, PhotoSource},
    v1::Job,
};

use super::ingest;
use crate::{failure::Failure, session::Session};

/// Tells the dataset, as that of an ingest.
pub(super) async fn tell(session: &Session, client: &Client, job: &Job, manifest: &ObjectRef) -> Result<(), Failure> {
    ingest::tell(session, client, job, manifest).await
}

/// What became of each photo that was found for a dataset, or nothing if none was gathered.
pub(crate) async fn sources(client: &Client, dataset: &DatasetManifest) -> Result<Vec<PhotoSource>, Failure> {
    let Some(gathered) = &dataset.gathered else { return Ok(Vec::new()) };
    let bytes = client.read_object(&gathered.sources).await?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let read: Result<Vec<PhotoSource>, _> = lines.map(serde_json::from_slice).collect();
    let digest = &gathered.sources.digest;
    read.map_err(|error| Failure::local(format!("the list of sources ({digest}) is damaged: {error}")))
}
