//! The heads: the first tasks of the ready queues that a worker may serve.

use futures::future;

use super::{Queues, gates::Gates};
use crate::{
    engine::{error::EngineError, records::QueueName},
    queue::Heads,
    store::Range,
};

impl Queues {
    /// Reads up to `window` first tasks of every ready queue that `may_serve` admits, and the gates of the tenants.
    /// Queues that are empty or paused are left out. The set of open queues seldom changes. So the queues that were open at the last look
    /// are read at the same time as the current set, and the queues are read again only if the set has changed.
    pub(crate) async fn heads(
        &self,
        may_serve: impl Fn(&QueueName) -> bool,
        window: usize,
    ) -> Result<(Vec<Heads>, Gates), EngineError> {
        let served = |queues: &[QueueName]| -> Vec<QueueName> {
            queues.iter().filter(|queue| may_serve(queue)).cloned().collect()
        };
        let expected = served(&self.last_open.queues());
        let (open, heads) = future::try_join(self.open_queues(), self.heads_of(&expected, window)).await?;
        let open = served(&open);
        if open == expected { Ok(heads) } else { self.heads_of(&open, window).await }
    }

    async fn heads_of(&self, queues: &[QueueName], window: usize) -> Result<(Vec<Heads>, Gates), EngineError> {
        let entries =
            self.records.store.ranges(queues.iter().map(|queue| Range::first(queue.index(), window)).collect());
        let entries = async { Ok(entries.await?) };
        let (gates, entries) = future::try_join(self.gates(queues.iter().map(|queue| &queue.tenant)), entries).await?;
        let has_tasks =
            |(queue, entries): &(&QueueName, Vec<String>)| !entries.is_empty() && !gates.is_paused(&queue.tenant);
        let heads = queues.iter().zip(entries).filter(has_tasks).map(|(queue, entries)| Heads {
            lane: queue.lane,
            tenant: queue.tenant.clone(),
            entries: entries.into(),
        });
        Ok((heads.collect(), gates))
    }
}
