//! The queue as callers see it: each command reads records, asks the pure rules, and applies one batch with checks; a conflict
//! starts again from the read.
//!
//! It speaks the contract's types and knows neither transport nor credentials. All state that must last is in the store; what is
//! kept here (who polls, how far an attempt has come) may be lost at any moment.
//!
//! The rooms, from the top floor to the ground. A room uses rooms of lower floors only; `tests/rooms.rs` checks it.
//!
//! | floor | rooms |
//! |---|---|
//! | 8 | `mod`, this file: the public face |
//! | 7 | `conversation` with workers, `upkeep` as time goes on, `intake` of jobs |
//! | 6 | `dispatch` of tasks to workers, `jobs` as users see them |
//! | 5 | `queues` of the tenants |
//! | 4 | `changes` of tasks, `workers` that poll, `collection` of objects, `artifacts` and their names |
//! | 3 | `records` and their names in the store |
//! | 2 | `context` |
//! | 1 | `settings`, `error` |

mod artifacts;
mod changes;
mod collection;
mod context;
mod conversation;
mod dispatch;
mod error;
mod intake;
mod jobs;
mod queues;
mod records;
mod settings;
mod upkeep;
mod workers;

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use sortinghat_proto::{Digest, JobId, Tenant, v1};
use tokio_util::sync::CancellationToken;

use crate::store::Store;
use artifacts::Artifacts;
use changes::Changes;
use collection::Collection;
use context::Context;
use conversation::Conversation;
use dispatch::Dispatch;
use intake::Intake;
use jobs::Jobs;
use queues::Queues;
use records::Records;
use upkeep::Upkeep;
use workers::Workers;

pub use collection::{Collected, ObjectInventory, ObjectPresence, StoredObject};
pub use error::EngineError;
pub use intake::Submission;
pub use jobs::WatchStream;
pub use settings::Settings;
pub use upkeep::Swept;

/// The queue, the names of artifacts, and the conversation with workers. Cheap to clone; clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    context: Arc<Context>,
    records: Records,
    queues: Arc<Queues>,
    artifacts: Arc<Artifacts>,
    collection: Arc<Collection>,
    jobs: Arc<Jobs>,
    intake: Arc<Intake>,
    conversation: Arc<Conversation>,
    upkeep: Arc<Upkeep>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("settings", &self.context.settings).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine over a store. Nothing runs until it is called; see [`run`](Self::run).
    pub fn new(store: Arc<dyn Store>, objects: Arc<dyn ObjectPresence>, settings: Settings) -> Self {
        let context = Arc::new(Context::new(settings));
        let records = Records { store };
        let workers = Arc::new(Workers::default());
        let artifacts = Arc::new(Artifacts { records: records.clone() });
        let changes = Arc::new(Changes::new(context.clone(), records.clone()));
        let collection = Arc::new(Collection::new(context.clone(), records.clone(), objects));
        let queues = Arc::new(Queues::new(context.clone(), records.clone()));
        let dispatch =
            Arc::new(Dispatch::new(context.clone(), records.clone(), changes.clone(), queues.clone(), workers.clone()));
        let jobs = Arc::new(Jobs {
            context: context.clone(),
            records: records.clone(),
            changes: changes.clone(),
            queues: queues.clone(),
            workers: workers.clone(),
        });
        let intake = Arc::new(Intake {
            context: context.clone(),
            records: records.clone(),
            queues: queues.clone(),
            collection: collection.clone(),
            artifacts: artifacts.clone(),
            jobs: jobs.clone(),
        });
        let conversation = Arc::new(Conversation::new(
            context.clone(),
            records.clone(),
            changes.clone(),
            queues.clone(),
            workers.clone(),
            collection.clone(),
            dispatch.clone(),
        ));
        let upkeep = Arc::new(Upkeep {
            context: context.clone(),
            records: records.clone(),
            changes,
            queues: queues.clone(),
            workers,
            collection: collection.clone(),
            dispatch,
            jobs: jobs.clone(),
            expiry: Default::default(),
            next_look: Default::default(),
        });
        Self { context, records, queues, artifacts, collection, jobs, intake, conversation, upkeep }
    }

    /// Whether the store answers; for readiness probes.
    pub async fn check_store(&self) -> Result<(), EngineError> {
        self.records.store.read(&["probe".to_owned()]).await?;
        Ok(())
    }

    /// Ends every held poll and every watch; polls that come later are answered at once. For a graceful end.
    pub fn drain(&self) {
        self.context.draining.cancel();
    }
}

/// Jobs and queues, for their users.
impl Engine {
    /// Accepts a job; it is durable when this returns. With the same idempotency key and content, the same job.
    ///
    /// Refuses names that do not exist, uploads that are missing, and a key that was used for another submission.
    pub async fn submit(&self, tenant: &Tenant, submission: Submission) -> Result<v1::SubmitJobResponse, EngineError> {
        self.intake.submit(tenant, submission).await
    }

    /// Accepts many jobs, each with its own verdict, in order. They share a sync of the store.
    pub async fn submit_many(
        &self,
        tenant: &Tenant,
        jobs: Vec<v1::SubmitJobRequest>,
    ) -> Result<v1::SubmitJobsResponse, EngineError> {
        self.intake.submit_many(tenant, jobs).await
    }

    /// Accepts a job like one that failed or was cancelled: the same spec and inputs, and its checkpoint where it has one. A parent that
    /// did not succeed is replaced by its newest retry.
    ///
    /// Refuses jobs that have not ended or have succeeded, and those with a parent whose newest retry did not succeed either.
    pub async fn retry(
        &self,
        tenant: &Tenant,
        request: v1::RetryJobRequest,
    ) -> Result<v1::RetryJobResponse, EngineError> {
        self.intake.retry(tenant, request).await
    }

    /// One job as it is now. Another tenant's does not exist.
    pub async fn get(&self, tenant: &Tenant, job: &JobId) -> Result<v1::Job, EngineError> {
        self.jobs.get(tenant, job).await
    }

    /// A page of jobs, newest first, without their attempts.
    pub async fn list(
        &self,
        tenant: &Tenant,
        request: v1::ListJobsRequest,
    ) -> Result<v1::ListJobsResponse, EngineError> {
        self.jobs.list(tenant, request).await
    }

    /// Follows a job from the event after `after_sequence` on. The stream survives outages of the store no longer than one
    /// read: it then ends with an error, and the watcher comes back with the last sequence that it has seen.
    pub async fn watch(&self, tenant: &Tenant, job: &JobId, after_sequence: u64) -> Result<WatchStream, EngineError> {
        self.jobs.watch(tenant, job, after_sequence).await
    }

    /// Says why a job waits, where it runs or how it ended. Another tenant's does not exist.
    pub async fn explain(&self, tenant: &Tenant, job: &JobId) -> Result<v1::ExplainJobResponse, EngineError> {
        self.jobs.explain(tenant, job).await
    }

    /// Asks for a job to be cancelled, and returns it after that. One that waits ends at once, one that runs when its worker
    /// has stopped; for one that has ended nothing changes.
    pub async fn cancel(&self, tenant: &Tenant, job: &JobId) -> Result<v1::Job, EngineError> {
        self.jobs.cancel(tenant, job).await
    }

    /// Asks for every job of a tenant that matches to be cancelled. Durable when it returns: no matching job starts any more.
    pub async fn cancel_many(
        &self,
        tenant: &Tenant,
        request: v1::CancelJobsRequest,
    ) -> Result<v1::CancelJobsResponse, EngineError> {
        self.jobs.cancel_many(tenant, request).await
    }

    /// How a tenant's queue stands.
    pub async fn queue(&self, tenant: &Tenant) -> Result<v1::Queue, EngineError> {
        self.queues.view(tenant).await
    }

    /// Lets no job of a tenant start any more; those that run go on.
    pub async fn pause_queue(&self, tenant: &Tenant) -> Result<v1::Queue, EngineError> {
        self.queues.pause(tenant).await
    }

    /// Lets the jobs of a tenant start again.
    pub async fn resume_queue(&self, tenant: &Tenant) -> Result<v1::Queue, EngineError> {
        self.queues.resume(tenant).await
    }
}

/// Datasets, models and the objects that they are made of.
impl Engine {
    /// A page of datasets by name, the newest version first.
    pub async fn list_datasets(
        &self,
        tenant: &Tenant,
        request: v1::ListDatasetsRequest,
    ) -> Result<v1::ListDatasetsResponse, EngineError> {
        self.artifacts.list_datasets(tenant, request).await
    }

    /// The dataset of this name: `stamps@1`, or `stamps` for the newest.
    pub async fn get_dataset(&self, tenant: &Tenant, name: &str) -> Result<v1::Dataset, EngineError> {
        self.artifacts.get_dataset(tenant, name).await
    }

    /// Removes a dataset's name; what was made from it keeps it.
    pub async fn delete_dataset(&self, tenant: &Tenant, name: &str) -> Result<(), EngineError> {
        self.artifacts.delete_dataset(tenant, name).await
    }

    /// A page of models by name, the newest version first.
    pub async fn list_models(
        &self,
        tenant: &Tenant,
        request: v1::ListModelsRequest,
    ) -> Result<v1::ListModelsResponse, EngineError> {
        self.artifacts.list_models(tenant, request).await
    }

    /// The model of this name: `stamps/1`, or `stamps` for the newest.
    pub async fn get_model(&self, tenant: &Tenant, name: &str) -> Result<v1::Model, EngineError> {
        self.artifacts.get_model(tenant, name).await
    }

    /// Removes a model's name.
    pub async fn delete_model(&self, tenant: &Tenant, name: &str) -> Result<(), EngineError> {
        self.artifacts.delete_model(tenant, name).await
    }

    /// Keeps these objects for half a grace although nothing may refer to them; to be called before it is looked whether they are
    /// there. Returns those that are being removed at this moment, which are as good as gone.
    pub async fn reuse(&self, tenant: &Tenant, digests: &[Digest]) -> Result<HashSet<Digest>, EngineError> {
        self.collection.reuse(tenant, digests).await
    }

    /// The same for one object that is about to be uploaded: fails if it is being removed, for the moment.
    pub async fn reuse_one(&self, tenant: &Tenant, digest: &Digest) -> Result<(), EngineError> {
        self.collection.reuse_one(tenant, digest).await
    }

    /// How long an upload may take: half a grace. It is kept for no longer unless something refers to it.
    pub fn longest_upload(&self) -> Duration {
        self.collection.longest_upload()
    }
}

/// Workers.
impl Engine {
    /// Takes in a worker's message and answers what it should be doing. Held while there is nothing new, for at most `wait_ms`
    /// and a third of a lease; a newer message of the same worker ends it with a refusal.
    pub async fn synchronize(&self, request: v1::SynchronizeRequest) -> Result<v1::SynchronizeResponse, EngineError> {
        self.conversation.synchronize(request).await
    }

    /// The workers that were heard of within the last lease, by host.
    pub async fn list_workers(&self) -> Result<v1::ListWorkersResponse, EngineError> {
        self.conversation.list_workers().await
    }
}

/// What happens by itself.
impl Engine {
    /// Runs every sweep, again and again, and wakes workers for which there are tasks, until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        self.upkeep.run(stop).await;
    }

    /// Runs one round of every sweep at the store's time.
    pub async fn sweep(&self) -> Result<Swept, EngineError> {
        self.upkeep.sweep().await
    }

    /// Collects objects whenever it is due, until told to stop.
    pub async fn run_collection(&self, inventory: Arc<dyn ObjectInventory>, stop: CancellationToken) {
        self.collection.run_collection(inventory, stop).await;
    }

    /// Runs the passes of the collection that are due, one tenant after the other. A pass that fails keeps no other tenant's from being
    /// run; the last error is returned.
    pub async fn collect(&self, inventory: &dyn ObjectInventory) -> Result<Collected, EngineError> {
        self.collection.collect(inventory).await
    }

    /// Whether the objects belong to this queue. They do from now on if they belonged to none.
    pub async fn own(&self, inventory: &dyn ObjectInventory) -> Result<bool, EngineError> {
        self.collection.own(inventory).await
    }
}
