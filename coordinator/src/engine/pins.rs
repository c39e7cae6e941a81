//! Names in a spec become versions when a job is accepted: what it reads cannot change while it waits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sortinghat_proto::{
    ArtifactKind, DatasetRef, JobId, JobKind, JobSpec, ModelRef, Name, Refusal, Tenant, VersionedName, v1,
};
use tokio::sync::OnceCell;

use super::{
    Shared, keys,
    load::Versioned,
    records::{ArtifactRecord, Input, JobRecord},
};
use crate::store::Expectation;

/// What a spec's names turned out to be.
#[derive(Debug, Default)]
pub(super) struct Pins {
    pub(super) dataset: Option<Input>,
    pub(super) model: Option<Input>,
    /// Records that must still be as they were read when the job is accepted.
    pub(super) checks: Vec<(String, Expectation)>,
}

/// Artifacts that the jobs of one call name, each looked up once. A job is accepted only if those that it names have not changed since.
#[derive(Debug, Default)]
pub(super) struct Lookups(Mutex<HashMap<(ArtifactKind, String), Arc<Lookup>>>);

type Lookup = OnceCell<Versioned<ArtifactRecord>>;

impl Lookups {
    fn of(&self, kind: ArtifactKind, name: String) -> Arc<Lookup> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((kind, name)).or_default().clone()
    }
}

/// A name that was looked up.
enum Found {
    Artifact(Versioned<ArtifactRecord>),
    Job(Box<Versioned<JobRecord>>),
}

/// The two types of references without their types.
enum Reference {
    Newest(Name),
    Version(VersionedName),
    Job(JobId),
}

impl Shared {
    /// Replaces names by versions in `spec`, fills in the model's name, and says where the inputs come from.
    pub(super) async fn pin(&self, tenant: &Tenant, spec: &mut JobSpec, lookups: &Lookups) -> Result<Pins, Refusal> {
        let mut pins = Pins::default();
        let kind = spec.kind();
        if let Some(dataset) = spec.dataset_mut() {
            let reference = match dataset.clone() {
                DatasetRef::Newest(name) => Reference::Newest(name),
                DatasetRef::Version(name) => Reference::Version(name),
                DatasetRef::Job(job) => Reference::Job(job),
            };
            let found = self.find(tenant, lookups, ArtifactKind::Dataset, reference).await;
            let found = found.map_err(|refusal| Refusal { field: format!("{kind}.dataset"), ..refusal })?;
            if let Found::Artifact(artifact) = &found {
                *dataset = DatasetRef::Version(artifact.value.name.clone());
            }
            default_model_name(spec, &found);
            pins.dataset = Some(pins.take(tenant, found));
        }
        if let Some(model) = spec.model_mut() {
            let reference = match model.clone() {
                ModelRef::Newest(name) => Reference::Newest(name),
                ModelRef::Version(name) => Reference::Version(name),
                ModelRef::Job(job) => Reference::Job(job),
            };
            let found = self.find(tenant, lookups, ArtifactKind::Model, reference).await;
            let found = found.map_err(|refusal| Refusal { field: format!("{kind}.model"), ..refusal })?;
            if let Found::Artifact(artifact) = &found {
                *model = ModelRef::Version(artifact.value.name.clone());
            }
            pins.model = Some(pins.take(tenant, found));
        }
        Ok(pins)
    }

    async fn find(
        &self,
        tenant: &Tenant,
        lookups: &Lookups,
        kind: ArtifactKind,
        reference: Reference,
    ) -> Result<Found, Refusal> {
        let artifact = match reference {
            Reference::Newest(name) => {
                let lookup = lookups.of(kind, name.to_string());
                lookup.get_or_try_init(|| self.newest(tenant, kind, &name)).await?.clone()
            }
            Reference::Version(name) => {
                let lookup = lookups.of(kind, name.to_string());
                lookup.get_or_try_init(|| self.artifact(tenant, &name)).await?.clone()
            }
            Reference::Job(id) => {
                let job = self.job(tenant, &id).await?;
                if artifact_kind(job.value.kind) != Some(kind) {
                    let message = format!("job {id} is a {}, which makes no {kind}", job.value.kind);
                    return Err(Refusal::invalid("", message));
                }
                return Ok(Found::Job(Box::new(job)));
            }
        };
        Ok(Found::Artifact(artifact))
    }
}

impl Pins {
    fn take(&mut self, tenant: &Tenant, found: Found) -> Input {
        match found {
            Found::Artifact(Versioned { version, value }) => {
                self.checks.push((keys::artifact(tenant, &value.name), Expectation::Version(version)));
                Input::Artifact { name: value.name.to_string(), manifest: value.manifest }
            }
            Found::Job(job) => Input::Parent(job.value.id),
        }
    }

    /// The jobs that the spec waits for.
    pub(super) fn parents(&self) -> impl Iterator<Item = &JobId> {
        self.dataset.iter().chain(&self.model).filter_map(|input| match input {
            Input::Parent(job) => Some(job),
            Input::Artifact { .. } => None,
        })
    }
}

/// What jobs of this kind make a name for.
fn artifact_kind(kind: JobKind) -> Option<ArtifactKind> {
    match kind {
        JobKind::Ingest => Some(ArtifactKind::Dataset),
        JobKind::Finetune => Some(ArtifactKind::Model),
        JobKind::Evaluate | JobKind::Classify => None,
    }
}

/// A model without a name gets its dataset's.
fn default_model_name(spec: &mut JobSpec, dataset: &Found) {
    if let JobSpec::Finetune(spec) = spec
        && spec.model_name.is_none()
    {
        spec.model_name = match dataset {
            Found::Artifact(artifact) => Some(artifact.value.name.name.clone()),
            Found::Job(job) => output_name(&job.value.spec).map(|(_, name)| name),
        };
    }
}

/// The name, without its version, under which a job with this pinned spec commits what it makes.
pub(super) fn output_name(spec: &v1::JobSpec) -> Option<(ArtifactKind, Name)> {
    use v1::job_spec::Kind;
    match spec.kind.as_ref()? {
        Kind::Ingest(spec) => Some((ArtifactKind::Dataset, spec.dataset_name.parse().ok()?)),
        Kind::Finetune(spec) => Some((ArtifactKind::Model, spec.model_name.parse().ok()?)),
        Kind::Evaluate(_) | Kind::Classify(_) => None,
    }
}
