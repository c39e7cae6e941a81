//! Deleting a job at its user's wish, before its retention is over. From then on nobody is shown the job. It is forgotten at once if nothing
//! stands in the way, such as a pass of the collection, and else by a sweep.

use sortinghat_proto::{
    JobId, Tenant,
    v1::{self, ErrorCode},
};

use super::Upkeep;
use crate::{
    engine::{
        context::MAX_TRIES,
        error::EngineError,
        records::{self, Failures, JobRecord, Versioned, keys},
    },
    store::Batch,
};

impl Upkeep {
    /// Deletes a job that has ended. A job of another tenant counts as missing.
    ///
    /// Refuses a job that has not ended.
    pub(crate) async fn delete_job(&self, tenant: &Tenant, id: &JobId) -> Result<v1::DeleteJobResponse, EngineError> {
        let answer = v1::DeleteJobResponse { objects_gone_within_ms: self.collection.longest_life_ms() };
        for tried in 0..MAX_TRIES {
            let job = match self.records.job(tenant, id).await {
                // The try before has deleted it, and its outcome was not known.
                Err(EngineError::Refused(refusal)) if tried > 0 && refusal.code == ErrorCode::NotFound => {
                    return Ok(answer);
                }
                job => job?,
            };
            if !job.value.has_ended() {
                let message = format!("job {id} has not ended: cancel it, and delete it when it has stopped");
                return Err(EngineError::refused(ErrorCode::WrongState, message));
            }
            if self.records.apply_one(self.deletion_batch(&job).await?).await? {
                self.forget_now(id).await;
                return Ok(answer);
            }
        }
        Err(EngineError::contended(format!("job {id}")))
    }

    /// Deletes a job, and asks for its objects to be removed soon. If that cannot be asked for, they go as those of any deleted job, and the
    /// answer says so.
    pub(crate) async fn erase_job(&self, tenant: &Tenant, id: &JobId) -> Result<v1::DeleteJobResponse, EngineError> {
        // With the job, the records of its tasks go, which name some of the objects.
        let objects = self.collection.objects_of(&self.records.job(tenant, id).await?.value).await?;
        let deleted = self.delete_job(tenant, id).await?;
        match self.collection.erase(tenant, &objects).await {
            Ok(objects_gone_within_ms) => Ok(v1::DeleteJobResponse { objects_gone_within_ms }),
            Err(error) => {
                tracing::warn!(job = %id, %error, "the objects of a deleted job are removed later");
                Ok(deleted)
            }
        }
    }

    async fn deletion_batch(&self, job: &Versioned<JobRecord>) -> Result<Batch, EngineError> {
        let mut deleted = job.value.clone();
        deleted.progress.deleted = true;
        let key = keys::job(&deleted.id);
        let mut batch = Batch {
            checks: vec![(key.clone(), job.expectation())],
            removals: keys::job_entries(&job.value),
            insertions: keys::job_entries(&deleted),
            // Whoever watches the job shall hear of it.
            topics: vec![key.as_str().into()],
            ..Batch::default()
        };
        batch.writes.push((key, records::encode(&deleted)));
        self.forget_key(&job.value, &mut batch).await?;
        Ok(batch)
    }

    /// Forgets a deleted job if that is possible now. The sweeps try again.
    async fn forget_now(&self, id: &JobId) {
        let forget = async {
            let (now, mut failures) = (self.records.store.now().await?, Failures::default());
            let jobs = self.records.jobs([id.clone()].into_iter()).await?;
            let forgotten = self.forget_these(&jobs, now, &mut failures).await?;
            failures.or(forgotten)
        };
        if let Err(error) = forget.await {
            tracing::warn!(job = %id, %error, "a deleted job cannot be forgotten now; a sweep will forget it");
        }
    }
}
