//! The names of datasets and models: listing them, finding them, and removing them. The logic is the same for both kinds and written once.

use sortinghat_proto::{ArtifactKind, DatasetRef, ModelRef, Name, Refusal, Tenant, VersionedName, v1, words};

use crate::{
    engine::{
        context::MAX_TRIES,
        error::EngineError,
        records::{ArtifactRecord, Records, Versioned, bad_token, keys, page_size},
    },
    store::{Batch, Expectation, Range},
};

/// The named artifacts of all tenants. This room owns no table.
pub(crate) struct Artifacts {
    pub(super) records: Records,
}

impl Artifacts {
    /// Returns a page of datasets by name, the newest version first.
    pub(crate) async fn list_datasets(
        &self,
        tenant: &Tenant,
        request: v1::ListDatasetsRequest,
    ) -> Result<v1::ListDatasetsResponse, EngineError> {
        let page = self.page(tenant, ArtifactKind::Dataset, request.page_size, request.page_token).await?;
        let datasets = page.artifacts.into_iter().map(dataset).collect();
        Ok(v1::ListDatasetsResponse { datasets, next_page_token: page.next_page_token })
    }

    /// Returns the dataset of this name: `stamps@1` is one version, `stamps` is the newest version.
    pub(crate) async fn get_dataset(&self, tenant: &Tenant, name: &str) -> Result<v1::Dataset, EngineError> {
        let artifact = match DatasetRef::parse(name, "name")? {
            DatasetRef::Newest(name) => self.newest(tenant, ArtifactKind::Dataset, &name).await?,
            DatasetRef::Version(name) => self.artifact(tenant, &name).await?,
            DatasetRef::Job(_) => return Err(not_a_name(ArtifactKind::Dataset).into()),
        };
        Ok(dataset(*artifact.value))
    }

    /// Removes the name of one version of a dataset. Jobs that have resolved the name keep the dataset.
    pub(crate) async fn delete_dataset(&self, tenant: &Tenant, name: &str) -> Result<(), EngineError> {
        match DatasetRef::parse(name, "name")? {
            DatasetRef::Version(name) => self.delete(tenant, &name).await,
            DatasetRef::Newest(_) | DatasetRef::Job(_) => Err(not_a_version(ArtifactKind::Dataset, name).into()),
        }
    }

    /// Returns a page of models by name, the newest version first.
    pub(crate) async fn list_models(
        &self,
        tenant: &Tenant,
        request: v1::ListModelsRequest,
    ) -> Result<v1::ListModelsResponse, EngineError> {
        let page = self.page(tenant, ArtifactKind::Model, request.page_size, request.page_token).await?;
        let models = page.artifacts.into_iter().map(model).collect();
        Ok(v1::ListModelsResponse { models, next_page_token: page.next_page_token })
    }

    /// Returns the model of this name: `stamps/1` is one version, `stamps` is the newest version.
    pub(crate) async fn get_model(&self, tenant: &Tenant, name: &str) -> Result<v1::Model, EngineError> {
        let artifact = match ModelRef::parse(name, "name")? {
            ModelRef::Newest(name) => self.newest(tenant, ArtifactKind::Model, &name).await?,
            ModelRef::Version(name) => self.artifact(tenant, &name).await?,
            ModelRef::Job(_) => return Err(not_a_name(ArtifactKind::Model).into()),
        };
        Ok(model(*artifact.value))
    }

    /// Removes the name of one version of a model.
    pub(crate) async fn delete_model(&self, tenant: &Tenant, name: &str) -> Result<(), EngineError> {
        match ModelRef::parse(name, "name")? {
            ModelRef::Version(name) => self.delete(tenant, &name).await,
            ModelRef::Newest(_) | ModelRef::Job(_) => Err(not_a_version(ArtifactKind::Model, name).into()),
        }
    }
}

struct Page {
    artifacts: Vec<ArtifactRecord>,
    next_page_token: String,
}

impl Artifacts {
    async fn page(&self, tenant: &Tenant, kind: ArtifactKind, asked: u32, token: String) -> Result<Page, EngineError> {
        let size = page_size(asked, 100);
        if !token.is_empty() && keys::artifact_of_entry(kind, &token).is_none() {
            return Err(bad_token().into());
        }
        // One entry more than asked for tells whether there is a next page, and where that page starts.
        let mut entries =
            self.records.store.range(Range::first(keys::artifacts(tenant, kind), size + 1).from(token)).await?;
        let next_page_token = if entries.len() > size { entries.pop().unwrap_or_default() } else { String::new() };
        let names = entries.iter().filter_map(|entry| keys::artifact_of_entry(kind, entry));
        let keys: Vec<String> = names.map(|name| keys::artifact(tenant, &name)).collect();
        let artifacts = self.records.read_all::<ArtifactRecord>(&keys).await?;
        Ok(Page {
            artifacts: artifacts.into_iter().flatten().map(|artifact| *artifact.value).collect(),
            next_page_token,
        })
    }

    /// The newest version of a name.
    pub(crate) async fn newest(
        &self,
        tenant: &Tenant,
        kind: ArtifactKind,
        name: &Name,
    ) -> Result<Versioned<ArtifactRecord>, EngineError> {
        let newest = self.versions(tenant, kind, name, 1).await?;
        let Some(newest) = newest.first() else {
            return Err(not_found(kind, name).into());
        };
        self.artifact(tenant, newest).await
    }

    /// The artifact of exactly this version.
    pub(crate) async fn artifact(
        &self,
        tenant: &Tenant,
        name: &VersionedName,
    ) -> Result<Versioned<ArtifactRecord>, EngineError> {
        if let Some(artifact) = self.records.read(keys::artifact(tenant, name)).await? {
            return Ok(artifact);
        }
        let kind = name.kind;
        let versions = self.versions(tenant, kind, &name.name, 5).await?;
        let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
        let refusal = match versions.as_slice() {
            [] => not_found(kind, &name.name),
            known => Refusal::not_found(format!("there is no {kind} {name}, but {}", known.join(", "))).at("name"),
        };
        Err(refusal.into())
    }

    async fn versions(
        &self,
        tenant: &Tenant,
        kind: ArtifactKind,
        name: &Name,
        limit: usize,
    ) -> Result<Vec<VersionedName>, EngineError> {
        let (from, until) = keys::artifact_bounds(name);
        let entries = Range::first(keys::artifacts(tenant, kind), limit).from(from).until(until);
        let entries = self.records.store.range(entries).await?;
        Ok(entries.iter().filter_map(|entry| keys::artifact_of_entry(kind, entry)).collect())
    }

    async fn delete(&self, tenant: &Tenant, name: &VersionedName) -> Result<(), EngineError> {
        for _ in 0..MAX_TRIES {
            let artifact = self.artifact(tenant, name).await?;
            let key = keys::artifact(tenant, name);
            let batch = Batch {
                checks: vec![(key.clone(), Expectation::Version(artifact.version))],
                deletes: vec![key],
                removals: vec![(keys::artifacts(tenant, name.kind), keys::artifact_entry(name))],
                ..Batch::default()
            };
            if self.records.apply_one(batch).await? {
                return Ok(());
            }
        }
        Err(EngineError::contended(name))
    }
}

fn dataset(artifact: ArtifactRecord) -> v1::Dataset {
    v1::Dataset {
        name: artifact.name.to_string(),
        manifest: Some(artifact.manifest.into()),
        job_id: artifact.job.to_string(),
        created_unix_ms: artifact.created.to_wire(),
        summary: artifact.summary,
    }
}

fn model(artifact: ArtifactRecord) -> v1::Model {
    v1::Model {
        name: artifact.name.to_string(),
        manifest: Some(artifact.manifest.into()),
        job_id: artifact.job.to_string(),
        created_unix_ms: artifact.created.to_wire(),
        summary: artifact.summary,
    }
}

fn not_found(kind: ArtifactKind, name: &Name) -> Refusal {
    Refusal::not_found(format!("there is no {kind} {name}: list the {kind}s to see which there are")).at("name")
}

fn not_a_name(kind: ArtifactKind) -> Refusal {
    Refusal::invalid(
        "name",
        format!("a job is not the name of a {kind}: its output has the name, once it has succeeded"),
    )
}

fn not_a_version(kind: ArtifactKind, name: &str) -> Refusal {
    let example = format!("{name}{}1", kind.separator());
    Refusal::invalid(
        "name",
        format!("{} names no version; say which {kind} to remove, such as {example}", words::quoted(name)),
    )
}
