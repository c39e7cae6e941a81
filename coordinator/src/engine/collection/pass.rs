//! One pass over a tenant's objects, by one coordinator at a time.

use rand::RngExt as _;
use sortinghat_proto::{Digest, Refusal, Tenant, time::UnixMs, v1::ErrorCode};

use super::{Collected, CollectionRecord, Stage};
use crate::{
    engine::{Shared, inventory::ObjectInventory, keys, load::Versioned, records},
    store::{Batch, Expectation},
};

/// How long a pass belongs to its coordinator from when that last said so, in milliseconds.
pub(super) const HOLD_MS: u64 = 600_000;
/// The clocks of the queue's store and of the object store may differ by this part of half a grace.
const SKEW_PART: u64 = 4;

/// A pass that this coordinator has begun.
pub(super) struct Pass<'a> {
    pub(super) shared: &'a Shared,
    pub(super) inventory: &'a dyn ObjectInventory,
    pub(super) tenant: &'a Tenant,
    /// By the queue's store, as everything here but what the object store says.
    pub(super) started: UnixMs,
    number: u64,
    until: UnixMs,
    last_removal: UnixMs,
    expectation: Expectation,
}

impl<'a> Pass<'a> {
    /// Begins the next pass, if it is due and no other coordinator is at it.
    pub(super) async fn begin(
        shared: &'a Shared,
        inventory: &'a dyn ObjectInventory,
        tenant: &'a Tenant,
    ) -> Result<Option<Self>, Refusal> {
        let read = shared.read::<CollectionRecord>(keys::collection(tenant)).await?;
        let started = shared.store.now().await?;
        let number = shared.dice().random();
        let mut pass = Self {
            shared,
            inventory,
            tenant,
            started,
            number,
            until: started,
            last_removal: UnixMs::default(),
            expectation: Expectation::Absent,
        };
        let Some(Versioned { version, value }) = read else {
            // A coordinator of an older version may be answering beside this one, and takes nothing off the suspects.
            pass.end().await?;
            return Ok(None);
        };
        pass.expectation = Expectation::Version(version);
        pass.last_removal = value.last_removal;
        match &value.stage {
            Stage::Idle { due } if *due > started => return Ok(None),
            Stage::Busy { until, .. } if *until > started => return Ok(None),
            // Whoever condemned these did not live to say what became of them.
            Stage::Busy { condemned, .. } if !condemned.is_empty() => pass.last_removal = started,
            Stage::Idle { .. } | Stage::Busy { .. } => {}
        }
        Ok(pass.go_on(Vec::new(), Batch::default()).await?.then_some(pass))
    }

    /// Does all of it.
    pub(super) async fn run(mut self) -> Result<Collected, Refusal> {
        self.require_clocks().await?;
        let marked = self.mark().await?;
        let mut collected = self.remove_suspects(&marked).await?;
        collected.suspected = self.suspect(&marked).await?;
        let abandoned = UnixMs(self.started.0.saturating_sub(self.shared.settings.object_grace_ms));
        collected.unfinished = self.inventory.remove_unfinished(self.tenant, abandoned).await?;
        if self.end().await? { Ok(collected) } else { Err(self.lost()) }
    }

    /// Says that it goes on, before others may believe that it does not. Refuses if they may already.
    pub(super) async fn renew(&mut self) -> Result<(), Refusal> {
        let now = self.shared.store.now().await?;
        if now >= self.until {
            return Err(self.lost());
        }
        let is_early = self.until.ms_since(now) > HOLD_MS / 2;
        if is_early || self.go_on(Vec::new(), Batch::default()).await? { Ok(()) } else { Err(self.lost()) }
    }

    /// Goes on with these objects being removed, and `batch` beside it; `false` if that would not apply although the pass is still
    /// this one's.
    pub(super) async fn go_on(&mut self, condemned: Vec<Digest>, batch: Batch) -> Result<bool, Refusal> {
        let until = self.shared.store.now().await?.plus_ms(HOLD_MS);
        let applied = self.write(Stage::Busy { pass: self.number, until, condemned }, batch).await?;
        if applied {
            self.until = until;
        }
        Ok(applied)
    }

    /// Notes that objects were removed until now.
    pub(super) async fn note_removal(&mut self) -> Result<(), Refusal> {
        self.last_removal = self.shared.store.now().await?;
        Ok(())
    }

    /// The next pass comes half a grace from now, when those that are suspects now have been for that long.
    async fn end(&mut self) -> Result<bool, Refusal> {
        let due = self.shared.store.now().await?.plus_ms(self.shared.half_grace_ms());
        self.write(Stage::Idle { due }, Batch::default()).await
    }

    async fn write(&mut self, stage: Stage, mut batch: Batch) -> Result<bool, Refusal> {
        let key = keys::collection(self.tenant);
        let record = CollectionRecord { stage, last_removal: self.last_removal };
        batch.checks.push((key.clone(), self.expectation));
        batch.writes.push((key.clone(), records::encode(&record)));
        let applied = self.shared.apply_one(batch).await?;
        self.shared.collections.doubt(self.tenant);
        match self.shared.read::<CollectionRecord>(key).await? {
            Some(Versioned { version, value }) if value == record => {
                self.expectation = Expectation::Version(version);
                Ok(true)
            }
            Some(Versioned { version, .. }) if !applied && self.expectation == Expectation::Version(version) => {
                Ok(false)
            }
            Some(_) | None => Err(self.lost()),
        }
    }

    pub(super) fn lost(&self) -> Refusal {
        let message = "another coordinator goes on with collecting, since this one was too slow";
        Refusal::new(ErrorCode::StorageUnavailable, message)
    }

    /// Refuses to go by the times of the object store if they say something else than the queue's.
    async fn require_clocks(&self) -> Result<(), Refusal> {
        let before = self.shared.store.now().await?;
        let theirs = self.inventory.now().await?;
        let after = self.shared.store.now().await?;
        let skew_ms = before.ms_since(theirs).max(theirs.ms_since(after));
        if skew_ms > self.longest_skew_ms() {
            let message =
                format!("the clocks of the queue's store and the object store differ by {skew_ms} ms: set them");
            return Err(Refusal::new(ErrorCode::WrongState, message));
        }
        Ok(())
    }

    /// How much later than it was something may seem to have been written.
    pub(super) fn longest_skew_ms(&self) -> u64 {
        self.shared.half_grace_ms() / SKEW_PART
    }
}
