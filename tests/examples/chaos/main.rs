//! Real binaries under real faults: `make chaos FAULTS=n JOBS=n SEED=n`.
//!
//! Tiny real jobs run in real executors, and simulated workers add load over the real `Synchronize`. While one fault follows the other, jobs
//! are submitted until each is acknowledged. After the last fault everything is healed. Once every job has ended, a checker looks up each
//! of them. If a check fails, the run prints the seed and exits with 1.

mod check;
mod clock;
mod cluster;
mod faults;
mod jobs;
mod meters;
mod recovery;
mod redis;
mod rogue;
mod run;
mod settings;
mod strike;
mod watching;
mod workforce;

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use tokio::time::Instant;

use faults::Abilities;
use settings::{Progress, Settings};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    let settings = Settings::parse();
    // Done before there are threads, as each thread would keep the mounts of the process's start.
    let able = Abilities::find();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system starts threads");
    match runtime.block_on(chaos(&settings, able)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("FAILED with seed {}: {failure}", settings.seed);
            println!("logs and state: {}", settings.folder().display());
            ExitCode::FAILURE
        }
    }
}

async fn chaos(settings: &Settings, able: Abilities) -> Result<(), Failure> {
    if settings.jobs < settings.faults {
        return Err("a job follows every fault: set at least as many jobs as faults".into());
    }
    let folder = settings.folder();
    let mut progress = Progress::load(&folder)?;
    let objects = folder.join("objects");
    std::fs::create_dir_all(&objects)?;
    able.say_what_is_left_out();
    able.prepare(&objects)?;
    if progress.rounds > 0 {
        println!("resuming after round {}", progress.rounds);
    }
    let mut run = run::Run::start(settings, able, &folder).await?;
    for round in settings.rounds().skip(progress.rounds as usize) {
        let began = Instant::now();
        run.round(round, &mut progress).await?;
        progress.seconds += began.elapsed().as_secs();
        progress.save(&folder)?;
    }
    run.finish().await?;
    run.restart_beside_backlog(settings.backlog, &mut progress).await?;
    print(&progress);
    run.end().await?;
    able.clean_up(&objects)?;
    Ok(std::fs::remove_dir_all(folder)?)
}

fn print(progress: &Progress) {
    let Progress { seconds, simulated_jobs, real_jobs, succeeded, poisoned, cancelled, attempts, recovery, .. } =
        progress;
    println!("{real_jobs} real jobs through executors, {simulated_jobs} simulated ones, in {seconds} s");
    println!("{succeeded} succeeded, {poisoned} poisoned by three deaths, {cancelled} cancelled; {attempts} attempts");
    println!("{recovery}");
    println!(
        "{} jobs, {} faults: 0 lost, 0 doubled, {} stale completions refused",
        real_jobs + simulated_jobs,
        progress.faults,
        progress.stale_completions
    );
}
