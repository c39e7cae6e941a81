//! Tasks for a worker, with their uploads written straight into the object store's folder.

use std::{fs, path::Path};

use sortinghat_proto::{
    Backbone, BaseRate, DatasetRef, Digest, FineTune, FinetuneSpec, IngestSpec, JobId, JobSpec, ObjectRef, Precision,
    Recipe, Split, TaskId, Tenant, WeightsSource,
    layout::LayoutChoice,
    manifest::{self, UploadManifest, UploadedFile},
    v1,
};

/// An ingest of a few small photos, done in no time.
pub(crate) fn short_ingest(folder: &Path, number: u64) -> v1::Assignment {
    let photos = (0..20_u8).map(|shade| (class_of(shade.into()), png(48, shade))).collect();
    ingest(folder, photos, number)
}

/// An ingest of many photos: long enough to be hit in its middle, on any machine.
pub(crate) fn long_ingest(folder: &Path, number: u64) -> v1::Assignment {
    let photo = png(1200, 7);
    let copy = |index: u32| {
        // Bytes after the end of a PNG are another file, but the same picture.
        let content = [photo.as_slice(), &index.to_be_bytes()].concat();
        (class_of(index), content)
    };
    ingest(folder, (0..3000).map(copy).collect(), number)
}

/// A training of many small steps on the dataset with this manifest: long enough to be hit in its middle.
pub(crate) fn long_finetune(dataset: &ObjectRef, number: u64) -> v1::Assignment {
    let spec = FinetuneSpec {
        dataset: DatasetRef::parse("animals@1", "").unwrap(),
        model_name: None,
        backbone: Backbone::Resnet18,
        weights: WeightsSource::Random,
        recipe: Recipe::Fastai2(FineTune {
            epochs: 1000,
            freeze_epochs: 0,
            base_lr: BaseRate::Given(1e-3),
            batch_size: 4,
            ..FineTune::default()
        }),
        image_size_px: 32,
        seed: 1,
        fold: None,
        precision: Precision::F32,
    };
    let dataset = Some(dataset.clone().into());
    v1::Assignment { dataset, dataset_name: "animals@1".into(), ..assignment(JobSpec::Finetune(spec), number) }
}

/// The manifest that a finished task made.
pub(crate) fn manifest(succeeded: &v1::TaskSucceeded) -> ObjectRef {
    succeeded.manifest.clone().unwrap().try_into().unwrap()
}

/// The dataset that a finished ingest made.
pub(crate) fn dataset(folder: &Path, succeeded: &v1::TaskSucceeded) -> manifest::DatasetManifest {
    manifest::decode(&fs::read(place(folder, &manifest(succeeded).digest)).unwrap()).unwrap()
}

fn class_of(index: u32) -> &'static str {
    if index.is_multiple_of(2) { "cats" } else { "dogs" }
}

fn ingest(folder: &Path, photos: Vec<(&str, Vec<u8>)>, number: u64) -> v1::Assignment {
    let files = photos
        .into_iter()
        .enumerate()
        .map(|(index, (class, content))| UploadedFile::new(format!("{class}/{index:04}.png"), store(folder, &content)));
    let source = store(folder, &manifest::encode(&UploadManifest::of(files.collect())));
    let spec = JobSpec::Ingest(IngestSpec {
        dataset_name: "animals".parse().unwrap(),
        source,
        split: Split::ValidPercent(20),
        seed: 1,
        allow_failures: false,
        derivative_short_side_px: 512,
        layout: LayoutChoice::Auto,
    });
    assignment(spec, number)
}

fn assignment(spec: JobSpec, number: u64) -> v1::Assignment {
    let job = JobId::new(number, number.into());
    v1::Assignment {
        job_id: job.to_string(),
        task_id: TaskId::new(job, 0).to_string(),
        epoch: number,
        attempt: 1,
        tenant: Tenant::local().to_string(),
        spec: Some(spec.into()),
        ..v1::Assignment::default()
    }
}

fn store(folder: &Path, content: &[u8]) -> ObjectRef {
    let object = ObjectRef::of(content);
    let place = place(folder, &object.digest);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(place, content).unwrap();
    object
}

fn place(folder: &Path, digest: &Digest) -> std::path::PathBuf {
    folder.join("objects").join(digest.object_key(&Tenant::local()))
}

/// A grey picture of `side` x `side` pixels with a bright block whose place depends on `shade`.
fn png(side: u32, shade: u8) -> Vec<u8> {
    let block = side / 5;
    let (left, top) = (u32::from(shade) % 5 * block, u32::from(shade) / 5 % 5 * block);
    let pixel = |x: u32, y: u32| {
        let bright = (left..left + block).contains(&x) && (top..top + block).contains(&y);
        if bright { 250 } else { shade }
    };
    let pixels: Vec<u8> = (0..side).flat_map(|y| (0..side).map(move |x| pixel(x, y))).collect();
    let mut content = Vec::new();
    let mut encoder = png::Encoder::new(&mut content, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    content
}
