//! Protecting objects that somebody relies on although nothing refers to them yet, and fences for the commits that make something refer to
//! them.

use std::{
    collections::{BTreeSet, HashSet},
    iter,
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use sortinghat_proto::{
    Digest, ObjectRef, Tenant,
    limits::MAX_DIGESTS_PER_CALL,
    time::UnixMs,
    v1::{self, ErrorCode, FailureClass},
};
use tokio::time::timeout;

use super::{Collection, CollectionRecord, Fence, Seen, Stage, roots::references, suspects::SuspectRecord};
use crate::{
    engine::{
        context::MAX_TRIES,
        error::EngineError,
        records::{self, Versioned, keys},
    },
    store::{Batch, Expectation, Verdict},
};

/// How many objects are looked for concurrently.
pub(super) const OBJECTS_AT_A_TIME: usize = 16;
/// How many suspects one batch clears.
const OBJECTS_PER_BATCH: usize = 500;
/// How long the coordinator reads an object that a worker reports as lost.
const LONGEST_SECOND_LOOK: Duration = Duration::from_secs(1);

impl Collection {
    /// Protects these objects from collection for half a grace period, although nothing may refer to them yet. It must be called before the
    /// caller checks which of the objects exist. Returns the objects that are being removed at this moment. The caller treats them as
    /// missing.
    pub(crate) async fn reuse(&self, tenant: &Tenant, digests: &[Digest]) -> Result<HashSet<Digest>, EngineError> {
        let digests: BTreeSet<&Digest> = digests.iter().collect();
        let record_keys = digests.iter().map(|digest| keys::suspect(tenant, digest));
        let record_keys: Vec<String> = std::iter::once(keys::collection(tenant)).chain(record_keys).collect();
        for _ in 0..MAX_TRIES {
            // All records are read at one moment. An object that is no suspect at that moment is either kept, or was removed before, which
            // the caller sees when it checks.
            let mut found = record_keys.iter().zip(self.records.store.read(&record_keys).await?);
            let collection = match found.next() {
                Some((key, Some(record))) => {
                    let value: CollectionRecord = records::decode(key, &record.value)?;
                    Seen::from(Some(Versioned { version: record.version, value: Box::new(value) }))
                }
                Some((_, None)) | None => Seen::from(None),
            };
            let condemned: HashSet<&Digest> = collection.record.condemned().iter().collect();
            let mut suspects = Vec::new();
            for (digest, (key, record)) in digests.iter().zip(found) {
                if let Some(record) = record.filter(|_| !condemned.contains(digest)) {
                    let value: SuspectRecord = records::decode(key, &record.value)?;
                    suspects.push((*digest, Versioned { version: record.version, value: Box::new(value) }));
                }
            }
            if self.clear(tenant, &collection, &suspects).await? {
                return Ok(digests.into_iter().filter(|digest| condemned.contains(digest)).cloned().collect());
            }
        }
        Err(EngineError::contended("the set of suspected objects"))
    }

    /// Protects objects that are about to be uploaded or read. Fails if one of them is being removed at this moment.
    pub(crate) async fn reuse_all(&self, tenant: &Tenant, digests: &[Digest]) -> Result<(), EngineError> {
        for some in digests.chunks(MAX_DIGESTS_PER_CALL) {
            if let Some(digest) = self.reuse(tenant, some).await?.iter().next() {
                return Err(being_removed(digest));
            }
        }
        Ok(())
    }

    /// Clears suspects. `false` if one of them has changed meanwhile, or objects were condemned meanwhile.
    async fn clear(
        &self,
        tenant: &Tenant,
        collection: &Seen,
        suspects: &[(&Digest, Versioned<SuspectRecord>)],
    ) -> Result<bool, EngineError> {
        let batches = suspects.chunks(OBJECTS_PER_BATCH).map(|some| {
            let mut batch = Batch { checks: vec![collection.fence(tenant)], ..Batch::default() };
            for (digest, suspect) in some {
                suspect.value.remove(&mut batch, tenant, digest, Expectation::Version(suspect.version));
            }
            batch
        });
        let verdicts = self.records.store.apply(batches.collect()).await?;
        Ok(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Applied(_))))
    }

    /// The fence under which a job that reads these uploads may be accepted. It must be called before the uploads are checked. While a pass
    /// runs, the uploads and their parts are also cleared of suspicion.
    pub(super) async fn fence(&self, tenant: &Tenant, uploads: Vec<Digest>) -> Result<Fence, EngineError> {
        let collection = self.collection(tenant).await?;
        if collection.record.is_busy() {
            let mut read = uploads;
            for place in 0..read.len() {
                let parts = self.parts(tenant, &read[place]).await?;
                read.extend(parts.into_iter().map(|part| part.digest));
            }
            self.reuse_all(tenant, &read).await?;
        }
        Ok(collection.fence(tenant))
    }

    /// The fence under which an attempt that began at `since` may commit this output; `None` if a part of the output is missing.
    pub(crate) async fn fence_output(
        &self,
        tenant: &Tenant,
        manifest: &ObjectRef,
        since: UnixMs,
    ) -> Result<Option<Fence>, EngineError> {
        // This record must be read before the objects are checked: then a commit that applies proves that nothing was removed after the
        // check.
        let collection = self.collection(tenant).await?;
        if !self.objects.holds(tenant, manifest).await? {
            return Ok(None);
        }
        if collection.record.has_removed_since(since) {
            let parts = self.parts(tenant, &manifest.digest).await?;
            let condemned = collection.record.condemned();
            if let Some(part) = iter::once(manifest).chain(&parts).find(|part| condemned.contains(&part.digest)) {
                self.invalidate(tenant);
                return Err(being_removed(&part.digest));
            }
            if !self.holds_all(tenant, &parts).await? {
                return Ok(None);
            }
        }
        Ok(Some(collection.fence(tenant)))
    }

    /// The failure of an attempt that found an object missing or damaged. Only if it is so for the coordinator as well, the user has to do
    /// something. Otherwise the worker has lost sight of the store, or its memory or network is at fault, and the task is tried again. So it
    /// is if the object is too long to be read meanwhile: the worker's message waits for this.
    pub(crate) async fn blame_for_lost(
        &self,
        tenant: &Tenant,
        failure: &v1::Failure,
    ) -> Result<v1::Failure, EngineError> {
        // An object that is intact but not what was expected is not named by its digest.
        let Ok(lost) = failure.field.parse::<Digest>() else { return Ok(failure.clone()) };
        let found = match timeout(LONGEST_SECOND_LOOK, self.objects.is_sound(tenant, &lost)).await {
            Ok(Ok(false)) => return Ok(failure.clone()),
            Ok(Ok(true)) => "but the coordinator can read the object",
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => "and the coordinator could not read all of the object in time",
        };
        let message = format!("{}, as its worker says, {found}", failure.message);
        Ok(v1::Failure {
            failure_class: FailureClass::Infrastructure.into(),
            code: ErrorCode::StorageUnavailable.into(),
            message,
            field: String::new(),
        })
    }

    async fn holds_all(&self, tenant: &Tenant, objects: &[ObjectRef]) -> Result<bool, EngineError> {
        let found: Vec<_> = objects.iter().map(|object| self.objects.holds(tenant, object)).collect();
        let mut found = stream::iter(found).buffer_unordered(OBJECTS_AT_A_TIME);
        while let Some(is_held) = found.try_next().await? {
            if !is_held {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The objects that a document names; none if the object is no document.
    pub(super) async fn parts(&self, tenant: &Tenant, document: &Digest) -> Result<Vec<ObjectRef>, EngineError> {
        let Some(content) = self.objects.document(tenant, document).await? else { return Ok(Vec::new()) };
        Ok(references(content).await.map(|found| found.objects).unwrap_or_default())
    }

    /// The fence under which a job may be forgotten; `None` while the objects of its tenant are being collected.
    pub(crate) async fn fence_forgetting(&self, tenant: &Tenant, now: UnixMs) -> Result<Option<Fence>, EngineError> {
        let collection = self.collection(tenant).await?;
        let is_collected = matches!(collection.record.stage, Stage::Busy { until, .. } if until > now);
        Ok((!is_collected).then(|| collection.fence(tenant)))
    }
}

impl Seen {
    pub(super) fn fence(&self, tenant: &Tenant) -> Fence {
        (keys::collection(tenant), self.expectation)
    }
}

fn being_removed(digest: &Digest) -> EngineError {
    let message = format!("object {digest} is being removed at this moment, since nothing referred to it: try again");
    EngineError::Busy(message)
}
