//! Removing objects soon, at the wish of their tenant. The objects become suspects that have no grace, and the next pass is due at once. As
//! any suspect, such an object stays if something refers to it, and is cleared when somebody relies on it.

use serde::{Deserialize, Serialize};
use sortinghat_proto::{Digest, Tenant, time::UnixMs};

use super::{Collection, CollectionRecord, Seen, suspects::SuspectRecord};
use crate::{
    engine::{
        context::MAX_TRIES,
        error::EngineError,
        records::{self, Versioned, expectation, keys},
    },
    store::Batch,
};

/// How many objects one batch names.
const OBJECTS_PER_BATCH: usize = 250;

/// Some objects are to be removed soon. The record exists until a pass has decided about all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ErasureRecord {
    /// When somebody asked last.
    pub(super) asked: UnixMs,
}

impl Collection {
    /// Asks for objects to be removed soon, unless something refers to them. Returns after which time they are gone as a rule, in
    /// milliseconds.
    pub(crate) async fn erase(&self, tenant: &Tenant, digests: &[Digest]) -> Result<u64, EngineError> {
        for some in digests.chunks(OBJECTS_PER_BATCH) {
            self.erase_some(tenant, some).await?;
        }
        // The next look for passes that are due may have been just before, and a pass takes a while.
        Ok(2 * self.pause_ms())
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
            let named = digests.iter().zip(&suspects).filter(|(digest, _)| !condemned.contains(digest));
            named.for_each(|(digest, known)| ask(&mut batch, tenant, digest, known, now));
            let key = keys::erasure(tenant);
            batch.checks.push((key.clone(), expectation(&wish)));
            batch.writes.push((key, records::encode(&ErasureRecord { asked: now })));
            if self.records.apply_one(batch).await? {
                return Ok(());
            }
            self.invalidate(tenant);
        }
        Err(EngineError::contended("the set of suspected objects"))
    }
}

/// Makes an object a suspect without grace, whether or not it is a suspect already.
fn ask(batch: &mut Batch, tenant: &Tenant, digest: &Digest, known: &Option<Versioned<SuspectRecord>>, now: UnixMs) {
    let key = keys::suspect(tenant, digest);
    if batch.checks.iter().any(|(checked, _)| *checked == key) {
        // The request names it twice.
        return;
    }
    if let Some(known) = known {
        batch.removals.push((keys::suspects(tenant), keys::suspect_entry(known.value.since, digest)));
    }
    batch.checks.push((key.clone(), expectation(known)));
    batch.writes.push((key, records::encode(&SuspectRecord { since: now, asked: true })));
    batch.insertions.push((keys::suspects(tenant), keys::suspect_entry(now, digest)));
}
