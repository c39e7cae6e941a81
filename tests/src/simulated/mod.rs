//! Workers without an executor: they speak the real `Synchronize` over gRPC, with leases, epochs, beats and completions that
//! are repeated until they are acknowledged, but what they do is decided by the test. For load, and for misbehaviour.

mod state;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use sortinghat_proto::{
    limits,
    v1::{
        Assignment, SynchronizeRequest, SynchronizeResponse, WorkerDescription, task_outcome::Outcome,
        worker_service_client::WorkerServiceClient,
    },
};
use tokio::{sync::watch, task::JoinHandle};
use tonic::{Status, transport::Channel};

use state::State;

/// How long a call may take beyond the time for which it is held.
const SPARE: Duration = Duration::from_secs(1);
/// Pause after a call that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// The host that every simulated worker says it runs on.
pub const SIMULATED_HOST: &str = "simulated";
/// The label of every simulated worker. A job that requires it is not given to others, and one that requires a kind of device
/// is not given to them.
pub const SIMULATED_LABEL: (&str, &str) = ("work", "simulated");

/// What simulated workers do with their tasks. Calls come from the worker's own loop and should return at once.
pub trait Work: Send + Sync + 'static {
    /// A task was taken; returns how long it will take.
    fn start(&self, task: &Assignment) -> Duration;
    /// The task's time is over; returns how it ended.
    fn finish(&self, task: &Assignment) -> Outcome;
}

/// What a simulated worker says of itself.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its incarnation; a worker that comes back has a new one.
    pub id: String,
    /// Tasks it runs at a time.
    pub slots: u32,
    /// Tasks it takes ahead of these. A real worker finds out how many by itself.
    pub ahead: u32,
}

/// What somebody asks a worker to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Work,
    /// Hear and say nothing.
    Freeze,
    /// Take no new tasks, give back those that run, and end once every outcome is acknowledged.
    Drain,
}

/// A simulated worker. It vanishes without a word when it is dropped, as a process does that is killed.
#[derive(Debug)]
pub struct SimulatedWorker {
    identity: Identity,
    order: watch::Sender<Order>,
    running: JoinHandle<()>,
}

impl SimulatedWorker {
    /// Starts to poll the coordinator at `address`, which need not be there yet, over a connection of its own.
    ///
    /// Unlike a real worker it does not stop a task when its lease ends: the coordinator has to refuse what it says too late.
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

    /// Its incarnation.
    pub fn id(&self) -> &str {
        &self.identity.id
    }

    /// Hears and says nothing from now on, as a process that is stopped; its tasks end all the same.
    pub fn freeze(&self) {
        self.order.send_replace(Order::Freeze);
    }

    /// Goes on after [`freeze`](Self::freeze), and says what it would have said.
    pub fn thaw(&self) {
        self.order.send_replace(Order::Work);
    }

    /// Gives back every task that it has not ended, then goes; returns once the coordinator knows.
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

/// One worker's side of its calls.
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
                    // The sender is dropped together with this task.
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
                // A task has ended or somebody gave an order: that goes out with a newer message.
                None => {}
            }
        }
    }

    /// One message and its answer; `None` if something happened meanwhile.
    async fn exchange(&mut self) -> Option<Result<SynchronizeResponse, Status>> {
        self.sequence += 1;
        let request = SynchronizeRequest {
            worker_id: self.identity.id.clone(),
            sequence: self.sequence,
            description: Some(self.describe()),
            ..self.state.request()
        };
        let bound = self.state.patience() + SPARE;
        let next_end = self.state.next_end().map(tokio::time::Instant::from_std);
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
