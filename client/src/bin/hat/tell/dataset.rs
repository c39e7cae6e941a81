use sortinghat_client::Client;
use sortinghat_proto::manifest::{DatasetManifest, Rejection};

use crate::failure::Failure;

/// The files that were not used for a dataset.
pub(crate) async fn rejections(client: &Client, dataset: &DatasetManifest) -> Result<Vec<Rejection>, Failure> {
    let Some(object) = &dataset.rejections else { return Ok(Vec::new()) };
    let bytes = client.read_object(object).await?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::local(format!("the list of rejected files ({}) is damaged: {error}", object.digest)))
}
