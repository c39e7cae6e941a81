//! Marking the live objects: it follows every reference from names and jobs through documents.

use std::collections::HashSet;

use bytes::Bytes;
use fastbloom::BloomFilter;
use futures::future::try_join_all;
use prost::Message as _;
use sortinghat_proto::{
    ArtifactKind, Digest, TaskId, limits,
    manifest::{self, References},
    time::UnixMs,
    v1::JobState,
};

use super::pass::{Pass, RECORDS_PER_PAGE};
use crate::{
    engine::{
        error::EngineError,
        records::{ArtifactRecord, Input, JobRecord, TaskRecord, keys},
    },
    queue::{Output, State, Task},
};

/// How many documents are in memory at a time. Each has at most [`limits::MAX_MANIFEST_BYTES`].
const DOCUMENTS_AT_A_TIME: usize = 4;
/// How many documents are remembered, so that they are not read again.
const MAX_REMEMBERED_DOCUMENTS: usize = 1 << 18;

/// The size of the filter of live objects in bits. These are 16 MiB, of which the system allocates only the pages that are used.
const FILTER_BITS: usize = 1 << 27;
/// How many bits one digest sets. With ten million live digests, 4 of 1000 other digests are taken for live, and such an object is kept for
/// now. Each filter has a new seed, so the filter of the next pass most probably tells them apart.
const BITS_PER_DIGEST: u32 = 4;

/// The result of marking.
pub(super) struct Marked {
    /// The live objects, and perhaps a few others.
    pub(crate) live: BloomFilter,
    /// Objects that were written after this time, by the clock of the object store, are left alone, since they may belong to an attempt
    /// that has not ended.
    pub(crate) written_before: UnixMs,
    /// The same for objects whose tenant wants them to be removed, which may be young.
    pub(crate) leased_before: UnixMs,
}

/// The marking so far.
struct Marking {
    live: BloomFilter,
    /// The documents whose content was followed.
    read: HashSet<Digest>,
    oldest_lease: Option<UnixMs>,
}

impl Pass<'_> {
    /// Marks everything that is referred to. Names are read before jobs: a job takes its inputs from a name, and no job is forgotten during
    /// a pass, so no reference can escape.
    pub(super) async fn mark(&mut self) -> Result<Marked, EngineError> {
        let mut marking = Marking {
            live: BloomFilter::with_num_bits(FILTER_BITS).hashes(BITS_PER_DIGEST),
            read: HashSet::new(),
            oldest_lease: None,
        };
        for kind in [ArtifactKind::Dataset, ArtifactKind::Model] {
            let mut from = Some(String::new());
            while let Some(entries) = self.page(&keys::artifacts(self.tenant, kind), &mut from).await? {
                let names = entries.iter().filter_map(|entry| keys::artifact_of_entry(kind, entry));
                let names: Vec<String> = names.map(|name| keys::artifact(self.tenant, &name)).collect();
                let artifacts = self.collection.records.read_all::<ArtifactRecord>(&names).await?;
                let manifests = artifacts.into_iter().flatten().map(|artifact| artifact.value.manifest.digest);
                self.follow(&mut marking, manifests.collect()).await?;
            }
        }
        let mut from = Some(String::new());
        while let Some(entries) = self.page(&keys::jobs(self.tenant), &mut from).await? {
            self.mark_jobs(&mut marking, &entries).await?;
        }
        // The marks are complete only if no job was forgotten until now, which the renewal proves.
        self.renew().await?;
        let young = self.started.0.saturating_sub(self.collection.half_grace_ms());
        let lease = marking.oldest_lease.map_or(u64::MAX, |lease| lease.0.saturating_sub(self.longest_skew_ms()));
        let (written_before, leased_before) = (UnixMs(young.min(lease)), UnixMs(lease));
        Ok(Marked { live: marking.live, written_before, leased_before })
    }

    async fn mark_jobs(&mut self, marking: &mut Marking, ids: &[String]) -> Result<(), EngineError> {
        let jobs = self.collection.records.jobs(ids.iter().filter_map(|id| id.parse().ok())).await?;
        self.follow(marking, jobs.iter().flat_map(|job| job.value.referred()).collect()).await?;
        // The result of a job that has succeeded is its output, and such a job cannot be retried. So nobody needs the objects of its tasks
        // any more.
        let others = || jobs.iter().map(|job| &*job.value).filter(|job| job.state() != JobState::Succeeded);
        let made = others().filter_map(|job| marking.enter_task(&job.progress.task.task)).collect();
        self.follow(marking, made).await?;
        // A job is read before its shards, so that an attempt which ends meanwhile is seen in its task at least.
        let shards: Vec<String> = others().flat_map(JobRecord::shard_keys).collect();
        for some in shards.chunks(RECORDS_PER_PAGE) {
            let shards = self.collection.records.read_all::<TaskRecord>(some).await?;
            let made = shards.iter().flatten().filter_map(|shard| marking.enter_task(&shard.value.task)).collect();
            self.follow(marking, made).await?;
        }
        Ok(())
    }

    /// Marks objects, and the objects that they name if they are documents.
    async fn follow(&mut self, marking: &mut Marking, mut next: Vec<Digest>) -> Result<(), EngineError> {
        while !next.is_empty() {
            self.renew().await?;
            let mut some = next.split_off(next.len().saturating_sub(DOCUMENTS_AT_A_TIME));
            some.retain(|digest| marking.enter(digest));
            let contents = some.iter().map(|digest| self.inventory.document(self.tenant, digest));
            for content in try_join_all(contents).await?.into_iter().flatten() {
                let Some(found) = references(content).await else { continue };
                let may_be_documents = found.may_be_documents();
                marking.live.insert_all(&found.mentions);
                for part in found.objects {
                    marking.live.insert(&part.digest);
                    if may_be_documents && part.size_bytes <= limits::MAX_MANIFEST_BYTES {
                        next.push(part.digest);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The objects that a document names. This runs on a thread for blocking work, since a long document takes a while.
pub(super) async fn references(content: Bytes) -> Option<References> {
    let found = tokio::task::spawn_blocking(move || manifest::references(&content)).await;
    found.expect("looking for digests does not panic")
}

impl Marking {
    /// Marks an object; `true` if its content was not followed yet.
    fn enter(&mut self, digest: &Digest) -> bool {
        self.live.insert(digest);
        if self.read.len() >= MAX_REMEMBERED_DOCUMENTS {
            self.read.clear();
        }
        self.read.insert(digest.clone())
    }

    /// Marks the checkpoint of a task, and returns the output of the task.
    fn enter_task(&mut self, task: &Task) -> Option<Digest> {
        self.live.insert_all(task.checkpoint.iter().map(|checkpoint| &checkpoint.digest));
        if let State::Leased(lease) = &task.state {
            let oldest = self.oldest_lease.get_or_insert(lease.started);
            *oldest = lease.started.min(*oldest);
        }
        output_of(task).cloned()
    }
}

/// The document that a task has made.
pub(super) fn output_of(task: &Task) -> Option<&Digest> {
    match &task.state {
        State::Succeeded { output: Output::Made { manifest, .. }, .. } => Some(&manifest.digest),
        State::Succeeded { output: Output::Counted { .. }, .. } => None,
        State::Blocked | State::Ready { .. } | State::Leased(_) | State::Failed { .. } | State::Cancelled { .. } => {
            None
        }
    }
}

impl JobRecord {
    /// The objects to which the job's own record refers.
    fn referred(&self) -> Vec<Digest> {
        let output = self.progress.output.as_ref().map(prost::Message::encode_to_vec).unwrap_or_default();
        let named = [self.request.spec.encode_to_vec(), output];
        let inputs = self.request.dataset.iter().chain(&self.request.model).filter_map(|input| match input {
            Input::Artifact { manifest, .. } => Some(manifest.digest.clone()),
            Input::Parent(_) => None,
        });
        named.iter().flat_map(|message| manifest::digests_in(message)).chain(inputs).collect()
    }

    /// The keys of the records of the job's shards.
    pub(super) fn shard_keys(&self) -> Vec<String> {
        self.shard_indexes().map(|index| keys::shard(&TaskId::new(self.id.clone(), index))).collect()
    }
}
