//! To which queue the objects of a store belong. Another one would take them for objects that nothing refers to.

use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use super::{Collection, inventory::ObjectInventory};
use crate::{
    engine::{
        context::MAX_TRIES,
        error::EngineError,
        records::{self, keys},
    },
    store::{Batch, Expectation},
};

/// The queue's name for itself. Written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct QueueRecord {
    id: String,
}

impl Collection {
    /// Whether the objects belong to this queue. They do from now on if they belonged to none.
    pub(crate) async fn own(&self, inventory: &dyn ObjectInventory) -> Result<bool, EngineError> {
        let id = self.queue_id().await?;
        Ok(inventory.claim(&id).await? == id)
    }

    async fn queue_id(&self) -> Result<String, EngineError> {
        for _ in 0..MAX_TRIES {
            let key = keys::QUEUE_ID.to_owned();
            if let Some(known) = self.records.read::<QueueRecord>(key.clone()).await? {
                return Ok(known.value.id);
            }
            let record = QueueRecord { id: format!("{:032x}", self.context.dice().random::<u128>()) };
            let batch = Batch {
                checks: vec![(key.clone(), Expectation::Absent)],
                writes: vec![(key, records::encode(&record))],
                ..Batch::default()
            };
            self.records.apply_one(batch).await?;
        }
        Err(EngineError::contended("the queue's id"))
    }
}
