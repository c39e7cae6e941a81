//! Photos a second on this machine: decoding, resizing, training and prediction with EfficientNet-Lite0.
//!
//! `cargo run --release -p sortinghat-worker --example throughput -- DIR [PHOTOS]` takes the first PHOTOS (default 320)
//! PNG and JPEG files below DIR. The weights are random: they change no time.

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use rayon::prelude::*;
use sortinghat_worker::{
    device::{self, Compute, DeviceRequest, Precision},
    models::{Backbone, Classifier, ModelConfig},
    photos::{DecodeLimits, Photo, decode, resize::fastai_resize},
    training::{
        batch::{BatchPlan, BatchStream, Example, PhotoSource, PixelBatch, Set},
        predict::Predictor,
        progress::{EpochMetrics, Flow, Observer, StepReport},
        recipe::Recipe,
        trainer::{Snapshot, Trainer},
    },
};

type Failure = Box<dyn Error + Send + Sync>;

const SIDE: u32 = 224;
const BATCH: usize = 64;

fn main() -> Result<(), Failure> {
    device::keep_freed_memory();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (root, wanted) = match arguments.as_slice() {
        [root] => (root, 320),
        [root, wanted] => (root, wanted.parse()?),
        _ => return Err("usage: throughput DIR [PHOTOS]".into()),
    };
    let mut files = Vec::new();
    photo_files(Path::new(root), &mut files)?;
    files.sort();
    files.truncate(wanted);
    if files.len() < BATCH {
        return Err(format!("{root} has {} photos; at least {BATCH} are needed", files.len()).into());
    }

    let compute = device::choose(DeviceRequest::Auto, None)?;
    println!("{} photos; {}", files.len(), compute.reason);
    let photos = timed("decode", files.len(), || {
        files
            .par_iter()
            .map(|file| Ok(decode(&fs::read(file)?, &DecodeLimits::default())?))
            .collect::<Result<Vec<Photo>, Failure>>()
    })?;
    let gallery = Gallery { squares: timed("resize to 224", files.len(), || Ok(squares(&photos)))? };
    predict(&gallery, &compute)?;
    train(gallery, &compute)
}

/// Runs `work` over `photos` photos and prints its rate.
fn timed<T>(what: &str, photos: usize, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let started = Instant::now();
    let result = work()?;
    println!("{what:<22} {:8.1} photos/s", photos as f64 / started.elapsed().as_secs_f64());
    Ok(result)
}

fn photo_files(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            photo_files(&path, found)?;
        } else if path
            .extension()
            .is_some_and(|extension| ["png", "jpg", "jpeg"].iter().any(|known| extension == *known))
        {
            found.push(path);
        }
    }
    Ok(())
}

fn squares(photos: &[Photo]) -> Vec<Vec<u8>> {
    photos.par_iter().map(|photo| fastai_resize(photo, SIDE, (0.5, 0.5))).collect()
}

/// Photos that are decoded already, so that only the network is timed.
struct Gallery {
    squares: Vec<Vec<u8>>,
}

impl Gallery {
    fn batch(&self, indices: &[usize]) -> PixelBatch {
        let pixels = indices.iter().flat_map(|&index| self.squares[index].iter().copied()).collect();
        PixelBatch { pixels, count: indices.len(), size: SIDE as usize }
    }
}

impl PhotoSource for Gallery {
    fn batches<'a>(&'a self, _: Set, plan: BatchPlan) -> BatchStream<'a> {
        Box::new(plan.indices.into_iter().map(|indices| Ok(self.batch(&indices))))
    }
}

fn classifier(compute: &Compute) -> Result<Classifier, Failure> {
    let config = ModelConfig::new(Backbone::EfficientNetLite0, vec!["one".into(), "two".into()], SIDE);
    Ok(Classifier::new(config, compute.device, 0)?)
}

/// Times whole batches after one that warms the caches up, in f32 and in what predictions use here.
fn predict(gallery: &Gallery, compute: &Compute) -> Result<(), Failure> {
    let classifier = classifier(compute)?;
    let indices: Vec<usize> = (0..gallery.squares.len()).collect();
    let batches: Vec<PixelBatch> = indices.chunks_exact(BATCH).map(|indices| gallery.batch(indices)).collect();
    let mut precisions = vec![Precision::F32, compute.precision];
    precisions.dedup();
    for precision in precisions {
        let predictor = Predictor::new(&classifier, precision, 0);
        predictor.plain(&batches[0])?;
        timed(&format!("predict, {precision:?}"), batches.len() * BATCH, || {
            batches.iter().try_for_each(|batch| predictor.plain(batch).map(drop)).map_err(Failure::from)
        })?;
    }
    Ok(())
}

/// Times the steps of one unfrozen epoch in f32, augmentation and optimiser included.
fn train(gallery: Gallery, compute: &Compute) -> Result<(), Failure> {
    let examples: Vec<Example> = (0..gallery.squares.len())
        .map(|index| Example {
            digest: std::array::from_fn(|byte| (index >> (8 * (byte % 2))) as u8),
            label: index % 2,
        })
        .collect();
    let recipe = Recipe { freeze_epochs: 0, ..Recipe::fastai2(1, 0) };
    let mut trainer = Trainer::new(classifier(compute)?, recipe, examples.clone(), examples[..2].to_vec())?;
    let mut stopwatch = Stopwatch { last_step: Instant::now(), photos: 0, seconds: 0.0 };
    trainer.run(&gallery, &mut stopwatch)?;
    println!("{:<22} {:8.1} photos/s", "train, F32", stopwatch.photos as f64 / stopwatch.seconds);
    Ok(())
}

/// Adds up the time between steps; the first one, which allocates everything, does not count.
struct Stopwatch {
    last_step: Instant,
    photos: usize,
    seconds: f64,
}

impl Observer for Stopwatch {
    fn step(&mut self, report: &StepReport, _: &Snapshot<'_>) -> Flow {
        if report.step > 1 {
            self.photos += report.images;
            self.seconds += self.last_step.elapsed().as_secs_f64();
        }
        self.last_step = Instant::now();
        Flow::Continue
    }

    fn epoch(&mut self, _: &EpochMetrics, _: &Snapshot<'_>) -> Flow {
        Flow::Continue
    }
}
