//! Checking the uploads of a job before it is accepted: they exist, and an upload manifest lists files that a worker can read.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use sortinghat_proto::{
    Digest, JobSpec, ObjectRef, Refusal, Tenant,
    limits::{MAX_FILES_LOOKED_FOR, MAX_MANIFEST_BYTES},
    manifest::{self, Faults, UploadManifest, UploadedFile},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{Collection, Fence, reuse::OBJECTS_AT_A_TIME};
use crate::{engine::error::EngineError, store::Expectation};

/// How long the objects of a manifest are looked for. A slow object store must not make a submission fail that is right.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// How many checked manifests are remembered. If there are more, all are forgotten and checked again.
const MAX_REMEMBERED: usize = 10_000;
/// The unit in which the bytes of manifests in memory are counted.
const KIB: u64 = 1 << 10;
/// A longer manifest is parsed on a thread for blocking work.
const LONG_BYTES: usize = 64 << 10;

/// The manifests that were checked, and how many may be in memory at a time.
#[derive(Debug)]
pub(super) struct Manifests {
    /// Each manifest that was found right, with the version of the tenant's collection record before the check. While the record has this
    /// version, no object was removed since.
    checked: Mutex<HashMap<(Tenant, Digest), Expectation>>,
    /// One permit for each KiB that is read.
    memory: Semaphore,
}

impl Default for Manifests {
    fn default() -> Self {
        let permits = usize::try_from(MAX_MANIFEST_BYTES / KIB).expect("a small number");
        Self { checked: Mutex::default(), memory: Semaphore::new(permits) }
    }
}

impl Manifests {
    /// Waits until a document of this size may be in memory, beside others. The room is free again when the permit is dropped.
    pub(super) async fn room_for(&self, size_bytes: u64) -> SemaphorePermit<'_> {
        let permits = u32::try_from(size_bytes.min(MAX_MANIFEST_BYTES).div_ceil(KIB)).expect("a small number");
        self.memory.acquire_many(permits).await.expect("the semaphore is never closed")
    }

    fn is_checked(&self, manifest: &(Tenant, Digest), fence: &Fence) -> bool {
        self.checked.lock().get(manifest) == Some(&fence.1)
    }

    fn remember(&self, manifest: (Tenant, Digest), fence: &Fence) {
        let mut checked = self.checked.lock();
        if checked.len() >= MAX_REMEMBERED {
            checked.clear();
        }
        checked.insert(manifest, fence.1);
    }
}

impl Collection {
    /// Refuses a spec whose uploads do not exist, or whose upload manifest has faults. Returns the fence under which the uploads still exist
    /// when the job is accepted; `None` if the spec has no uploads.
    pub(crate) async fn fence_uploads(&self, tenant: &Tenant, spec: &JobSpec) -> Result<Option<Fence>, EngineError> {
        let weights = spec.uploaded_weights().into_iter().cloned();
        let uploads: Vec<_> = spec.uploads().iter().map(|(_, upload)| upload.digest.clone()).chain(weights).collect();
        if uploads.is_empty() {
            return Ok(None);
        }
        let fence = self.fence(tenant, uploads).await?;
        for (field, upload) in spec.uploads() {
            if !self.objects.holds(tenant, upload).await? {
                let message = format!("object {} of {} bytes was not uploaded", upload.digest, upload.size_bytes);
                return Err(Refusal::not_found(message).at(field).into());
            }
        }
        if let Some((field, manifest)) = spec.upload_manifest() {
            self.check_manifest(tenant, field, manifest, &fence).await?;
        }
        Ok(Some(fence))
    }

    /// Refuses a manifest that cannot be used. `fence` must have been taken before.
    async fn check_manifest(
        &self,
        tenant: &Tenant,
        field: &'static str,
        object: &ObjectRef,
        fence: &Fence,
    ) -> Result<(), EngineError> {
        let name = (tenant.clone(), object.digest.clone());
        if self.manifests.is_checked(&name, fence) {
            return Ok(());
        }
        let _memory = self.manifests.room_for(object.size_bytes).await;
        let Some(content) = self.objects.document(tenant, &object.digest).await? else {
            let message = format!("object {} is no upload manifest: upload one, and name its digest", object.digest);
            return Err(Refusal::invalid(field, message).into());
        };
        let (manifest, mut faults) = read(content, field).await?;
        self.look_for(tenant, &manifest.files, &mut faults).await?;
        faults.into_result()?;
        self.manifests.remember(name, fence);
        Ok(())
    }

    /// Adds the files whose objects were not uploaded. If there are too many files, or the object store is slow, only some are looked for.
    async fn look_for(&self, tenant: &Tenant, files: &[UploadedFile], faults: &mut Faults) -> Result<(), EngineError> {
        let distance = files.len().div_ceil(MAX_FILES_LOOKED_FOR).max(1);
        let sampled = files.iter().enumerate().step_by(distance);
        // A file that the client could not read has no object.
        let looks: Vec<_> = sampled
            .filter(|(_, file)| file.unread.is_none())
            .map(|(place, file)| async move {
                Ok::<_, Refusal>((place, &file.object, self.objects.holds(tenant, &file.object).await?))
            })
            .collect();
        let mut looks = stream::iter(looks).buffered(OBJECTS_AT_A_TIME);
        let all = async {
            while let Some((place, object, is_held)) = looks.try_next().await? {
                if !is_held {
                    let message = format!("object {} of {} bytes was not uploaded", object.digest, object.size_bytes);
                    faults.add(format!("files[{place}].digest"), message);
                }
            }
            Ok(())
        };
        timeout(LONGEST_LOOK, all).await.unwrap_or(Ok(()))
    }
}

/// The manifest in `content`, and what is wrong with its list.
async fn read(content: Bytes, field: &'static str) -> Result<(UploadManifest, Faults), Refusal> {
    let is_short = content.len() <= LONG_BYTES;
    let parse = move || {
        let manifest: UploadManifest =
            manifest::decode(&content).map_err(|error| Refusal::invalid(field, format!("{field}: {error}")))?;
        let faults = manifest.faults(field);
        Ok((manifest, faults))
    };
    match is_short {
        true => parse(),
        false => tokio::task::spawn_blocking(parse).await.expect("parsing does not panic"),
    }
}
