//! What a run is told, and how far it has come.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{Failure, recovery::Recovery};

/// Faults of one round. A round ends with every job ended and checked; an interrupted run goes on with its round.
const FAULTS_PER_ROUND: u32 = 30;

/// Breaks everything that can break under real jobs and simulated load, then checks that nothing was lost or doubled.
#[derive(Debug, Clone, Parser)]
pub(crate) struct Settings {
    /// Faults in all
    #[arg(long, default_value_t = 60)]
    pub(crate) faults: u32,
    /// Jobs in all, at least one for each fault
    #[arg(long, default_value_t = 2_000)]
    pub(crate) jobs: u32,
    /// Decides the faults, the jobs and their order
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The queue's store
    #[arg(long, default_value = "embedded")]
    pub(crate) store: StoreKind,
    /// Jobs that nobody takes and that are queued when, after all faults, a coordinator is killed and started once more
    #[arg(long, default_value_t = 0)]
    pub(crate) backlog: u32,
    /// Folder of the run; one that was interrupted goes on [default: target/chaos/STORE-SEED-FAULTS-JOBS]
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

/// What one round does.
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

    /// The rounds, with faults and jobs shared out evenly.
    pub(crate) fn rounds(&self) -> impl Iterator<Item = Round> + use<> {
        let rounds = self.faults.div_ceil(FAULTS_PER_ROUND).max(1);
        let share = move |of: u32, number: u32| of / rounds + u32::from(number < of % rounds);
        let (faults, jobs) = (self.faults, self.jobs);
        (0..rounds).map(move |number| Round { number, faults: share(faults, number), jobs: share(jobs, number) })
    }
}

/// What the finished rounds came to. Kept in the run's folder.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) rounds: u32,
    pub(crate) faults: u32,
    /// That the rounds took, without what was interrupted.
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
    /// That of an interrupted run, or that of a new one.
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
