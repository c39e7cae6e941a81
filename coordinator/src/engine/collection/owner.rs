//! To which queue the objects of a store belong. Another one would take them for objects that nothing refers to.

use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use sortinghat_proto::Refusal;

use crate::{
    engine::{Engine, MAX_TRIES, ObjectInventory, Shared, contended, keys, records},
    store::{Batch, Expectation},
};

/// The queue's name for itself. Written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct QueueRecord {
    id: String,
}

impl Engine {
    /// Whether the objects belong to this queue. They do from now on if they belonged to none.
    pub async fn own(&self, inventory: &dyn ObjectInventory) -> Result<bool, Refusal> {
        let id = self.shared.queue_id().await?;
        Ok(inventory.claim(&id).await? == id)
    }
}

impl Shared {
    async fn queue_id(&self) -> Result<String, Refusal> {
        for _ in 0..MAX_TRIES {
            let key = keys::QUEUE_ID.to_owned();
            if let Some(known) = self.read::<QueueRecord>(key.clone()).await? {
                return Ok(known.value.id);
            }
            let record = QueueRecord { id: format!("{:032x}", self.dice().random::<u128>()) };
            let batch = Batch {
                checks: vec![(key.clone(), Expectation::Absent)],
                writes: vec![(key, records::encode(&record))],
                ..Batch::default()
            };
            self.apply_one(batch).await?;
        }
        Err(contended("the queue's id"))
    }
}
