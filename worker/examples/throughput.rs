//! Photos a second on this machine, beside what a plain PyTorch script does: `make bench`, or
//! `cargo run -p sortinghat-worker --example throughput -- DIR [ROUNDS]`.
//!
//! Decodes and resizes the first 320 PNG and JPEG files below DIR. Then trains EfficientNet-Lite0 and asks it and resnet34,
//! batches of 64 at 224 pixels, in turns as PyTorch does unless told otherwise (NCHW, f32, glibc's malloc as it is) and as
//! jobs do (NHWC, freed memory kept, the precision that jobs choose, their settings of MKL and OpenMP). Such settings belong
//! to a process: each turn is one of its own. Pixels and weights are random: they change no time. Both sides fold
//! normalisation into convolutions.

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::resource::{UsageWho, getrusage};
use rayon::prelude::*;
use sortinghat_photos::{DecodeLimits, Photo, decode, resize::fastai_resize};
use sortinghat_proto::{self as proto, Backbone, Digest};
use sortinghat_worker::{
    device::{self, Compute, DeviceRequest, Precision},
    models::{Classifier, ModelConfig},
    prediction::{batch::PixelBatch, precision::prediction_precision, predict::Predictor},
    training::{
        progress::{EpochMetrics, Flow, Observer, StepReport},
        recipe::Recipe,
        source::{BatchPlan, BatchStream, Example, PhotoSource, Set},
        trainer::{Snapshot, Trainer},
    },
};
use tokio::time::Instant;

type Failure = Box<dyn Error + Send + Sync>;

const SIDE: u32 = 224;
const BATCH: usize = 64;
/// Batches that count in a turn on a CPU, and on a GPU, where one takes milliseconds. A first one allocates everything and does not.
const COUNTED_BATCHES: usize = 3;
const COUNTED_BATCHES_OF_A_GPU: usize = 100;
const SIDES: [&str; 2] = ["stock", "ours"];
const WORKS: [(&str, Backbone); 3] =
    [("train", Backbone::EfficientnetLite0), ("predict", Backbone::EfficientnetLite0), ("predict", Backbone::Resnet34)];

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["turn", side, work, backbone] => turn(side, work, backbone),
        [root] => compare(Path::new(root), 3),
        [root, rounds] => compare(Path::new(root), rounds.parse()?),
        _ => Err("usage: throughput DIR [ROUNDS]".into()),
    }
}

fn compare(root: &Path, rounds: usize) -> Result<(), Failure> {
    let mut files = Vec::new();
    photo_files(root, &mut files)?;
    files.sort();
    files.truncate(320);
    let photos = timed("decode", files.len(), || {
        let photos = files.par_iter().map(|file| Ok(decode(&fs::read(file)?, &DecodeLimits::default())?));
        photos.collect::<Result<Vec<Photo>, Failure>>()
    })?;
    timed("resize to 224", files.len(), || {
        Ok(photos.par_iter().map(|photo| fastai_resize(photo, SIDE, (0.5, 0.5))).collect::<Vec<_>>())
    })?;
    println!("{}", device::choose(DeviceRequest::Auto, None)?.reason);
    for (work, backbone) in WORKS {
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (rates, side) in rates.iter_mut().zip(SIDES) {
                rates.push(run_turn(side, work, backbone)?);
            }
        }
        let [stock, ours] = rates.map(median);
        let what = format!("{work} {backbone}");
        println!("{what:<27} stock {stock:6.1} photos/s, ours {ours:6.1} photos/s, {:.1} times as many", ours / stock);
    }
    Ok(())
}

/// Runs `work` over `photos` photos and prints its rate.
fn timed<T>(what: &str, photos: usize, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let started = Instant::now();
    let result = work()?;
    println!("{what:<14} {:7.1} photos/s", photos as f64 / started.elapsed().as_secs_f64());
    Ok(result)
}

fn photo_files(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let known = |extension| ["png", "jpg", "jpeg"].iter().any(|known| extension == *known);
        if path.is_dir() {
            photo_files(&path, found)?;
        } else if path.extension().is_some_and(known) {
            found.push(path);
        }
    }
    Ok(())
}

/// One turn in a process of its own; its rate in photos a second.
fn run_turn(side: &str, work: &str, backbone: Backbone) -> Result<f64, Failure> {
    let mut turn = Command::new(env::current_exe()?);
    turn.args(["turn", side, work, backbone.as_str()]);
    if side == "ours" {
        turn.envs(device::library_settings());
    }
    let output = turn.output()?;
    if !output.status.success() {
        return Err(format!("{side} {work} failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let line = String::from_utf8(output.stdout)?;
    eprintln!("  {side:<6} {work:<8} {backbone:<18} {}", line.trim());
    Ok(line.split_whitespace().next().ok_or("a turn prints its rate first")?.parse()?)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Measures one side at one work and prints its rate.
fn turn(side: &str, work: &str, backbone: &str) -> Result<(), Failure> {
    if side == "ours" {
        device::keep_freed_memory();
    }
    let compute = device::choose(DeviceRequest::Auto, None)?;
    let backbone = Backbone::ALL.into_iter().find(|known| known.as_str() == backbone).ok_or("unknown backbone")?;
    let config = ModelConfig::new(backbone, vec!["one".into(), "two".into()], SIDE);
    let mut classifier = Classifier::new(config, compute.device, 0)?;
    let mut precision = prediction_precision(&compute, proto::Precision::Auto, backbone);
    if side == "stock" {
        classifier.to_nchw()?;
        precision = Precision::F32;
    }
    let counted = if compute.device.is_cuda() { COUNTED_BATCHES_OF_A_GPU } else { COUNTED_BATCHES };
    let mut stopwatch = Stopwatch::default();
    match work {
        "train" => train(classifier, &compute, 1 + counted, &mut stopwatch)?,
        _ => predict(&classifier, precision, 1 + counted, &mut stopwatch)?,
    }
    let Stopwatch { photos, seconds, faults, .. } = stopwatch;
    println!("{:.2} photos/s, {} page faults a batch", photos as f64 / seconds, faults / counted as i64);
    Ok(())
}

fn batch() -> PixelBatch {
    let size = SIDE as usize;
    let pixels = (0..BATCH * size * size * 3).map(|index| ((index * 31) >> 3) as u8).collect();
    PixelBatch { pixels, count: BATCH, size }
}

fn predict(
    classifier: &Classifier,
    precision: Precision,
    batches: usize,
    stopwatch: &mut Stopwatch,
) -> Result<(), Failure> {
    let (predictor, batch) = (Predictor::new(classifier, precision, 0), batch());
    for _ in 0..batches {
        predictor.plain(&batch)?;
        stopwatch.lap(BATCH);
    }
    Ok(())
}

/// One unfrozen epoch, augmentation and optimiser included, in what jobs train in on this device.
fn train(classifier: Classifier, compute: &Compute, batches: usize, stopwatch: &mut Stopwatch) -> Result<(), Failure> {
    let example = |index: usize| Example { digest: Digest::of(&index.to_le_bytes()), label: index % 2 };
    let examples: Vec<Example> = (0..BATCH * batches).map(example).collect();
    let precision = compute.training_precision(proto::Precision::Auto);
    let recipe = Recipe { freeze_epochs: 0, precision, ..Recipe::fastai2(1, 0) };
    let mut trainer = Trainer::new(classifier, recipe, examples.clone(), examples[..2].to_vec())?;
    trainer.run(&Same(batch()), stopwatch)?;
    Ok(())
}

/// The same photos again and again.
struct Same(PixelBatch);

impl PhotoSource for Same {
    fn batches<'a>(&'a self, _: Set, plan: BatchPlan) -> BatchStream<'a> {
        let one = self.0.pixels.len() / self.0.count;
        Box::new(plan.indices.into_iter().map(move |indices| {
            let pixels = self.0.pixels[..one * indices.len()].to_vec();
            Ok(PixelBatch { pixels, count: indices.len(), size: self.0.size })
        }))
    }
}

/// Adds up the time and the page faults between laps, from the first on.
#[derive(Default)]
struct Stopwatch {
    last: Option<(Instant, i64)>,
    photos: usize,
    seconds: f64,
    faults: i64,
}

impl Stopwatch {
    fn lap(&mut self, photos: usize) {
        let faults = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.minor_page_faults());
        if let Some((started, faults_before)) = self.last {
            self.photos += photos;
            self.seconds += started.elapsed().as_secs_f64();
            self.faults += faults - faults_before;
        }
        self.last = Some((Instant::now(), faults));
    }
}

impl Observer for Stopwatch {
    fn smaller_pieces(&mut self, photos: usize) {
        panic!("out of memory: {photos} photos at a time are not what is measured");
    }

    fn step(&mut self, report: &StepReport, _: &Snapshot<'_>) -> Flow {
        self.lap(report.images);
        Flow::Continue
    }

    fn epoch(&mut self, _: &EpochMetrics, _: &Snapshot<'_>) -> Flow {
        Flow::Continue
    }
}
