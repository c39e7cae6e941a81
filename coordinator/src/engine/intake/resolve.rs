//! Resolving the names in a spec to versions when a job is accepted, so that the inputs of the job do not change while it waits.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sortinghat_proto::{ArtifactKind, DatasetRef, JobId, JobSpec, ModelRef, Name, Refusal, Tenant, VersionedName};
use tokio::sync::OnceCell;

use super::Intake;
use crate::{
    engine::{
        error::EngineError,
        records::{ArtifactRecord, Input, JobRecord, Versioned, keys},
    },
    store::Expectation,
};

/// The resolved inputs of a spec.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) dataset: Option<Input>,
    pub(crate) model: Option<Input>,
    /// The checks that the records of the inputs are still as they were read when the job is accepted.
    pub(crate) checks: Vec<(String, Expectation)>,
}

/// The artifacts that the jobs of one call name. Each is looked up only once. A job is accepted only if its artifacts have not changed
/// since the lookup.
#[derive(Debug, Default)]
pub(super) struct Lookups(Mutex<HashMap<(ArtifactKind, String), Arc<Lookup>>>);

type Lookup = OnceCell<Versioned<ArtifactRecord>>;

impl Lookups {
    fn of(&self, kind: ArtifactKind, name: String) -> Arc<Lookup> {
        self.0.lock().entry((kind, name)).or_default().clone()
    }
}

/// What a reference refers to.
enum Found {
    Artifact(Versioned<ArtifactRecord>),
    Job(Box<Versioned<JobRecord>>),
}

/// A reference to a dataset or to a model.
enum Reference {
    Newest(Name),
    Version(VersionedName),
    Job(JobId),
}

impl Intake {
    /// Replaces names by versions in `spec`, fills in the output name, and returns where the inputs come from.
    pub(super) async fn resolve(
        &self,
        tenant: &Tenant,
        spec: &mut JobSpec,
        lookups: &Lookups,
    ) -> Result<Resolved, EngineError> {
        let mut resolved = Resolved::default();
        let kind = spec.kind();
        if let Some(dataset) = spec.dataset_mut() {
            let reference = match dataset.clone() {
                DatasetRef::Newest(name) => Reference::Newest(name),
                DatasetRef::Version(name) => Reference::Version(name),
                DatasetRef::Job(job) => Reference::Job(job),
            };
            let found = self.find(tenant, lookups, ArtifactKind::Dataset, reference).await;
            let found = found.map_err(|error| error.in_field(format!("{kind}.dataset")))?;
            if let Found::Artifact(artifact) = &found {
                *dataset = DatasetRef::Version(artifact.value.name.clone());
            }
            default_output_name(spec, &found);
            resolved.dataset = Some(resolved.take(tenant, found));
        }
        if let Some(model) = spec.model_mut() {
            let reference = match model.clone() {
                ModelRef::Newest(name) => Reference::Newest(name),
                ModelRef::Version(name) => Reference::Version(name),
                ModelRef::Job(job) => Reference::Job(job),
            };
            let found = self.find(tenant, lookups, ArtifactKind::Model, reference).await;
            let found = found.map_err(|error| error.in_field(format!("{kind}.model")))?;
            if let Found::Artifact(artifact) = &found {
                *model = ModelRef::Version(artifact.value.name.clone());
            }
            resolved.model = Some(resolved.take(tenant, found));
        }
        Ok(resolved)
    }

    async fn find(
        &self,
        tenant: &Tenant,
        lookups: &Lookups,
        kind: ArtifactKind,
        reference: Reference,
    ) -> Result<Found, EngineError> {
        let artifact = match reference {
            Reference::Newest(name) => {
                let lookup = lookups.of(kind, name.to_string());
                lookup.get_or_try_init(|| self.artifacts.newest(tenant, kind, &name)).await?.clone()
            }
            Reference::Version(name) => {
                let lookup = lookups.of(kind, name.to_string());
                lookup.get_or_try_init(|| self.artifacts.artifact(tenant, &name)).await?.clone()
            }
            Reference::Job(id) => {
                let job = self.records.job(tenant, &id).await?;
                if job.value.kind.makes() != Some(kind) {
                    let message = format!("job {id} is a {}, which makes no {kind}", job.value.kind);
                    return Err(Refusal::invalid("", message).into());
                }
                return Ok(Found::Job(Box::new(job)));
            }
        };
        Ok(Found::Artifact(artifact))
    }
}

impl Resolved {
    fn take(&mut self, tenant: &Tenant, found: Found) -> Input {
        match found {
            Found::Artifact(Versioned { version, value }) => {
                self.checks.push((keys::artifact(tenant, &value.name), Expectation::Version(version)));
                Input::Artifact { name: value.name.to_string(), manifest: value.manifest }
            }
            Found::Job(job) => Input::Parent(job.value.id),
        }
    }

    /// The jobs whose output the spec reads.
    pub(crate) fn parents(&self) -> impl Iterator<Item = &JobId> {
        self.dataset.iter().chain(&self.model).filter_map(|input| match input {
            Input::Parent(job) => Some(job),
            Input::Artifact { .. } => None,
        })
    }
}

/// Fills in a missing output name: an output without a name gets the name of the dataset.
fn default_output_name(spec: &mut JobSpec, dataset: &Found) {
    if let Some(missing) = spec.missing_output_name() {
        *missing = match dataset {
            Found::Artifact(artifact) => Some(artifact.value.name.name.clone()),
            Found::Job(job) => job.value.request.spec.output_name().map(|(_, name)| name),
        };
    }
}
