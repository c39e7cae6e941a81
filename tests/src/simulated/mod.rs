//! Simulated workers, which have no executor. They speak the real `Synchronize` over gRPC, with leases, epochs, beats, and completions that are
//! repeated until they are acknowledged. The test decides what their tasks do. They produce load and misbehave on demand.

mod state;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde_json::{Value, json};
use sortinghat_proto::{
    JobKind, ObjectRef, limits,
    v1::{
        Assignment, SynchronizeRequest, SynchronizeResponse, WorkerDescription, task_outcome::Outcome,
        worker_service_client::WorkerServiceClient,
    },
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tonic::{Status, transport::Channel};

use state::State;

/// How long a call may take in addition to the time for which it is held.
const SPARE: Duration = Duration::from_secs(1);
/// The pause after a call that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// The host that every simulated worker reports.
pub const SIMULATED_HOST: &str = "simulated";
/// The label of every simulated worker. A job that requires it is given only to simulated workers, and a job that requires a kind of device
/// is given only to others.
pub const SIMULATED_LABEL: (&str, &str) = ("work", "simulated");

/// What simulated workers do with their tasks. The worker's loop makes these calls, so they should return at once.
pub trait Work: Send + Sync + 'static {
    /// Begins a task and returns how long it takes.
    fn start(&self, task: &Assignment) -> Duration;
    /// Ends a task after this time and returns its outcome.
    fn finish(&self, task: &Assignment) -> Outcome;
}

/// The document that a task of this kind makes from these inputs: of the right format, and with the inputs that it must name.
pub fn output(kind: JobKind, inputs: &[ObjectRef]) -> Value {
    json!({ "format": kind.document(), "inputs": inputs })
}

/// The objects that a task reads: its upload, its dataset and its model, as far as it has them.
pub fn inputs(task: &Assignment) -> Vec<ObjectRef> {
    let source = task.spec.as_ref().and_then(|spec| spec.source());
    let given = [source, task.dataset.as_ref(), task.model.as_ref()].into_iter().flatten();
    given.filter_map(|object| object.clone().try_into().ok()).collect()
}

/// What a simulated worker reports about itself.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The worker's id. A worker that is started again has a new id.
    pub id: String,
    /// How many tasks the worker runs at a time.
    pub slots: u32,
    /// How many tasks the worker takes ahead of its slots. A real worker determines this number by itself.
    pub ahead: u32,
}

/// What the test asks a worker to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Work,
    /// Neither send nor receive messages.
    Freeze,
    /// Take no new tasks, give the running tasks back, and end once every outcome is acknowledged.
    Drain,
}

/// A simulated worker. When this is dropped, the worker vanishes without a message, like a process that is killed.
#[derive(Debug)]
pub struct SimulatedWorker {
    identity: Identity,
    order: watch::Sender<Order>,
    running: JoinHandle<()>,
}

impl SimulatedWorker {
    /// Starts to poll the coordinator at `address` over its own connection. The coordinator need not run yet.
    ///
    /// Unlike a real worker, it does not stop a task when its lease ends, so the coordinator has to refuse late reports.
    pub fn start(address: SocketAddr, identity: Identity, work: Arc<dyn Work>) -> Self {
        let channel = Channel::from_shared(format!("http://{address}")).expect("an address makes a URL");
        let channel = channel.connect_timeout(SPARE).tcp_nodelay(true).connect_lazy();
        let client = WorkerServiceClient::new(channel)
            .max_decoding_message_size(limits::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(limits::MAX_MESSAGE_BYTES);
        let order = watch::Sender::new(Order::Work);
        let conversation = Conversation {
            client,
            state: State::new(identity.slots as usize, identity.ahead as usize),
            identity: identity.clone(),
            work,
            order: order.subscribe(),
            sequence: 0,
        };
        Self { identity, order, running: tokio::spawn(conversation.run()) }
    }

    /// The worker's id.
    pub fn id(&self) -> &str {
        &self.identity.id
    }

    /// Stops all messages from now on, like a process that gets SIGSTOP. The tasks go on.
    pub fn freeze(&self) {
        self.order.send_replace(Order::Freeze);
    }

    /// Goes on after [`freeze`](Self::freeze), and sends the old reports.
    pub fn thaw(&self) {
        self.order.send_replace(Order::Work);
    }

    /// Gives back every task that has not ended, and ends the worker. Returns once the coordinator has acknowledged this.
    pub async fn drain(mut self) {
        self.order.send_replace(Order::Drain);
        (&mut self.running).await.expect("a simulated worker does not panic");
    }
}

impl Drop for SimulatedWorker {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// The worker's side of the conversation with a coordinator.
struct Conversation {
    client: WorkerServiceClient<Channel>,
    identity: Identity,
    state: State,
    work: Arc<dyn Work>,
    order: watch::Receiver<Order>,
    sequence: u64,
}

impl Conversation {
    async fn run(mut self) {
        loop {
            let order = *self.order.borrow_and_update();
            match order {
                Order::Work => {}
                Order::Freeze => {
                    // The sender lives as long as this task.
                    let _ = self.order.changed().await;
                    continue;
                }
                Order::Drain if self.state.has_left() => return,
                Order::Drain => self.state.drain(),
            }
            self.state.finish_due(Instant::now(), &*self.work);
            match self.exchange().await {
                Some(Ok(response)) => self.state.take(response, Instant::now(), &*self.work),
                Some(Err(_)) => tokio::time::sleep(PAUSE).await,
                // A task has ended or there is a new order, which the next message reports.
                None => {}
            }
        }
    }

    /// Sends one message and returns its answer; `None` if something has happened in the meantime.
    async fn exchange(&mut self) -> Option<Result<SynchronizeResponse, Status>> {
        self.sequence += 1;
        let request = SynchronizeRequest {
            worker_id: self.identity.id.clone(),
            session_secret: vec![7; limits::SESSION_SECRET_BYTES],
            sequence: self.sequence,
            description: Some(self.describe()),
            ..self.state.request()
        };
        let bound = self.state.patience() + SPARE;
        let next_end = self.state.next_end();
        let ended = async {
            match next_end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = tokio::time::timeout(bound, self.client.synchronize(request)) => {
                let late = |_| Status::deadline_exceeded("no answer in time");
                Some(answer.map_err(late).and_then(|answer| answer).map(tonic::Response::into_inner))
            }
            () = ended => None,
            _ = self.order.changed() => {
                self.order.mark_changed();
                None
            }
        }
    }

    fn describe(&self) -> WorkerDescription {
        WorkerDescription {
            host: SIMULATED_HOST.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: "none".to_owned(),
            device_reason: "nothing is computed".to_owned(),
            slots: self.identity.slots,
            threads: 1,
            labels: [SIMULATED_LABEL].map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..WorkerDescription::default()
        }
    }
}
