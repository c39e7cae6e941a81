//! What a task must make, so that a success can be checked when it is reported.

use sortinghat_proto::{Digest, ObjectRef, v1};

use super::Conversation;
use crate::{
    engine::{
        collection::Expected,
        error::EngineError,
        records::{Input, JobRecord},
    },
    queue::Role,
};

impl Conversation {
    /// What keeps this object from being the output of a task with this role; `None` if nothing does.
    pub(super) async fn fault_of_output(
        &self,
        job: &JobRecord,
        role: Role,
        output: &ObjectRef,
    ) -> Result<Option<String>, EngineError> {
        let expected = match (role, job.kind.part()) {
            (Role::Shard(_), Some(format)) => Expected { format, inputs: Vec::new() },
            (Role::Shard(_), None) | (Role::Whole | Role::Finish, _) => {
                Expected { format: job.kind.document(), inputs: self.named_inputs(job).await? }
            }
        };
        self.collection.fault_of_output(&job.tenant, output, &expected).await
    }

    /// The inputs of a job that its document must name.
    async fn named_inputs(&self, job: &JobRecord) -> Result<Vec<Digest>, EngineError> {
        let model = job.request.model.as_ref().filter(|_| job.kind.names_model());
        let source = job.request.spec.source().cloned();
        let named = [self.manifest_of(job.request.dataset.as_ref()).await?, self.manifest_of(model).await?, source];
        Ok(named.into_iter().flatten().filter_map(|object| object.digest.parse().ok()).collect())
    }

    async fn manifest_of(&self, input: Option<&Input>) -> Result<Option<v1::ObjectRef>, EngineError> {
        Ok(self.resolve(input).await?.manifest)
    }
}
