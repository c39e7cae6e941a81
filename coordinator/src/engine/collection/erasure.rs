//! Removing objects soon, at the wish of their tenant. The objects become suspects that have no grace, and the next pass is due at once. As
//! any suspect, such an object stays if something refers to it, and is cleared when somebody relies on it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sortinghat_proto::{Digest, Tenant, time::UnixMs, v1::ErrorCode};

use super::{
    Collection, CollectionRecord, Seen,
    roots::output_of,
    suspects::{MAX_SUSPECTS, SuspectRecord},
};
use crate::{
    engine::{
        context::MAX_TRIES,
        error::EngineError,
        records::{self, JobRecord, TaskRecord, Versioned, expectation, keys},
    },
    queue::{Task, wire},
    store::{Batch, Expectation},
};

/// How many objects one batch names.
const OBJECTS_PER_BATCH: usize = 250;

/// Some objects are to be removed soon. The record exists until a pass has decided about all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ErasureRecord {
    /// When somebody asked last.
    pub(super) asked: UnixMs,
    /// How many objects were named since the record exists.
    #[serde(default, skip_serializing_if = "wire::is_default")]
    named: usize,
}

impl Collection {
    /// Asks for objects to be removed soon, unless something refers to them. Returns after which time they are gone as a rule, in
    /// milliseconds. The caller leaves out objects that do not exist, since each becomes a record.
    ///
    /// Refuses more objects than a tenant may have suspects, until a pass has decided about those before.
    pub(crate) async fn erase(&self, tenant: &Tenant, digests: &[Digest]) -> Result<u64, EngineError> {
        for some in digests.chunks(OBJECTS_PER_BATCH) {
            self.erase_some(tenant, some).await?;
        }
        // The next look for passes that are due may have been just before, and a pass takes a while.
        Ok(2 * self.pause_ms())
    }

    /// Every object that a job has read as an upload or has made: its upload, its result, the results and checkpoints of its tasks, and what
    /// the documents among them name. Something else may refer to some of them as well.
    pub(crate) async fn objects_of(&self, job: &JobRecord) -> Result<Vec<Digest>, EngineError> {
        let of_job = [job.request.spec.source(), job.progress.output.as_ref().and_then(|made| made.manifest.as_ref())];
        let mut documents: BTreeSet<Digest> =
            of_job.into_iter().flatten().filter_map(|object| object.digest.parse().ok()).collect();
        let mut objects = BTreeSet::new();
        let mut note = |task: &Task| {
            objects.extend(task.checkpoint.iter().map(|checkpoint| checkpoint.digest.clone()));
            documents.extend(output_of(task).cloned());
        };
        note(&job.progress.task.task);
        for some in job.shard_keys().chunks(OBJECTS_PER_BATCH) {
            let shards = self.records.read_all::<TaskRecord>(some).await?;
            shards.iter().flatten().for_each(|shard| note(&shard.value.task));
        }
        for document in &documents {
            objects.extend(self.parts(&job.tenant, document).await?.into_iter().map(|part| part.digest));
        }
        objects.append(&mut documents);
        Ok(objects.into_iter().collect())
    }

    async fn erase_some(&self, tenant: &Tenant, digests: &[Digest]) -> Result<(), EngineError> {
        for _ in 0..MAX_TRIES {
            let collection = Seen::from(self.records.read::<CollectionRecord>(keys::collection(tenant)).await?);
            let wish = self.records.read::<ErasureRecord>(keys::erasure(tenant)).await?;
            let suspect_keys: Vec<String> = digests.iter().map(|digest| keys::suspect(tenant, digest)).collect();
            let suspects = self.records.read_all::<SuspectRecord>(&suspect_keys).await?;
            let now = self.records.store.now().await?;
            // An object that is being removed need not be asked for.
            let condemned = collection.record.condemned();
            let mut batch = Batch { checks: vec![collection.fence(tenant)], ..Batch::default() };
            let mut named = wish.as_ref().map_or(0, |wish| wish.value.named);
            for (digest, known) in digests.iter().zip(&suspects).filter(|(digest, _)| !condemned.contains(digest)) {
                named += usize::from(ask(&mut batch, tenant, digest, known.as_ref(), now));
            }
            if named > MAX_SUSPECTS {
                let message = format!(
                    "{MAX_SUSPECTS} objects at most may wait for their removal, and more would: try again when the collection has removed some"
                );
                return Err(EngineError::refused(ErrorCode::ResourceExhausted, message));
            }
            let key = keys::erasure(tenant);
            batch.checks.push((key.clone(), expectation(&wish)));
            batch.writes.push((key, records::encode(&ErasureRecord { asked: now, named })));
            if self.records.apply_one(batch).await? {
                return Ok(());
            }
            self.invalidate(tenant);
        }
        Err(EngineError::contended("the set of suspected objects"))
    }
}

/// Makes an object a suspect without grace from this moment on, whether or not it is a suspect already. `true` if nobody had asked for its
/// removal before.
pub(super) fn ask(
    batch: &mut Batch,
    tenant: &Tenant,
    digest: &Digest,
    known: Option<&Versioned<SuspectRecord>>,
    now: UnixMs,
) -> bool {
    let key = keys::suspect(tenant, digest);
    if batch.checks.iter().any(|(checked, _)| *checked == key) {
        // The request names it twice.
        return false;
    }
    if let Some(known) = known {
        batch.removals.push((keys::suspects(tenant), keys::suspect_entry(known.value.since, digest)));
    }
    batch.checks.push((key.clone(), known.map_or(Expectation::Absent, Versioned::expectation)));
    batch.writes.push((key, records::encode(&SuspectRecord { since: now, asked: true })));
    batch.insertions.push((keys::suspects(tenant), keys::suspect_entry(now, digest)));
    !known.is_some_and(|known| known.value.asked)
}
