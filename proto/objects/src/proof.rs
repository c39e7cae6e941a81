//! What proves that a store can be used, and that it is the one of the queue.

use object_store::{Error, ObjectStoreExt as _, Result};

use crate::{open::Opened, trouble::is_missing};

/// The object below the prefix that holds the id of the queue to which the objects belong.
pub const QUEUE_ID: &str = "queue-id";
/// The object that a proof writes and removes.
const PROBE: &str = "probe-worker";

impl Opened {
    /// The id of the queue to which the objects belong; `None` if they belong to none.
    ///
    /// # Errors
    /// What the store says.
    pub async fn queue_id(&self) -> Result<Option<String>> {
        let read = async { self.store.get(&self.prefix.clone().join(QUEUE_ID)).await?.bytes().await };
        match read.await {
            Ok(content) => Ok(Some(String::from_utf8_lossy(&content).trim().to_owned())),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a small object, and removes it.
    ///
    /// # Errors
    /// What the store says.
    pub async fn write_probe(&self) -> Result<()> {
        let path = self.prefix.clone().join(PROBE);
        self.store.put(&path, PROBE.as_bytes().into()).await?;
        match self.store.delete(&path).await {
            // Another worker that proves the same may have removed the object.
            Err(Error::NotFound { .. }) => Ok(()),
            removed => removed,
        }
    }
}
