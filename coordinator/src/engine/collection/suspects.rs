//! Suspects: objects to which no reference was found. They are removed half a grace period later.

use std::{collections::HashSet, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use sortinghat_proto::{Digest, Tenant, time::UnixMs};
use tokio::time::Instant;

use super::{
    Collected,
    erasure::ask,
    inventory::StoredObject,
    pass::{HOLD_MS, Pass, RECORDS_PER_PAGE},
    roots::Marked,
};
use crate::{
    engine::{
        error::EngineError,
        records::{self, Versioned, keys},
    },
    queue::wire,
    store::{Batch, Expectation},
};

/// How many objects are suspected, condemned or removed together.
const OBJECTS_PER_STEP: usize = RECORDS_PER_PAGE;
/// How many objects are listed between two renewals of the pass.
const LISTED_AT_A_TIME: usize = 1_000;
/// How many suspects a tenant may have, since each is a record in the queue's store. More objects become suspects when these are gone.
pub(super) const MAX_SUSPECTS: usize = 250_000;
/// How many objects are removed concurrently.
const REMOVALS_AT_A_TIME: usize = 16;
/// No removal is begun after this time. So every removal has reached the object store, or never will, before another coordinator may take
/// over the pass.
const REMOVAL_WINDOW: Duration = Duration::from_millis(HOLD_MS / 2);

/// An object to which no reference was found. The record is deleted when somebody relies on the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SuspectRecord {
    /// Since when it is a suspect.
    pub(super) since: UnixMs,
    /// Its tenant wants it to be removed, so that it has no grace.
    #[serde(default, skip_serializing_if = "wire::is_default")]
    pub(super) asked: bool,
}

impl SuspectRecord {
    fn insert(self, batch: &mut Batch, tenant: &Tenant, digest: &Digest) {
        let key = keys::suspect(tenant, digest);
        batch.checks.push((key.clone(), Expectation::Absent));
        batch.writes.push((key, records::encode(&self)));
        batch.insertions.push((keys::suspects(tenant), keys::suspect_entry(self.since, digest)));
    }

    pub(crate) fn remove(self, batch: &mut Batch, tenant: &Tenant, digest: &Digest, expected: Expectation) {
        let key = keys::suspect(tenant, digest);
        batch.checks.push((key.clone(), expected));
        batch.deletes.push(key);
        batch.removals.push((keys::suspects(tenant), keys::suspect_entry(self.since, digest)));
    }
}

/// A suspect, as it was read.
type Suspect = (Digest, Versioned<SuspectRecord>);

/// The fate of a condemned object.
enum Fate {
    /// It was removed. It had this many bytes.
    Removed(u64),
    /// It was written again meanwhile, or did not exist any more.
    Spared,
    /// Its tenant wants it to be removed, but an attempt that runs may have written it. A later pass removes it.
    Postponed,
    /// Its tenant wants it to be removed, but it was written since. Whoever wrote it may have committed a reference to it that the marking
    /// has not seen, so the next pass decides, as if the wish came now.
    Rewritten,
}

impl Pass<'_> {
    /// Removes the suspects that are due, and clears those that are live. Returns what was collected, and how many suspects are left.
    pub(super) async fn remove_suspects(&mut self, marked: &Marked) -> Result<(Collected, usize), EngineError> {
        let (mut collected, mut left, mut from) = (Collected::default(), 0, Some(String::new()));
        while let Some(entries) = self.page(&keys::suspects(self.tenant), &mut from).await? {
            let digests: Vec<Digest> = entries.iter().filter_map(|entry| keys::suspect_of_entry(entry)).collect();
            let suspects = self.read_suspects(&digests).await?.into_iter();
            let is_cleared =
                |(digest, suspect): &Suspect| marked.live.contains(digest) && !self.is_new_wish(&suspect.value);
            let (cleared, suspects): (Vec<Suspect>, Vec<Suspect>) = suspects.partition(is_cleared);
            self.clear(cleared).await?;
            let (due, early): (Vec<Suspect>, Vec<Suspect>) =
                suspects.into_iter().partition(|(_, suspect)| self.is_due(&suspect.value));
            left += early.len();
            self.has_wishes |= early.iter().any(|(_, suspect)| suspect.value.asked);
            if !due.is_empty() && self.condemn(&due).await? {
                collected += self.remove_condemned(due, marked).await?;
            }
        }
        Ok((collected, left))
    }

    /// Whether somebody has asked for the removal since the pass began, which is then the business of the next pass.
    fn is_new_wish(&self, suspect: &SuspectRecord) -> bool {
        suspect.asked && suspect.since >= self.started
    }

    fn is_due(&self, suspect: &SuspectRecord) -> bool {
        let has_waited = self.started.ms_since(suspect.since) >= self.collection.half_grace_ms();
        has_waited || suspect.asked && suspect.since < self.started
    }

    async fn read_suspects(&self, digests: &[Digest]) -> Result<Vec<Suspect>, EngineError> {
        let record_keys: Vec<String> = digests.iter().map(|digest| keys::suspect(self.tenant, digest)).collect();
        let records = self.collection.records.read_all::<SuspectRecord>(&record_keys).await?;
        Ok(digests.iter().cloned().zip(records).filter_map(|(digest, record)| Some((digest, record?))).collect())
    }

    /// Clears suspects that are live. If somebody else clears one of them at the same time, all of them are left to the next pass.
    async fn clear(&self, suspects: Vec<Suspect>) -> Result<(), EngineError> {
        if suspects.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        for (digest, suspect) in suspects {
            suspect.value.remove(&mut batch, self.tenant, &digest, Expectation::Version(suspect.version));
        }
        self.collection.records.apply_one(batch).await?;
        Ok(())
    }

    /// Condemns suspects: from now on they count as missing. `false` if somebody has cleared one of them meanwhile; then all of them are
    /// left to the next pass.
    async fn condemn(&mut self, suspects: &[Suspect]) -> Result<bool, EngineError> {
        let checks = suspects
            .iter()
            .map(|(digest, suspect)| (keys::suspect(self.tenant, digest), Expectation::Version(suspect.version)));
        let batch = Batch { checks: checks.collect(), ..Batch::default() };
        let condemned = suspects.iter().map(|(digest, _)| digest.clone()).collect();
        self.go_on(condemned, batch).await
    }

    /// Removes condemned objects, unless they were written again. After a failure it is not known whether a removal is still under way, so
    /// the objects stay condemned until none can be.
    async fn remove_condemned(&mut self, suspects: Vec<Suspect>, marked: &Marked) -> Result<Collected, EngineError> {
        let begun = Instant::now();
        let (inventory, tenant) = (self.inventory, self.tenant);
        let named = suspects.iter().map(|(digest, suspect)| {
            (digest.clone(), suspect.value.asked.then(|| self.least_written(suspect.value.since)))
        });
        let named: Vec<(Digest, Option<UnixMs>)> = named.collect();
        let (written_before, leased_before) = (marked.written_before, marked.leased_before);
        let removals = named.into_iter().map(|(digest, asked)| async move {
            let Some(object) = inventory.find(tenant, &digest).await? else { return Ok(Fate::Spared) };
            match asked {
                Some(asked) if latest_write(object.written) >= asked => return Ok(Fate::Rewritten),
                Some(_) if object.written >= leased_before => return Ok(Fate::Postponed),
                None if object.written >= written_before => return Ok(Fate::Spared),
                Some(_) | None => {}
            }
            if begun.elapsed() > REMOVAL_WINDOW {
                return Err(EngineError::Busy("removing objects takes too long".to_owned()));
            }
            inventory.remove(tenant, &digest).await?;
            Ok(Fate::Removed(object.size_bytes))
        });
        let fates: Vec<Fate> = stream::iter(removals).buffered(REMOVALS_AT_A_TIME).try_collect().await?;
        let (mut collected, mut batch) = (Collected::default(), Batch::default());
        let now = self.collection.records.store.now().await?;
        for ((digest, suspect), fate) in suspects.iter().zip(fates) {
            match fate {
                Fate::Removed(bytes) => {
                    collected.removed += 1;
                    collected.removed_bytes += bytes;
                }
                Fate::Spared => {}
                Fate::Postponed => {
                    self.has_wishes = true;
                    continue;
                }
                Fate::Rewritten => {
                    self.has_wishes = true;
                    ask(&mut batch, tenant, digest, Some(suspect), now);
                    continue;
                }
            }
            suspect.value.remove(&mut batch, tenant, digest, Expectation::Version(suspect.version));
        }
        self.note_removal().await?;
        if self.go_on(Vec::new(), batch).await? { Ok(collected) } else { Err(self.lost()) }
    }

    /// Makes suspects of the objects that are not live. `left` suspects of earlier passes count against the limit.
    pub(crate) async fn suspect(&mut self, marked: &Marked, left: usize) -> Result<usize, EngineError> {
        let mut suspected = 0;
        let mut listed = self.inventory.list(self.tenant).try_chunks(LISTED_AT_A_TIME);
        while let Some(some) = listed.next().await {
            self.renew().await?;
            let mut strays = some.map_err(|failed| failed.1)?;
            strays.retain(|object| object.written < marked.written_before && !marked.live.contains(&object.digest));
            for some in strays.chunks(OBJECTS_PER_STEP) {
                if left + suspected >= MAX_SUSPECTS {
                    tracing::info!(tenant = %self.tenant, "a tenant has as many suspected objects as it may have");
                    return Ok(suspected);
                }
                suspected += self.suspect_these(some).await?;
            }
        }
        Ok(suspected)
    }

    /// Makes suspects of those objects that are no suspects yet. Returns how many have become suspects.
    async fn suspect_these(&self, strays: &[StoredObject]) -> Result<usize, EngineError> {
        let since = self.collection.records.store.now().await?;
        let digests: Vec<Digest> = strays.iter().map(|object| object.digest.clone()).collect();
        let known: HashSet<Digest> =
            self.read_suspects(&digests).await?.into_iter().map(|(digest, _)| digest).collect();
        let mut batch = Batch::default();
        for digest in digests.iter().filter(|digest| !known.contains(digest)) {
            SuspectRecord { since, asked: false }.insert(&mut batch, self.tenant, digest);
        }
        let count = batch.writes.len();
        Ok(if count > 0 && self.collection.records.apply_one(batch).await? { count } else { 0 })
    }
}

/// The latest moment at which an object may have been written. Some stores, such as S3, tell whole seconds only.
fn latest_write(written: UnixMs) -> UnixMs {
    if written.0.is_multiple_of(1_000) { written.plus_ms(999) } else { written }
}
