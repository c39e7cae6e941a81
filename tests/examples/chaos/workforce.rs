//! The simulated workers of a run, for load, deaths and late reports.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use sortinghat_proto::{
    ObjectRef, Tenant,
    v1::{Assignment, ErrorCode, FailureClass, TaskSucceeded, job_spec::Kind, task_outcome::Outcome},
};
use sortinghat_tests::{Dice, Identity, SimulatedWorker, Work, inputs, output};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

/// How many simulated workers there are.
pub(crate) const SIMULATED_WORKERS: usize = 6;
/// How many tasks each of them runs at a time.
const SLOTS: u32 = 16;
/// A job whose dataset has this prefix runs until it is cancelled.
pub(crate) const ENDLESS: &str = "endless";

/// The simulated workers.
pub(crate) struct Workforce {
    address: SocketAddr,
    craft: Arc<Craft>,
    workers: Vec<SimulatedWorker>,
    /// Distinguishes the workers of this run from those of an earlier run in the same folder.
    started: u64,
    incarnations: u32,
}

/// The work of simulated workers: each attempt writes a manifest that names the attempt.
struct Craft {
    objects: PathBuf,
    /// When a task was last started.
    started: watch::Sender<Instant>,
}

impl Workforce {
    pub(crate) fn start(address: SocketAddr, objects: PathBuf, started: u64) -> Self {
        let craft = Arc::new(Craft { objects, started: watch::Sender::new(Instant::now()) });
        let mut workforce = Self { address, craft, workers: Vec::new(), started, incarnations: 0 };
        for _ in 0..SIMULATED_WORKERS {
            let worker = workforce.incarnation();
            workforce.workers.push(worker);
        }
        workforce
    }

    fn incarnation(&mut self) -> SimulatedWorker {
        self.incarnations += 1;
        let id = format!("simulated-{:x}-{}", self.started, self.incarnations);
        let identity = Identity { id, slots: SLOTS, ahead: SLOTS };
        SimulatedWorker::start(self.address, identity, self.craft.clone())
    }

    /// Lets a worker vanish with all of its leases, starts a new one in its place, and returns the id of the old one.
    pub(crate) fn kill(&mut self, number: usize) -> String {
        let successor = self.incarnation();
        let killed = std::mem::replace(&mut self.workers[number], successor);
        killed.id().to_owned()
    }

    pub(crate) fn freeze(&self, number: usize) {
        self.workers[number].freeze();
    }

    pub(crate) fn thaw(&self, number: usize) {
        self.workers[number].thaw();
    }

    /// Notices when the next task is started.
    pub(crate) fn next_start(&self) -> JoinHandle<Instant> {
        let mut started = self.craft.started.subscribe();
        tokio::spawn(async move {
            started.changed().await.expect("the simulated workers outlive the measurements");
            *started.borrow()
        })
    }
}

/// The manifest of a simulated attempt, which names the attempt.
fn manifest(task: &Assignment) -> String {
    let kind = task.spec.as_ref().and_then(|spec| spec.job_kind()).expect("coordinators give tasks of known kinds");
    let mut manifest = output(kind, &inputs(task));
    manifest["task"] = task.task_id.clone().into();
    manifest["epoch"] = task.epoch.into();
    manifest.to_string()
}

/// Whether a manifest is that of this attempt.
pub(crate) fn is_manifest_of(content: &[u8], task: &str, epoch: u64) -> bool {
    let manifest: Value = serde_json::from_slice(content).unwrap_or_default();
    manifest["task"] == task && manifest["epoch"] == epoch
}

impl Work for Craft {
    /// The task takes a moment in most cases, and sometimes longer than a lease.
    fn start(&self, task: &Assignment) -> Duration {
        self.started.send_replace(Instant::now());
        if is_endless(task) {
            return Duration::from_secs(3600);
        }
        let mut dice = Dice::of(task.epoch, &task.task_id, 0);
        let ms = match dice.below(100) {
            0..90 => dice.below(150),
            90..98 => dice.within(500..=1_500),
            _ => dice.within(2_500..=4_000),
        };
        Duration::from_millis(ms)
    }

    fn finish(&self, task: &Assignment) -> Outcome {
        let content = manifest(task);
        let object = ObjectRef::of(content.as_bytes());
        let tenant: Tenant = task.tenant.parse().expect("coordinators name valid tenants");
        match write(&self.objects.join(object.digest.object_key(&tenant)), content.as_bytes()) {
            Ok(()) => Outcome::Succeeded(TaskSucceeded { manifest: Some(object.into()), summary: String::new() }),
            Err(error) => Outcome::Failed(sortinghat_proto::v1::Failure {
                failure_class: FailureClass::Infrastructure.into(),
                code: ErrorCode::StorageUnavailable.into(),
                message: format!("failed to write the manifest: {error}"),
                field: String::new(),
            }),
        }
    }
}

fn is_endless(task: &Assignment) -> bool {
    let spec = task.spec.as_ref().and_then(|spec| spec.kind.as_ref());
    matches!(spec, Some(Kind::Ingest(ingest)) if ingest.dataset_name.starts_with(ENDLESS))
}

/// Writes a file like the object store does: no reader sees a part of it.
fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(path.parent().expect("a key has a folder"))?;
    let staged = path.with_extension("simulated");
    fs::write(&staged, content)?;
    fs::rename(staged, path)
}
