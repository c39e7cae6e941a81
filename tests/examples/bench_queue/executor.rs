//! Jobs of one small photo, run by a real worker with an executor.

use std::{path::Path, process::Command, time::Duration};

use sortinghat_client::{Client, Endpoint};
use sortinghat_proto::v1::{ClassifySpec, IngestSpec, JobSpec, SubmitJobRequest, job_spec::Kind};
use sortinghat_tests::{Process, Proxy, Weather, binary, lasting_address, photos, start_coordinator};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    Failure,
    measure::median,
    ours::{Producer, submission},
};

/// How many photos each class of the dataset has, and the pixels on a side.
const PHOTOS: u32 = 4;
const SIDE: u32 = 64;
/// How many jobs one turn has, and how many come before it to show the worker how long they take.
const JOBS: usize = 200;
const WARM_UP: usize = 50;
/// How long bytes take to a far coordinator, in each direction.
const FAR: Duration = Duration::from_millis(20);

/// Prints how many jobs a second a worker with one slot runs, close to the coordinator and [`FAR`] from it. Objects are close in both cases.
pub(crate) async fn executor(rounds: usize) -> Result<(), Failure> {
    let folder = TempDir::with_prefix("sortinghat-bench-")?;
    let objects = folder.path().join("objects");
    std::fs::create_dir_all(&objects)?;
    let objects = format!("file://{}", objects.display());
    let log = folder.path().join("coordinator.log");
    let (_coordinator, address) = start_coordinator(folder.path(), lasting_address(), &log, |command| {
        command.args(["--log-filter", "warn", "--object-store", &objects]);
    });
    let line = Proxy::start(vec![address]).await?;
    let _worker = start_worker(folder.path(), &objects, &format!("http://{}", line.address()));
    let client = Client::connect(Endpoint::local(format!("http://{address}"))).await?;
    let job = one_photo(&client, folder.path()).await?;
    let mut producer = Producer::connect(address, job).await?;
    let weathers = [("near", Weather::Clear), ("far", Weather::Slow(FAR))];
    let mut turns = weathers.map(|_| Vec::new());
    for _ in 0..rounds {
        for ((_, weather), turns) in weathers.iter().zip(&mut turns) {
            line.set(*weather);
            run(&client, &mut producer, WARM_UP).await?;
            turns.push(JOBS as f64 / run(&client, &mut producer, JOBS).await?.as_secs_f64());
        }
    }
    for ((name, _), turns) in weathers.iter().zip(turns) {
        println!(
            "{name}: {:.1} jobs of one photo a second in one slot, median of {rounds} turns",
            median(turns.into_iter())
        );
    }
    Ok(())
}

/// Submits jobs, and returns how long it took until all of them had ended.
async fn run(client: &Client, producer: &mut Producer, jobs: usize) -> Result<Duration, Failure> {
    let began = Instant::now();
    for id in producer.submit(jobs).await? {
        let mut watch = client.watch(&id, 0);
        while watch.next().await?.is_some() {}
    }
    Ok(began.elapsed())
}

fn start_worker(folder: &Path, objects: &str, coordinator: &str) -> Process {
    let mut command = Command::new(binary("sortinghat-worker"));
    command.args(["run", "--coordinator", coordinator, "--object-store", objects]);
    command.arg("--data-dir").arg(folder.join("worker")).args(["--device", "cpu", "--threads", "1"]);
    Process::start(&mut command, &folder.join("worker.log"))
}

/// A classification of one photo with a small model, which is trained first.
async fn one_photo(client: &Client, folder: &Path) -> Result<SubmitJobRequest, Failure> {
    let files = photos::write_classes(&folder.join("photos"), PHOTOS, SIDE);
    let source = client.upload(&files, |_| {}).await?;
    let photo = client.upload(&files[..1], |_| {}).await?;
    let ingest = IngestSpec { dataset_name: "bench".to_owned(), source: Some(source.into()), ..IngestSpec::default() };
    let dataset = client.submit(&submission(Kind::Ingest(ingest))?).await?.id;
    let finetune = photos::short_training(format!("job:{dataset}"));
    let model = client.submit(&submission(Kind::Finetune(finetune))?).await?.id;
    let classify =
        ClassifySpec { model: format!("job:{model}"), source: Some(photo.into()), ..ClassifySpec::default() };
    let spec = JobSpec { kind: Some(Kind::Classify(classify)) };
    Ok(SubmitJobRequest { spec: Some(spec), ..SubmitJobRequest::default() })
}
