//! The table of job kinds: everything that differs from kind to kind, except for the work itself.
//!
//! [`JobKind`], [`JobSpec`], the conversions from and to the wire, and every list of kinds derive from the table. What a kind's
//! spec may say is in a file of its own in [`crate::spec`], and what a kind does is in the worker.

mod define;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    ArtifactKind, AuditSpec, ClassifySpec, DatasetRef, Digest, EvaluateSpec, FinetuneSpec, GatherSpec, IngestSpec,
    ModelRef, Name, ObjectRef, Refusal,
    manifest::{
        AuditManifest, DatasetManifest, Document as _, EVALUATION_PART_FORMAT, EvaluationManifest, INGEST_PART_FORMAT,
        ModelManifest, PredictionsManifest,
    },
    v1, words,
};

/// The facts about one kind of jobs: its row of the table.
struct Row {
    /// The name of the kind in commands, filters, logs, metrics and stored records.
    name: &'static str,
    /// One sentence that says what a job of this kind does, as the help of its command.
    help: &'static str,
    /// The artifact that a job of this kind makes a new version of; `None` if its output has no name.
    makes: Option<ArtifactKind>,
    /// Whether a running task can save a checkpoint and stop, so that a more urgent task gets its place and little work is lost.
    gives_way: bool,
    /// How long an attempt may show no progress before its lease is no longer renewed, in milliseconds.
    stall_bound_ms: u64,
    /// The format of the document that a job of this kind makes.
    document: &'static str,
    /// The format of what a shard makes, on its way to the task that joins the shards; `None` if a shard makes a document like the job.
    part: Option<&'static str>,
    /// Whether the document names the manifest of the model that the job reads. Every document names the source and the dataset.
    names_model: bool,
}

define::job_kinds! {
    /// Photos become a dataset.
    Ingest = "ingest", IngestSpec {
        help: "Make a dataset from a folder of photos",
        makes: Some(ArtifactKind::Dataset),
        gives_way: false,
        stall_bound_ms: 120_000,
        document: DatasetManifest::FORMAT,
        part: Some(INGEST_PART_FORMAT),
        names_model: false,
    }

    /// A dataset and a backbone become a model.
    Finetune = "finetune", FinetuneSpec {
        help: "Train a model on a dataset",
        makes: Some(ArtifactKind::Model),
        gives_way: true,
        // One step of a large network on a slow CPU takes long.
        stall_bound_ms: 300_000,
        document: ModelManifest::FORMAT,
        part: None,
        names_model: false,
    }

    /// A model and labelled photos become an evaluation.
    Evaluate = "evaluate", EvaluateSpec {
        help: "Measure a model on photos that it has not seen",
        makes: None,
        gives_way: false,
        // As for a fine-tune.
        stall_bound_ms: 300_000,
        document: EvaluationManifest::FORMAT,
        part: Some(EVALUATION_PART_FORMAT),
        names_model: false,
    }

    /// A model and photos become predictions.
    Classify = "classify", ClassifySpec {
        help: "Name the classes of photos",
        makes: None,
        gives_way: false,
        stall_bound_ms: 120_000,
        document: PredictionsManifest::FORMAT,
        part: None,
        names_model: true,
    }

    /// A dataset becomes a list of labels that are probably wrong.
    Audit = "audit", AuditSpec {
        help: "Look for labels of a dataset that are probably wrong",
        makes: None,
        gives_way: false,
        // As for a fine-tune.
        stall_bound_ms: 300_000,
        document: AuditManifest::FORMAT,
        part: None,
        names_model: false,
    }

    /// Searches of the web, or a list of URLs, become a dataset.
    Gather = "gather", GatherSpec {
        help: "Make a dataset of photos from the web",
        makes: Some(ArtifactKind::Dataset),
        gives_way: true,
        // A server that asks for a pause gets one.
        stall_bound_ms: 300_000,
        document: DatasetManifest::FORMAT,
        part: None,
        names_model: false,
    }
}

/// What is asked of every validated spec. No method has a default, so that the compiler puts each question to a new kind.
pub(crate) trait Spec {
    /// See [`JobSpec::dataset_mut`].
    fn dataset_mut(&mut self) -> Option<&mut DatasetRef>;

    /// See [`JobSpec::model_mut`].
    fn model_mut(&mut self) -> Option<&mut ModelRef>;

    /// See [`JobSpec::uploaded_weights`].
    fn uploaded_weights(&self) -> Option<&Digest>;

    /// See [`JobSpec::uploads`].
    fn uploads(&self) -> Vec<(&'static str, &ObjectRef)>;

    /// See [`JobSpec::upload_manifest`].
    fn upload_manifest(&self) -> Option<(&'static str, &ObjectRef)>;

    /// See [`JobSpec::missing_output_name`].
    fn missing_output_name(&mut self) -> Option<&mut Option<Name>>;
}

/// What is asked of every spec as it travels and is stored, without the cost of its validation.
pub(crate) trait WireSpec {
    /// See [`v1::JobSpec::subject`].
    fn subject(&self) -> &str;

    /// The name, without a version, of the artifact that the job makes; empty if the kind makes none.
    fn output_name(&self) -> &str;

    /// See [`v1::JobSpec::source`].
    fn source(&self) -> Option<&v1::ObjectRef>;
}

/// The names of all kinds.
fn names() -> Vec<&'static str> {
    JobKind::ALL.iter().map(|kind| kind.as_str()).collect()
}

impl JobKind {
    /// The name of the kind, as commands, filters, logs, metrics and stored records spell it.
    pub const fn as_str(self) -> &'static str {
        self.row().name
    }

    /// One sentence that says what a job of this kind does, without a full stop.
    pub const fn help(self) -> &'static str {
        self.row().help
    }

    /// The artifact that a job of this kind makes a new version of; `None` if its output has no name.
    pub const fn makes(self) -> Option<ArtifactKind> {
        self.row().makes
    }

    /// Whether a running task can save a checkpoint and stop, so that a more urgent task gets its place and little work is lost.
    pub const fn gives_way(self) -> bool {
        self.row().gives_way
    }

    /// How long an attempt may show no progress before its lease is no longer renewed, in milliseconds.
    pub const fn stall_bound_ms(self) -> u64 {
        self.row().stall_bound_ms
    }

    /// The format of the document that a job of this kind makes.
    pub const fn document(self) -> &'static str {
        self.row().document
    }

    /// The format of what a shard of such a job makes; `None` if it is a document like that of the job.
    pub const fn part(self) -> Option<&'static str> {
        self.row().part
    }

    /// Whether the document names the manifest of the model that the job reads. Every document names the source and the dataset.
    pub const fn names_model(self) -> bool {
        self.row().names_model
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JobKind {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or_else(|| {
            Refusal::invalid(
                "kind",
                format!("{} is not a job kind: use {}", words::quoted(text), words::any_of(&names())),
            )
        })
    }
}

impl JobSpec {
    /// The dataset that the job reads; its name is replaced by a version when the job is accepted.
    pub fn dataset_mut(&mut self) -> Option<&mut DatasetRef> {
        self.spec_mut().dataset_mut()
    }

    /// The model that the job reads; its name is replaced by a version when the job is accepted.
    pub fn model_mut(&mut self) -> Option<&mut ModelRef> {
        self.spec_mut().model_mut()
    }

    /// The uploaded weights that the job starts from; `None` if it starts from other weights or reads none.
    pub fn uploaded_weights(&self) -> Option<&Digest> {
        self.spec().uploaded_weights()
    }

    /// The uploaded objects that the job reads, each with the field that names it. They must exist when the job is accepted.
    pub fn uploads(&self) -> Vec<(&'static str, &ObjectRef)> {
        self.spec().uploads()
    }

    /// The one of these objects that lists uploaded files, with the field that names it.
    pub fn upload_manifest(&self) -> Option<(&'static str, &ObjectRef)> {
        self.spec().upload_manifest()
    }

    /// Where to put the name of the artifact that the job makes, if the spec has left it open. The job's dataset then lends its
    /// own name.
    pub fn missing_output_name(&mut self) -> Option<&mut Option<Name>> {
        self.spec_mut().missing_output_name()
    }
}

impl v1::JobSpec {
    /// The kind of the job; `None` for a kind that this software does not know.
    pub fn job_kind(&self) -> Option<JobKind> {
        Some(self.kind.as_ref()?.job_kind())
    }

    /// What the job is about: the name that its user typed. Empty for a kind that this software does not know.
    pub fn subject(&self) -> &str {
        self.kind.as_ref().map_or("", |kind| kind.spec().subject())
    }

    /// The upload manifest that the job reads; `None` if it reads no upload.
    pub fn source(&self) -> Option<&v1::ObjectRef> {
        self.kind.as_ref()?.spec().source()
    }

    /// The artifact that the job makes a new version of, and its name without the version. `None` if the kind makes none, or if the
    /// name is still left open.
    pub fn output_name(&self) -> Option<(ArtifactKind, Name)> {
        let kind = self.kind.as_ref()?;
        Some((kind.job_kind().makes()?, kind.spec().output_name().parse().ok()?))
    }
}
