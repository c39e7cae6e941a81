//! Random values of the contract's types.

use proptest::{
    option,
    prelude::*,
    sample::{select, subsequence},
};
use sortinghat_proto::{
    ArtifactKind, AuditSpec, Backbone, BaseRate, ByteCount, ClassifySpec, DatasetRef, DeviceKind, Digest, EvaluateOn,
    EvaluateSpec, FineTune, FinetuneSpec, GatherClass, GatherFrom, GatherSpec, IngestSpec, JobId, JobKind, JobSpec,
    Label, Licence, Mixing, ModelRef, Name, ObjectRef, Precision, Recipe, Requirements, Search, Split, TaskId,
    TrainingCrop, Tta, TtaRecipe, VersionedName, WeightsSource, layout::LayoutChoice, limits,
};

pub(crate) fn digest() -> impl Strategy<Value = Digest> {
    any::<u64>().prop_map(|content| Digest::of(&content.to_le_bytes()))
}

pub(crate) fn object() -> impl Strategy<Value = ObjectRef> {
    (digest(), any::<u64>()).prop_map(|(digest, size_bytes)| ObjectRef { digest, size_bytes })
}

/// A share above 0 and at most 1.
fn share() -> impl Strategy<Value = f64> {
    (1..=1000_u32).prop_map(|thousandths| f64::from(thousandths) / 1000.0)
}

pub(crate) fn name() -> impl Strategy<Value = Name> {
    "[a-z0-9][a-z0-9_-]{0,62}".prop_map(|text| text.parse().expect("a name"))
}

pub(crate) fn job_id() -> impl Strategy<Value = JobId> {
    (any::<u64>(), any::<u128>()).prop_map(|(unix_ms, random)| JobId::new(unix_ms, random))
}

pub(crate) fn task_id() -> impl Strategy<Value = TaskId> {
    (job_id(), any::<u32>()).prop_map(|(job, index)| TaskId::new(job, index))
}

pub(crate) fn versioned(kind: ArtifactKind) -> impl Strategy<Value = VersionedName> {
    (name(), 1..=u32::MAX).prop_map(move |(name, version)| VersionedName { kind, name, version })
}

pub(crate) fn dataset() -> impl Strategy<Value = DatasetRef> {
    prop_oneof![
        name().prop_map(DatasetRef::Newest),
        versioned(ArtifactKind::Dataset).prop_map(DatasetRef::Version),
        job_id().prop_map(DatasetRef::Job),
    ]
}

pub(crate) fn model() -> impl Strategy<Value = ModelRef> {
    prop_oneof![
        name().prop_map(ModelRef::Newest),
        versioned(ArtifactKind::Model).prop_map(ModelRef::Version),
        job_id().prop_map(ModelRef::Job),
    ]
}

/// A valid spec of this kind.
pub(crate) fn spec(kind: JobKind) -> BoxedStrategy<JobSpec> {
    match kind {
        JobKind::Ingest => ingest().prop_map(JobSpec::Ingest).boxed(),
        JobKind::Finetune => finetune().prop_map(JobSpec::Finetune).boxed(),
        JobKind::Evaluate => evaluate().prop_map(JobSpec::Evaluate).boxed(),
        JobKind::Classify => classify().prop_map(JobSpec::Classify).boxed(),
        JobKind::Audit => audit().prop_map(JobSpec::Audit).boxed(),
        JobKind::Gather => gather().prop_map(JobSpec::Gather).boxed(),
    }
}

/// A valid spec of any kind.
pub(crate) fn any_spec() -> impl Strategy<Value = JobSpec> {
    select(JobKind::ALL).prop_flat_map(spec)
}

fn ingest() -> impl Strategy<Value = IngestSpec> {
    let split = prop_oneof![(1..=50_u32).prop_map(Split::ValidPercent), (2..=20_u32).prop_map(Split::Folds)];
    let layout = select(vec![LayoutChoice::Auto, LayoutChoice::Classes, LayoutChoice::Splits]);
    (name(), object(), split, any::<u64>(), any::<bool>(), 64..=4096_u32, layout).prop_map(
        |(dataset_name, source, split, seed, allow_failures, derivative_short_side_px, layout)| IngestSpec {
            dataset_name,
            source,
            split,
            seed,
            allow_failures,
            derivative_short_side_px,
            layout,
        },
    )
}

fn weights() -> impl Strategy<Value = WeightsSource> {
    prop_oneof![
        Just(WeightsSource::Pretrained),
        Just(WeightsSource::Random),
        digest().prop_map(WeightsSource::Object),
        "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}/[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}".prop_map(WeightsSource::Hub),
    ]
}

fn finetune() -> impl Strategy<Value = FinetuneSpec> {
    let base_lr = prop_oneof![Just(BaseRate::Find), share().prop_map(|share| BaseRate::Given(share * 10.0))];
    let mixing = prop_oneof![
        share().prop_map(|alpha| Mixing::MixUp { alpha }),
        share().prop_map(|alpha| Mixing::CutMix { alpha })
    ];
    let crop = prop_oneof![
        Just(TrainingCrop::Resize),
        share().prop_map(|min_scale| TrainingCrop::RandomResized { min_scale }),
    ];
    let data = (dataset(), option::of(name()), select(&Backbone::ALL[..]), weights(), option::of(0..=19_u32));
    let options = (1..=1000_u32, 0..=100_u32, base_lr, 2..=4096_u32, option::of(mixing), 0.0..1.0, crop).prop_map(
        |(epochs, freeze_epochs, base_lr, batch_size, mixing, label_smoothing, crop)| FineTune {
            epochs,
            freeze_epochs,
            base_lr,
            batch_size,
            mixing,
            label_smoothing,
            crop,
        },
    );
    let recipe =
        prop_oneof![options.prop_map(Recipe::Fastai2), Just(Recipe::Auto), Just(Recipe::Fast), Just(Recipe::Best)];
    (data, recipe, 32..=1024_u32, any::<u64>(), precision()).prop_map(
        |((dataset, model_name, backbone, weights, fold), recipe, image_size_px, seed, precision)| FinetuneSpec {
            dataset,
            model_name,
            backbone,
            weights,
            recipe,
            image_size_px,
            seed,
            fold,
            precision,
        },
    )
}

fn evaluate() -> impl Strategy<Value = EvaluateSpec> {
    let on = prop_oneof![
        Just(EvaluateOn::HeldOut),
        dataset().prop_map(EvaluateOn::Dataset),
        object().prop_map(EvaluateOn::Source),
    ];
    (model(), on, option::of(tta()), any::<u64>(), option::of(object()), precision()).prop_map(
        |(model, on, tta, seed, decisions, precision)| EvaluateSpec { model, on, tta, seed, decisions, precision },
    )
}

fn classify() -> impl Strategy<Value = ClassifySpec> {
    (model(), object(), 1..=1000_u32, option::of(tta()), any::<u64>(), precision()).prop_map(
        |(model, source, top_k, tta, seed, precision)| ClassifySpec { model, source, top_k, tta, seed, precision },
    )
}

fn audit() -> impl Strategy<Value = AuditSpec> {
    (dataset(), select(&Backbone::ALL[..]), weights(), 32..=1024_u32, any::<u64>(), precision()).prop_map(
        |(dataset, backbone, weights, image_size_px, seed, precision)| AuditSpec {
            dataset,
            backbone,
            weights,
            image_size_px,
            seed,
            precision,
        },
    )
}

fn gather() -> impl Strategy<Value = GatherSpec> {
    let class = (classes(), "[a-z][a-z ]{0,20}[a-z]").prop_map(|(names, query)| {
        names.iter().map(|name| GatherClass::new(name, &query).expect("a class")).collect::<Vec<_>>()
    });
    let search = (class, name(), select(&Licence::ALL[..]), 1..=limits::MAX_GATHERED_PER_CLASS).prop_map(
        |(classes, provider, licence, per_class)| GatherFrom::Search(Search { classes, provider, licence, per_class }),
    );
    let from = prop_oneof![search, object().prop_map(GatherFrom::Urls)];
    let split = prop_oneof![(1..=50_u32).prop_map(Split::ValidPercent), (2..=20_u32).prop_map(Split::Folds)];
    (name(), from, any::<bool>(), option::of(dataset()), split, any::<u64>(), any::<bool>(), 64..=4096_u32).prop_map(
        |(dataset_name, from, allow_http, dataset, split, seed, allow_failures, derivative_short_side_px)| GatherSpec {
            dataset_name,
            from,
            allow_http,
            dataset,
            split,
            seed,
            allow_failures,
            derivative_short_side_px,
        },
    )
}

pub(crate) fn precision() -> impl Strategy<Value = Precision> {
    select(vec![Precision::Auto, Precision::F32, Precision::Bf16])
}

pub(crate) fn tta() -> impl Strategy<Value = Tta> {
    let recipe = select(vec![TtaRecipe::Fastai2, TtaRecipe::Fastai07, TtaRecipe::Max]);
    (recipe, 1..=32_u32).prop_map(|(recipe, passes)| Tta { recipe, passes })
}

pub(crate) fn label() -> impl Strategy<Value = Label> {
    "[A-Za-z0-9._/-]{1,63}".prop_map(|text| text.parse().expect("a label"))
}

/// A size in bytes; 0 is as likely as each unit.
pub(crate) fn bytes() -> impl Strategy<Value = ByteCount> {
    prop_oneof![
        Just(ByteCount(0)),
        any::<u64>().prop_map(ByteCount),
        (1..=1_000_000_u64, 0..=4_u32).prop_map(|(number, unit)| ByteCount(number << (10 * unit))),
    ]
}

pub(crate) fn requirements() -> impl Strategy<Value = Requirements> {
    let device_kind = option::of(select(vec![DeviceKind::Cpu, DeviceKind::Cuda]));
    let labels = prop::collection::btree_map(label(), label(), 0..=limits::MAX_REQUIRED_LABELS);
    (device_kind, bytes(), bytes(), labels).prop_map(|(device_kind, min_memory, min_device_memory, labels)| {
        // A CPU has no memory of its own.
        let min_device_memory = if device_kind == Some(DeviceKind::Cpu) { ByteCount(0) } else { min_device_memory };
        Requirements { device_kind, min_memory, min_device_memory, labels }
    })
}

/// Class names.
pub(crate) fn classes() -> impl Strategy<Value = Vec<String>> {
    subsequence(vec!["birds", "cats", "dogs", "\u{e9}l\u{e9}phants", "\"quoted\"", "with,comma"], 1..=6)
        .prop_map(|names| names.into_iter().map(str::to_owned).collect())
}
