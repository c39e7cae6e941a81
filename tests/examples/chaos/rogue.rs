//! A rogue worker, which may call like any other. It speaks for every worker that it hears of: with a sequence that would lock the worker out,
//! and with a forged success of every task that the worker runs. Nothing of that may be taken.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sortinghat_proto::{
    ObjectRef,
    limits::SESSION_SECRET_BYTES,
    v1::{
        LeaseReport, ListWorkersRequest, SynchronizeRequest, TaskOutcome, TaskSucceeded, Worker, task_outcome::Outcome,
        worker_service_client::WorkerServiceClient,
    },
};
use tokio::{task::JoinHandle, time::sleep};
use tonic::{Code, transport::Channel};

use crate::Failure;

/// The pause between two rounds of forged messages.
const PAUSE: Duration = Duration::from_millis(250);
/// A forged report claims each of the first epochs.
const EPOCHS: u64 = 3;

/// A rogue worker. It ends when this is dropped.
pub(crate) struct Rogue {
    counts: Arc<Counts>,
    running: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    taken: AtomicU64,
    refused: AtomicU64,
}

impl Rogue {
    /// Starts to call the coordinator at `address`, whether or not it can be reached now.
    pub(crate) fn start(address: SocketAddr) -> Self {
        let counts = Arc::<Counts>::default();
        let channel = Channel::from_shared(format!("http://{address}")).expect("an address makes a URL");
        let client = WorkerServiceClient::new(channel.connect_timeout(PAUSE).timeout(4 * PAUSE).connect_lazy());
        let running = tokio::spawn(strike(client, counts.clone()));
        Self { counts, running }
    }

    /// How many forged messages were refused.
    ///
    /// # Errors
    /// If one was taken.
    pub(crate) fn refused(&self) -> Result<u64, Failure> {
        match self.counts.taken.load(Ordering::Relaxed) {
            0 => Ok(self.counts.refused.load(Ordering::Relaxed)),
            taken => Err(format!("{taken} forged messages of a rogue worker were taken").into()),
        }
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn strike(mut client: WorkerServiceClient<Channel>, counts: Arc<Counts>) {
    loop {
        let listed = client.list_workers(ListWorkersRequest {}).await;
        for worker in listed.map(|answer| answer.into_inner().workers).unwrap_or_default() {
            match client.synchronize(forged(worker)).await.map_err(|status| status.code()) {
                Ok(_) => counts.taken.fetch_add(1, Ordering::Relaxed),
                Err(Code::PermissionDenied) => counts.refused.fetch_add(1, Ordering::Relaxed),
                // A fault is under way.
                Err(_) => continue,
            };
        }
        sleep(PAUSE).await;
    }
}

/// A message that claims to be this worker's.
fn forged(worker: Worker) -> SynchronizeRequest {
    let outcome = Outcome::Succeeded(TaskSucceeded {
        manifest: Some(ObjectRef::of(b"forged").into()),
        summary: "forged".to_owned(),
    });
    let report = |(task_id, epoch): (String, u64)| LeaseReport {
        task_id,
        epoch,
        outcome: Some(TaskOutcome { outcome: Some(outcome.clone()) }),
        ..LeaseReport::default()
    };
    let tasks = worker.running_tasks.into_iter();
    let leases = tasks.flat_map(|task| (1..=EPOCHS).map(move |epoch| (task.clone(), epoch))).map(report);
    SynchronizeRequest {
        worker_id: worker.id,
        session_secret: vec![8; SESSION_SECRET_BYTES],
        sequence: u64::MAX,
        description: worker.description,
        leases: leases.collect(),
        ..SynchronizeRequest::default()
    }
}
