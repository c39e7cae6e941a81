use sortinghat_client::Client;
use sortinghat_proto::ObjectRef;

use crate::failure::Failure;

/// A stored document as it is, for programs.
pub(crate) async fn document(client: &Client, object: &ObjectRef) -> Result<serde_json::Value, Failure> {
    let bytes = client.read_object(object).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::local(format!("object {} is not a JSON document: {error}", object.digest)))
}
