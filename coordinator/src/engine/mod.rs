//! The engine: the job queue as its callers see it. A command reads records, asks the pure rules in [`crate::queue`] what follows, and
//! applies one batch. The batch applies only if the records have not changed since they were read (compare-and-set). If they have changed,
//! the command starts again from the read.
//!
//! The engine speaks the types of the contract, and knows neither transport nor credentials. All state that must last is in the store. What
//! the engine keeps in memory (which workers poll, how far an attempt has come) may be lost at any moment.
//!
//! The rooms, from the top floor to the ground. A room uses only rooms on lower floors; `tests/rooms.rs` checks this.
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

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use sortinghat_proto::{Digest, JobId, Refusal, Tenant, v1};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Caller, Served, Sight},
    store::Store,
};
use artifacts::Artifacts;
use changes::Changes;
use collection::Collection;
use context::Context;
use conversation::Conversation;
use dispatch::Dispatch;
use intake::{Doors, Intake};
use jobs::Jobs;
use queues::Queues;
use records::Records;
use upkeep::Upkeep;
use workers::Workers;

pub use collection::{Collected, ObjectInventory, ObjectPresence, StoredObject};
pub use error::EngineError;
pub use intake::Submission;
pub use jobs::{PredictionsStream, WatchStream};
pub use settings::Settings;
pub use upkeep::Swept;

/// A store that has not answered within this time does not answer.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// The queue, the names of artifacts, and the conversation with workers. It is cheap to clone, and a clone is the same engine.
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
    /// Creates an engine over a store. It does nothing by itself until [`run`](Self::run) and [`run_collection`](Self::run_collection) are
    /// called.
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
            doors: Doors::default(),
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
            next_expiry: Default::default(),
        });
        Self { context, records, queues, artifacts, collection, jobs, intake, conversation, upkeep }
    }

    /// Whether the store answers. Readiness probes ask this.
    pub async fn check_store(&self) -> Result<(), EngineError> {
        self.records.store.read(&["probe".to_owned()]).await?;
        Ok(())
    }

    /// Whether new work can be taken: the store answers, and no disk is full. Readiness probes ask this.
    pub async fn check_work(&self) -> Result<(), EngineError> {
        self.intake.doors.pass()?;
        let no_answer = |_| EngineError::StoreUnavailable("the queue's store does not answer".to_owned());
        tokio::time::timeout(STORE_PATIENCE, self.check_store()).await.map_err(no_answer)?
    }

    /// Refuses new work from now on for this reason, or takes it again. Work that was taken goes on in any case.
    pub fn take_work(&self, refusal: Option<Refusal>) {
        self.intake.doors.set(refusal);
    }

    /// Refuses while new work is not taken. To be asked before an upload, whose bytes would be for nothing.
    pub fn admit_work(&self) -> Result<(), EngineError> {
        self.intake.doors.pass()
    }

    /// Ends every held poll and every watch, and answers later polls at once, so that the process can shut down gracefully.
    pub fn drain(&self) {
        self.context.draining.cancel();
    }
}

/// What operators change while it runs.
impl Engine {
    /// Replaces the weights of tenants in fair sharing. A tenant that is not named has the weight 1.
    pub fn set_weights(&self, weights: HashMap<Tenant, u32>) {
        self.queues.set_weights(weights);
    }
}

/// Jobs and queues, for their users.
impl Engine {
    /// Accepts a job. The job is durable when this returns. A second call with the same idempotency key and content returns the same job.
    ///
    /// Refuses names that do not exist, uploads that are missing, and a key that was used for another submission.
    pub async fn submit(&self, tenant: &Tenant, submission: Submission) -> Result<v1::SubmitJobResponse, EngineError> {
        self.intake.submit(tenant, submission).await
    }

    /// Accepts many jobs in one sync of the store. Each job has its own verdict, in the order of the request.
    pub async fn submit_many(
        &self,
        tenant: &Tenant,
        jobs: Vec<v1::SubmitJobRequest>,
    ) -> Result<v1::SubmitJobsResponse, EngineError> {
        self.intake.submit_many(tenant, jobs).await
    }

    /// Resubmits a job that failed or was cancelled, as a new job with the same spec and inputs. The new job starts from the old job's
    /// checkpoint if there is one, and takes over the shards that had succeeded. A parent that did not succeed is replaced by its newest retry.
    ///
    /// Refuses a job that has not ended or that succeeded, and a job with a parent whose newest retry did not succeed either.
    pub async fn retry(
        &self,
        tenant: &Tenant,
        request: v1::RetryJobRequest,
    ) -> Result<v1::RetryJobResponse, EngineError> {
        self.intake.retry(tenant, request).await
    }

    /// Returns one job as it is now. A job of another tenant counts as missing.
    pub async fn get(&self, tenant: &Tenant, job: &JobId) -> Result<v1::Job, EngineError> {
        self.jobs.get(tenant, job).await
    }

    /// Returns a page of jobs, the newest first, without their attempts.
    pub async fn list(
        &self,
        tenant: &Tenant,
        request: v1::ListJobsRequest,
    ) -> Result<v1::ListJobsResponse, EngineError> {
        self.jobs.list(tenant, request).await
    }

    /// Follows a job, beginning with the event after `after_sequence`. The stream ends with an error if the store fails a read. The watcher
    /// then calls again with the last sequence that it has seen.
    pub async fn watch(&self, tenant: &Tenant, job: &JobId, after_sequence: u64) -> Result<WatchStream, EngineError> {
        self.jobs.watch(tenant, job, after_sequence).await
    }

    /// Follows the predictions of a classify: each part as soon as it is committed, and the end of the job. The stream ends with an error
    /// if the store fails a read. Refuses a job of another kind.
    pub async fn watch_predictions(
        &self,
        tenant: &Tenant,
        request: v1::WatchPredictionsRequest,
    ) -> Result<PredictionsStream, EngineError> {
        self.jobs.watch_predictions(tenant, &request).await
    }

    /// Says why a job waits, where it runs or how it ended, as far as the caller may see the workers and the other tenants. A job of another
    /// tenant counts as missing.
    pub async fn explain(
        &self,
        tenant: &Tenant,
        job: &JobId,
        sight: Sight,
    ) -> Result<v1::ExplainJobResponse, EngineError> {
        self.jobs.explain(tenant, job, sight).await
    }

    /// Asks for a job to be cancelled, and returns the job after that. A waiting job ends at once. A running job ends when its worker has
    /// stopped. A job that has ended does not change.
    pub async fn cancel(&self, tenant: &Tenant, job: &JobId) -> Result<v1::Job, EngineError> {
        self.jobs.cancel(tenant, job).await
    }

    /// Asks for every matching job of a tenant to be cancelled. The request is durable when this returns: from then on no matching job
    /// starts.
    pub async fn cancel_many(
        &self,
        tenant: &Tenant,
        request: v1::CancelJobsRequest,
    ) -> Result<v1::CancelJobsResponse, EngineError> {
        self.jobs.cancel_many(tenant, request).await
    }

    /// Removes a job that has ended, with its history and its idempotency key, before its retention is over. What it has made stays if it
    /// has a name. Refuses a job that has not ended; a job of another tenant counts as missing.
    pub async fn delete_job(&self, tenant: &Tenant, job: &JobId) -> Result<v1::DeleteJobResponse, EngineError> {
        self.upkeep.delete_job(tenant, job).await
    }

    /// Removes a job as [`delete_job`](Self::delete_job) does, and asks for everything to be removed soon that it has read as an upload or
    /// has made.
    pub async fn erase_job(&self, tenant: &Tenant, job: &JobId) -> Result<v1::DeleteJobResponse, EngineError> {
        self.upkeep.erase_job(tenant, job).await
    }

    /// Returns the state of a tenant's queue.
    pub async fn queue(&self, tenant: &Tenant) -> Result<v1::Queue, EngineError> {
        self.queues.view(tenant).await
    }

    /// Pauses a tenant's queue: no job of the tenant starts any more, and running jobs go on.
    pub async fn pause_queue(&self, tenant: &Tenant) -> Result<v1::Queue, EngineError> {
        self.queues.pause(tenant).await
    }

    /// Resumes a tenant's queue: jobs of the tenant start again.
    pub async fn resume_queue(&self, tenant: &Tenant) -> Result<v1::Queue, EngineError> {
        self.queues.resume(tenant).await
    }
}

/// Datasets, models and the objects that they are made of.
impl Engine {
    /// Returns a page of datasets by name, the newest version first.
    pub async fn list_datasets(
        &self,
        tenant: &Tenant,
        request: v1::ListDatasetsRequest,
    ) -> Result<v1::ListDatasetsResponse, EngineError> {
        self.artifacts.list_datasets(tenant, request).await
    }

    /// Returns the dataset of this name: `stamps@1` is one version, `stamps` is the newest version.
    pub async fn get_dataset(&self, tenant: &Tenant, name: &str) -> Result<v1::Dataset, EngineError> {
        self.artifacts.get_dataset(tenant, name).await
    }

    /// Removes the name of one version of a dataset. Jobs that have resolved the name keep the dataset.
    pub async fn delete_dataset(&self, tenant: &Tenant, name: &str) -> Result<(), EngineError> {
        self.artifacts.delete_dataset(tenant, name).await
    }

    /// Returns a page of models by name, the newest version first.
    pub async fn list_models(
        &self,
        tenant: &Tenant,
        request: v1::ListModelsRequest,
    ) -> Result<v1::ListModelsResponse, EngineError> {
        self.artifacts.list_models(tenant, request).await
    }

    /// Returns the model of this name: `stamps/1` is one version, `stamps` is the newest version.
    pub async fn get_model(&self, tenant: &Tenant, name: &str) -> Result<v1::Model, EngineError> {
        self.artifacts.get_model(tenant, name).await
    }

    /// Removes the name of one version of a model.
    pub async fn delete_model(&self, tenant: &Tenant, name: &str) -> Result<(), EngineError> {
        self.artifacts.delete_model(tenant, name).await
    }

    /// Protects these objects from collection for half a grace period, although nothing may refer to them yet. It must be called before the
    /// caller checks which of the objects exist. Returns the objects that are being removed at this moment. The caller treats them as
    /// missing.
    pub async fn reuse(&self, tenant: &Tenant, digests: &[Digest]) -> Result<HashSet<Digest>, EngineError> {
        self.collection.reuse(tenant, digests).await
    }

    /// Protects one object that is about to be uploaded. Fails if the object is being removed at this moment.
    pub async fn reuse_one(&self, tenant: &Tenant, digest: &Digest) -> Result<(), EngineError> {
        self.reuse_all(tenant, std::slice::from_ref(digest)).await
    }

    /// Protects objects that are about to be uploaded or read. Fails if one of them is being removed at this moment.
    pub async fn reuse_all(&self, tenant: &Tenant, digests: &[Digest]) -> Result<(), EngineError> {
        self.collection.reuse_all(tenant, digests).await
    }

    /// Asks for objects to be removed soon, unless something refers to them. Returns after which time they are gone as a rule, in
    /// milliseconds.
    pub async fn erase(&self, tenant: &Tenant, digests: &[Digest]) -> Result<u64, EngineError> {
        self.collection.erase(tenant, digests).await
    }

    /// How long an upload may take: half a grace period. After that an object is kept only if something refers to it.
    pub fn longest_upload(&self) -> Duration {
        self.collection.longest_upload()
    }
}

/// Workers.
impl Engine {
    /// Processes a worker's message, which came from this caller, and answers what the worker should be doing. The answer is held while there is nothing new, for at
    /// most `wait_ms` and at most a third of a lease. A newer message of the same worker ends the held call with a refusal.
    pub async fn synchronize(
        &self,
        caller: &Caller,
        request: v1::SynchronizeRequest,
    ) -> Result<v1::SynchronizeResponse, EngineError> {
        self.conversation.synchronize(caller, request).await
    }

    /// Lists the workers that have sent a message within the length of a lease, by host, each with the tenants that it serves.
    pub async fn list_workers(&self) -> Result<Vec<(v1::Worker, Served)>, EngineError> {
        self.conversation.list_workers().await
    }
}

/// Background work.
impl Engine {
    /// Runs the sweeps, and wakes waiting workers when tasks become ready, until `stop` is cancelled.
    pub async fn run(&self, stop: CancellationToken) {
        self.upkeep.run(stop).await;
    }

    /// Runs one round of every sweep at the store's time.
    pub async fn sweep(&self) -> Result<Swept, EngineError> {
        self.upkeep.sweep().await
    }

    /// Collects objects whenever a pass is due, until `stop` is cancelled.
    pub async fn run_collection(&self, inventory: Arc<dyn ObjectInventory>, stop: CancellationToken) {
        self.collection.run_collection(inventory, stop).await;
    }

    /// Runs the passes of the collection that are due, one tenant after the other. A failed pass does not prevent the passes of other
    /// tenants. Returns the last error.
    pub async fn collect(&self, inventory: &dyn ObjectInventory) -> Result<Collected, EngineError> {
        self.collection.collect(inventory).await
    }

    /// Removes checkpoints as they become superfluous, until `stop` is cancelled. Without an inventory they are only forgotten.
    pub async fn run_discards(&self, inventory: Option<Arc<dyn ObjectInventory>>, stop: CancellationToken) {
        self.collection.run_discards(inventory, stop).await;
    }

    /// Removes the checkpoints that are superfluous now. Returns how many were removed.
    pub async fn discard_checkpoints(&self, inventory: &dyn ObjectInventory) -> Result<usize, EngineError> {
        self.collection.discard(Some(inventory)).await
    }

    /// Whether the objects of the object store belong to this queue. Objects that belong to no queue belong to this queue from now on.
    pub async fn own(&self, inventory: &dyn ObjectInventory) -> Result<bool, EngineError> {
        self.collection.own(inventory).await
    }
}
