//! The owner of an object store: the one queue whose coordinators may collect its objects. Another queue has no references to the objects,
//! and so would remove them all.

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

/// The random id of the queue. It is written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct QueueIdRecord {
    id: String,
}

impl Collection {
    /// Whether the objects belong to this queue. Objects that belong to no queue belong to this queue from now on.
    pub(crate) async fn own(&self, inventory: &dyn ObjectInventory) -> Result<bool, EngineError> {
        let id = self.queue_id().await?;
        let is_owned = inventory.claim(&id).await? == id;
        if is_owned {
            *self.owner.lock() = id;
        }
        Ok(is_owned)
    }

    /// The id of the queue, if the objects were found to belong to it; else empty.
    pub(crate) fn owner(&self) -> String {
        self.owner.lock().clone()
    }

    async fn queue_id(&self) -> Result<String, EngineError> {
        for _ in 0..MAX_TRIES {
            let key = keys::QUEUE_ID.to_owned();
            if let Some(known) = self.records.read::<QueueIdRecord>(key.clone()).await? {
                return Ok(known.value.id);
            }
            let record = QueueIdRecord { id: format!("{:032x}", self.context.dice().random::<u128>()) };
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
