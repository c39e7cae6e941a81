//! The settings and the progress of a run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{Failure, recovery::Recovery};

/// How many faults one round has. At the end of a round, every job has ended and is checked. An interrupted run resumes with its round.
const FAULTS_PER_ROUND: u32 = 30;

/// Injects faults under real jobs and simulated load, then checks that no job was lost or doubled.
#[derive(Debug, Clone, Parser)]
pub(crate) struct Settings {
    /// Number of faults
    #[arg(long, default_value_t = 60)]
    pub(crate) faults: u32,
    /// Number of jobs, at least one for each fault
    #[arg(long, default_value_t = 2_000)]
    pub(crate) jobs: u32,
    /// Seed that determines the faults, the jobs and their order
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Store of the queue
    #[arg(long, default_value = "embedded")]
    pub(crate) store: StoreKind,
    /// Number of jobs that no worker takes. They are queued after all faults, while a coordinator is killed and started again
    #[arg(long, default_value_t = 0)]
    pub(crate) backlog: u32,
    /// Folder of the run. An interrupted run in this folder is resumed [default: target/chaos/STORE-SEED-FAULTS-JOBS]
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,
}

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    /// One coordinator with a file.
    Embedded,
    /// Two coordinators over one server.
    Redis,
}

/// The plan of one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) number: u32,
    pub(crate) faults: u32,
    pub(crate) jobs: u32,
}

impl Settings {
    pub(crate) fn folder(&self) -> PathBuf {
        let store = self.store.to_possible_value().expect("every store has a name");
        let name = format!("{}-{}-{}-{}", store.get_name(), self.seed, self.faults, self.jobs);
        let folder = self.folder.clone().unwrap_or_else(|| Path::new("target/chaos").join(name));
        std::path::absolute(folder).expect("the current folder exists")
    }

    /// The rounds, among which the faults and the jobs are divided evenly.
    pub(crate) fn rounds(&self) -> impl Iterator<Item = Round> + use<> {
        let rounds = self.faults.div_ceil(FAULTS_PER_ROUND).max(1);
        let share = move |of: u32, number: u32| of / rounds + u32::from(number < of % rounds);
        let (faults, jobs) = (self.faults, self.jobs);
        (0..rounds).map(move |number| Round { number, faults: share(faults, number), jobs: share(jobs, number) })
    }
}

/// The results of the finished rounds. Kept in the run's folder.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) rounds: u32,
    pub(crate) faults: u32,
    /// How long the rounds took, without the interrupted one.
    pub(crate) seconds: u64,
    pub(crate) simulated_jobs: u64,
    pub(crate) real_jobs: u64,
    pub(crate) succeeded: u64,
    pub(crate) poisoned: u64,
    pub(crate) cancelled: u64,
    pub(crate) attempts: u64,
    pub(crate) stale_completions: u64,
    pub(crate) recovery: Recovery,
}

impl Progress {
    /// The progress of an interrupted run, or of a new one.
    pub(crate) fn load(folder: &Path) -> Result<Self, Failure> {
        match fs::read(folder.join("progress.json")) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::begin(folder),
            Err(error) => Err(error.into()),
        }
    }

    fn begin(folder: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(folder)?;
        if fs::read_dir(folder)?.next().is_some() {
            return Err(format!("{} is not empty, and no run of this: name another folder", folder.display()).into());
        }
        let progress = Self::default();
        progress.save(folder)?;
        Ok(progress)
    }

    pub(crate) fn save(&self, folder: &Path) -> Result<(), Failure> {
        let staged = folder.join("progress.json.new");
        fs::write(&staged, serde_json::to_vec_pretty(self)?)?;
        Ok(fs::rename(staged, folder.join("progress.json"))?)
    }
}
