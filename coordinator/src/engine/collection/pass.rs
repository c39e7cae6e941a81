//! One pass over a tenant's objects. Only one coordinator at a time runs a pass of a tenant.

use rand::RngExt as _;
use sortinghat_proto::{Digest, Tenant, time::UnixMs, v1::ErrorCode};

use super::{Collected, Collection, CollectionRecord, Stage, erasure::ErasureRecord, inventory::ObjectInventory};
use crate::{
    engine::{
        error::EngineError,
        records::{self, Versioned, expectation, keys},
    },
    store::{Batch, Expectation, Range},
};

/// For how long a pass belongs to its coordinator after the last renewal, in milliseconds.
pub(super) const HOLD_MS: u64 = 600_000;
/// How many records are read at a time.
pub(super) const RECORDS_PER_PAGE: usize = 256;
/// The clocks of the queue's store and of the object store may differ by half a grace period divided by this number.
pub(super) const SKEW_PART: u64 = 4;

/// The result of a write of the tenant's record.
enum Written {
    /// The record was written.
    Applied,
    /// The record was not written, and nobody else has changed it.
    Refused,
    /// Another coordinator has changed the record.
    Lost,
}

/// A pass that this coordinator runs.
pub(super) struct Pass<'a> {
    pub(super) collection: &'a Collection,
    pub(crate) inventory: &'a dyn ObjectInventory,
    pub(crate) tenant: &'a Tenant,
    /// When the pass began, by the clock of the queue's store. All times here are by that clock, except those that the object store
    /// returns.
    pub(crate) started: UnixMs,
    number: u64,
    until: UnixMs,
    last_removal: UnixMs,
    expectation: Expectation,
    /// The wish for which the pass began, if there was one.
    wish: Option<Versioned<ErasureRecord>>,
    /// A later pass has to go on with wishes.
    pub(super) has_wishes: bool,
    /// By how much the clock of the object store is ahead of the clock of the queue's store at least, in milliseconds. It may be behind.
    ahead_ms: i64,
}

impl<'a> Pass<'a> {
    /// Begins the next pass, if it is due and no other coordinator runs it.
    pub(crate) async fn begin(
        collection: &'a Collection,
        inventory: &'a dyn ObjectInventory,
        tenant: &'a Tenant,
    ) -> Result<Option<Self>, EngineError> {
        let read = collection.records.read::<CollectionRecord>(keys::collection(tenant)).await?;
        // A wish that comes after this read is from after the beginning of the pass.
        let wish = collection.records.read::<ErasureRecord>(keys::erasure(tenant)).await?;
        let started = collection.records.store.now().await?;
        let number = collection.context.dice().random();
        let mut pass = Self {
            collection,
            inventory,
            tenant,
            started,
            number,
            until: started,
            last_removal: UnixMs::default(),
            expectation: Expectation::Absent,
            wish,
            has_wishes: false,
            ahead_ms: 0,
        };
        let Some(Versioned { version, value }) = read else {
            // A coordinator of an older version, which clears no suspects, may still be answering callers beside this one. So the first
            // pass waits.
            let due = started.plus_ms(collection.half_grace_ms());
            pass.write(Stage::Idle { due }, Batch::default()).await?;
            return Ok(None);
        };
        pass.expectation = Expectation::Version(version);
        pass.last_removal = value.last_removal;
        match &value.stage {
            Stage::Idle { due } if *due > started && pass.wish.is_none() => return Ok(None),
            Stage::Busy { until, .. } if *until > started => return Ok(None),
            // The coordinator that condemned these objects died before it could record which of them it has removed.
            Stage::Busy { condemned, .. } if !condemned.is_empty() => pass.last_removal = started,
            Stage::Idle { .. } | Stage::Busy { .. } => {}
        }
        pass.until = started.plus_ms(HOLD_MS);
        let stage = Stage::Busy { pass: number, until: pass.until, condemned: Vec::new() };
        Ok(matches!(pass.write(stage, Batch::default()).await?, Written::Applied).then_some(pass))
    }

    /// Runs the whole pass.
    pub(crate) async fn run(mut self) -> Result<Collected, EngineError> {
        self.require_clocks().await?;
        let marked = self.mark().await?;
        let (mut collected, left) = self.remove_suspects(&marked).await?;
        collected.suspected = self.suspect(&marked, left).await?;
        self.grant_wish().await?;
        let abandoned = UnixMs(self.started.0.saturating_sub(self.collection.context.settings.object_grace_ms));
        collected.unfinished = self.inventory.remove_unfinished(self.tenant, abandoned).await?;
        // The next pass is due when the suspects of this pass have been suspects for half a grace period.
        let due = self.collection.records.store.now().await?.plus_ms(self.collection.half_grace_ms());
        match self.write(Stage::Idle { due }, Batch::default()).await? {
            Written::Applied => Ok(collected),
            Written::Refused | Written::Lost => Err(self.lost()),
        }
    }

    /// Removes the wish for which the pass began, if it was decided about all of its objects and nobody has asked again.
    async fn grant_wish(&mut self) -> Result<(), EngineError> {
        let Some(wish) = self.wish.take().filter(|wish| !self.has_wishes && wish.value.asked < self.started) else {
            return Ok(());
        };
        let key = keys::erasure(self.tenant);
        let batch = Batch { checks: vec![(key.clone(), wish.expectation())], deletes: vec![key], ..Batch::default() };
        self.collection.records.apply_one(batch).await.map(drop)
    }

    /// Renews the pass before its time is over. Refuses if the time is over already.
    pub(crate) async fn renew(&mut self) -> Result<(), EngineError> {
        let now = self.collection.records.store.now().await?;
        if now >= self.until {
            return Err(self.lost());
        }
        let is_early = self.until.ms_since(now) > HOLD_MS / 2;
        if is_early || self.go_on(Vec::new(), Batch::default()).await? { Ok(()) } else { Err(self.lost()) }
    }

    /// Renews the pass, records the objects that are being removed, and applies `batch` with that. `false` if this did not apply, although
    /// the pass still belongs to this coordinator.
    pub(super) async fn go_on(&mut self, condemned: Vec<Digest>, batch: Batch) -> Result<bool, EngineError> {
        let until = self.collection.records.store.now().await?.plus_ms(HOLD_MS);
        match self.write(Stage::Busy { pass: self.number, until, condemned }, batch).await? {
            Written::Applied => {
                self.until = until;
                Ok(true)
            }
            Written::Refused => Ok(false),
            Written::Lost => Err(self.lost()),
        }
    }

    /// Reads the next entries of an index, beginning at `from`, and moves `from` behind them. `None` after the last entry.
    pub(crate) async fn page(
        &mut self,
        index: &str,
        from: &mut Option<String>,
    ) -> Result<Option<Vec<String>>, EngineError> {
        let Some(least) = from.take() else { return Ok(None) };
        self.renew().await?;
        let entries = self.collection.records.store.range(Range::first(index, RECORDS_PER_PAGE).from(least)).await?;
        *from = entries.last().map(|last| keys::after_entry(last));
        Ok(from.is_some().then_some(entries))
    }

    /// Notes that objects were removed up to this moment.
    pub(super) async fn note_removal(&mut self) -> Result<(), EngineError> {
        self.last_removal = self.collection.records.store.now().await?;
        Ok(())
    }

    async fn write(&mut self, stage: Stage, mut batch: Batch) -> Result<Written, EngineError> {
        let key = keys::collection(self.tenant);
        let record = CollectionRecord { stage, last_removal: self.last_removal };
        batch.checks.push((key.clone(), self.expectation));
        batch.writes.push((key.clone(), records::encode(&record)));
        let applied = self.collection.records.apply_one(batch).await?;
        self.collection.invalidate(self.tenant);
        Ok(match self.collection.records.read::<CollectionRecord>(key).await? {
            Some(Versioned { version, value }) if *value == record => {
                self.expectation = Expectation::Version(version);
                Written::Applied
            }
            read if !applied && expectation(&read) == self.expectation => Written::Refused,
            Some(_) | None => Written::Lost,
        })
    }

    pub(crate) fn lost(&self) -> EngineError {
        EngineError::Busy("another coordinator has taken over the collection, since this one was too slow".to_owned())
    }

    /// Refuses to collect if the clocks of the object store and of the queue's store differ by too much, since the times of objects would
    /// be misleading. Notes by how much they differ.
    async fn require_clocks(&mut self) -> Result<(), EngineError> {
        let before = self.collection.records.store.now().await?;
        let theirs = self.inventory.now().await?;
        let after = self.collection.records.store.now().await?;
        let skew_ms = before.ms_since(theirs).max(theirs.ms_since(after));
        if skew_ms > self.longest_skew_ms() {
            let message = format!(
                "the clocks of the queue's store and the object store differ by {skew_ms} ms: synchronize them"
            );
            return Err(EngineError::refused(ErrorCode::WrongState, message));
        }
        self.ahead_ms = theirs.0.cast_signed().saturating_sub(after.0.cast_signed());
        Ok(())
    }

    /// The least time, by the clock of the object store, at which an object was written that was written at this time or later.
    pub(super) fn least_written(&self, since: UnixMs) -> UnixMs {
        UnixMs(since.0.saturating_add_signed(self.ahead_ms))
    }

    /// By how much the time at which an object was written may be too late or too early.
    pub(super) fn longest_skew_ms(&self) -> u64 {
        self.collection.half_grace_ms() / SKEW_PART
    }
}
