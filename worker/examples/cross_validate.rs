//! Predicts every photo once by a model that trained on the other folds, for a comparison on the very same folds.
//!
//! `cargo run -p sortinghat-worker --example cross_validate -- FOLDS.csv DIR WEIGHTS.safetensors SEED >> OUT.csv`: FOLDS.csv
//! as the example `folds` writes it, paths relative to DIR. EfficientNet-Lite0, recipe `fastai2`, 5 epochs at 224 pixels,
//! with the precisions that jobs choose on this machine. Columns: digest, path, class, fold, seed, predicted,
//! predicted_tta, probability.

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use rayon::prelude::*;
use sortinghat_proto::{Backbone, Digest, TtaRecipe};
use sortinghat_worker::{
    device::{self, Compute, DeviceRequest},
    models::{Classifier, ModelConfig, WeightsSource},
    photos::{DecodeLimits, Photo, decode, resize::fastai_resize},
    training::{
        batch::{BatchPlan, BatchStream, Crop, Example, PhotoSource, PixelBatch, Set},
        metrics::argmax,
        predict::Predictor,
        progress::{EpochMetrics, Flow, Observer, StepReport},
        recipe::Recipe,
        trainer::{Snapshot, Trainer},
        tta::combine,
    },
};

type Failure = Box<dyn Error + Send + Sync>;

const SIDE: u32 = 224;
const EPOCHS: u32 = 5;
const TTA_PASSES: u32 = 4;

fn main() -> Result<(), Failure> {
    device::keep_freed_memory();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folds, root, weights, seed] = arguments.as_slice() else {
        return Err("usage: cross_validate FOLDS.csv DIR WEIGHTS.safetensors SEED".into());
    };
    let seed = seed.parse()?;
    let compute = device::choose(DeviceRequest::Auto, None)?;
    eprintln!("{}", compute.reason);
    let rows = csv::Reader::from_path(folds)?.into_deserialize().collect::<Result<Vec<Row>, _>>()?;
    let classes: Vec<String> = rows.iter().map(|row| row.class.clone()).collect::<BTreeSet<_>>().into_iter().collect();
    let mut photos = read_photos(&rows, Path::new(root), &classes)?;

    let mut out = csv::Writer::from_writer(io::stdout());
    out.write_record(["digest", "path", "class", "fold", "seed", "predicted", "predicted_tta", "probability"])?;
    let folds: BTreeSet<u32> = rows.iter().map(|row| row.fold).collect();
    for fold in folds {
        let (held_out, learned): (Vec<_>, Vec<_>) = photos.into_iter().partition(|photo| photo.row.fold == fold);
        let album = Album { train: learned, valid: held_out };
        let started = Instant::now();
        let classifier = train(&album, &classes, Path::new(weights), seed, &compute)?;
        let right = write_predictions(&mut out, &classifier, &album, &compute, seed)?;
        out.flush()?;
        eprintln!("fold {fold}: {right} of {} right, {:.0} s", album.valid.len(), started.elapsed().as_secs_f64());
        photos = album.train.into_iter().chain(album.valid).collect();
    }
    Ok(())
}

/// A line of FOLDS.csv.
#[derive(Debug, Clone, serde::Deserialize)]
struct Row {
    path: PathBuf,
    class: String,
    digest: Digest,
    fold: u32,
}

struct Decoded {
    row: Row,
    example: Example,
    photo: Photo,
}

fn read_photos(rows: &[Row], root: &Path, classes: &[String]) -> Result<Vec<Decoded>, Failure> {
    let read = |row: &Row| -> Result<Decoded, Failure> {
        let photo = decode(&fs::read(root.join(&row.path))?, &DecodeLimits::default())?;
        let label = classes.binary_search(&row.class).expect("the classes are those of the rows, sorted");
        Ok(Decoded { row: row.clone(), example: Example { digest: row.digest.clone(), label }, photo })
    };
    let mut photos = rows.par_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    // One order whatever the file's, as jobs have it.
    photos.sort_by(|first, second| first.row.digest.cmp(&second.row.digest));
    Ok(photos)
}

/// The photos of one fold's run, decoded.
struct Album {
    train: Vec<Decoded>,
    valid: Vec<Decoded>,
}

impl Album {
    fn batch(photos: &[Decoded], indices: &[usize], crop: &Crop) -> PixelBatch {
        let squares: Vec<Vec<u8>> = indices
            .par_iter()
            .map(|&index| fastai_resize(&photos[index].photo, SIDE, crop.offset(&photos[index].example.digest)))
            .collect();
        PixelBatch { pixels: squares.concat(), count: indices.len(), size: SIDE as usize }
    }
}

impl PhotoSource for Album {
    fn batches<'a>(&'a self, set: Set, plan: BatchPlan) -> BatchStream<'a> {
        let photos = match set {
            Set::Training => &self.train,
            Set::Validation => &self.valid,
        };
        Box::new(plan.indices.into_iter().map(move |indices| Ok(Self::batch(photos, &indices, &plan.crop))))
    }
}

fn train(
    album: &Album,
    classes: &[String],
    weights: &Path,
    seed: u64,
    compute: &Compute,
) -> Result<Classifier, Failure> {
    let config = ModelConfig::new(Backbone::EfficientnetLite0, classes.to_vec(), SIDE);
    let mut classifier = Classifier::new(config, compute.device, seed)?;
    let pretrained = WeightsSource::File(weights.to_owned()).load(Path::new("."))?;
    classifier.load_backbone(&pretrained.expect("a file has weights"))?;
    let examples = |photos: &[Decoded]| photos.iter().map(|photo| photo.example.clone()).collect::<Vec<_>>();
    let recipe = Recipe::fastai2(EPOCHS, seed);
    let mut trainer = Trainer::new(classifier, recipe, examples(&album.train), examples(&album.valid))?;
    trainer.run(album, &mut Table)?;
    Ok(trainer.into_classifier())
}

/// Predicts the held-out photos plainly and with test-time augmentation; returns how many are right plainly.
fn write_predictions(
    out: &mut csv::Writer<io::Stdout>,
    classifier: &Classifier,
    album: &Album,
    compute: &Compute,
    seed: u64,
) -> Result<usize, Failure> {
    let predictor = Predictor::new(classifier, compute.precision, seed);
    let classes = &classifier.config().classes;
    let mut right = 0;
    for photos in album.valid.chunks(64) {
        let indices: Vec<usize> = (0..photos.len()).collect();
        let digests: Vec<Digest> = photos.iter().map(|photo| photo.row.digest.clone()).collect();
        let plain = predictor.plain(&Album::batch(photos, &indices, &Crop::Centre))?;
        let augmented = (0..TTA_PASSES)
            .map(|pass| predictor.augmented(&Album::batch(photos, &indices, &predictor.crop(pass)), &digests, pass))
            .collect::<Result<Vec<_>, _>>()?;
        let combined = combine(TtaRecipe::Fastai2, &plain, &augmented);
        for (index, Decoded { row, example, .. }) in photos.iter().enumerate() {
            let (best, best_tta) = (argmax(plain.row(index)), argmax(combined.row(index)));
            right += usize::from(best == example.label);
            let probability = plain.row(index)[best];
            let line =
                (&row.digest, &row.path, &row.class, row.fold, seed, &classes[best], &classes[best_tta], probability);
            out.serialize(line)?;
        }
    }
    Ok(right)
}

/// Prints each epoch's line.
struct Table;

impl Observer for Table {
    fn step(&mut self, _: &StepReport, _: &Snapshot<'_>) -> Flow {
        Flow::Continue
    }

    fn epoch(&mut self, metrics: &EpochMetrics, _: &Snapshot<'_>) -> Flow {
        let (train_loss, valid_loss, accuracy) = (metrics.train_loss, metrics.valid_loss, metrics.accuracy());
        let (phase, epoch, seconds) = (metrics.phase, metrics.epoch, metrics.seconds);
        eprintln!("{phase:?} {epoch}: {train_loss:.4} {valid_loss:.4} {accuracy:.4} {seconds:.0} s");
        Flow::Continue
    }
}
