//! A coordinator over real gRPC whose decisions the test makes.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use sortinghat_proto::v1::{
    self, LeaseKey, ListWorkersRequest, ListWorkersResponse, SynchronizeRequest, SynchronizeResponse,
    attempt_event::Event,
    task_outcome::Outcome,
    worker_service_server::{WorkerService, WorkerServiceServer},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// What the coordinator currently wants.
#[derive(Debug)]
struct Wishes {
    assignments: Vec<v1::Assignment>,
    cancel: bool,
    preempt: bool,
    acknowledges: bool,
    silent: bool,
    lease_ttl_ms: u32,
}

#[derive(Debug, Clone)]
struct Service {
    wishes: Arc<Mutex<Wishes>>,
    changed: Arc<Notify>,
    heard: mpsc::UnboundedSender<SynchronizeRequest>,
}

/// The coordinator, as a test holds it.
#[derive(Debug)]
pub(crate) struct Coordinator {
    /// Its address.
    pub(crate) url: String,
    service: Service,
    requests: mpsc::UnboundedReceiver<SynchronizeRequest>,
}

impl Coordinator {
    /// Serves on a free port of this machine until the test's runtime ends.
    pub(crate) async fn start(lease_ttl: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (heard, requests) = mpsc::unbounded_channel();
        let wishes = Wishes {
            assignments: Vec::new(),
            cancel: false,
            preempt: false,
            acknowledges: true,
            silent: false,
            lease_ttl_ms: lease_ttl.as_millis().try_into().unwrap(),
        };
        let service = Service { wishes: Arc::new(Mutex::new(wishes)), changed: Arc::new(Notify::new()), heard };
        let server = Server::builder().add_service(WorkerServiceServer::new(service.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { url, service, requests }
    }

    /// Offers a lease on this task, and keeps renewing it.
    pub(crate) fn offer(&self, assignment: v1::Assignment) {
        self.wish(|wishes| wishes.assignments.push(assignment));
    }

    /// Asks for every task to be cancelled.
    pub(crate) fn cancel(&self) {
        self.wish(|wishes| wishes.cancel = true);
    }

    /// Whether every task is asked to be handed back from now on.
    pub(crate) fn preempt(&self, preempt: bool) {
        self.wish(|wishes| wishes.preempt = preempt);
    }

    /// Lists no lease any more, as if others had them.
    pub(crate) fn take_leases_away(&self) {
        self.wish(|wishes| wishes.assignments.clear());
    }

    /// Whether outcomes are acknowledged from now on.
    pub(crate) fn acknowledge(&self, acknowledges: bool) {
        self.wish(|wishes| wishes.acknowledges = acknowledges);
    }

    /// Whether calls get no answer from now on, as over a cut network.
    pub(crate) fn be_silent(&self, silent: bool) {
        self.wish(|wishes| wishes.silent = silent);
    }

    fn wish(&self, change: impl FnOnce(&mut Wishes)) {
        change(&mut self.service.wishes.lock());
        self.service.changed.notify_waiters();
    }

    /// Reads what the worker says until `pick` finds what it is looking for.
    pub(crate) async fn hear<T>(&mut self, what: &str, mut pick: impl FnMut(&SynchronizeRequest) -> Option<T>) -> T {
        let heard = async {
            loop {
                let request = self.requests.recv().await.expect("the server runs");
                if let Some(found) = pick(&request) {
                    return found;
                }
            }
        };
        timeout(super::PATIENCE, heard).await.unwrap_or_else(|_| panic!("gave up waiting for {what}"))
    }

    /// Waits until the worker offers a free slot and holds no lease.
    pub(crate) async fn hear_free_slot(&mut self) -> SynchronizeRequest {
        let is_free = |request: &SynchronizeRequest| request.free_slots > 0 && request.leases.is_empty();
        self.hear("a free slot", |request| is_free(request).then(|| request.clone())).await
    }

    /// Waits until a task has made progress.
    pub(crate) async fn hear_progress(&mut self) -> v1::Progress {
        let is_moving = |progress: &v1::Progress| progress.done > 0;
        self.hear("progress", |request| {
            request.leases.iter().find_map(|lease| lease.progress.clone()).filter(is_moving)
        })
        .await
    }

    /// Waits until a task has reported an event for which `pick` finds something.
    pub(crate) async fn hear_event<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        let events = |request: &SynchronizeRequest| {
            let events = request.leases.iter().flat_map(|lease| &lease.events);
            events.filter_map(|event| event.event.as_ref()).find_map(&pick)
        };
        self.hear(what, events).await
    }

    /// Waits until a task has ended; returns the last checkpoint that it reported meanwhile as well.
    pub(crate) async fn hear_checkpoint_and_outcome(&mut self) -> (Option<v1::ObjectRef>, Outcome) {
        let mut checkpoint = None;
        let outcome = self.hear("an outcome", |request| {
            for event in request.leases.iter().flat_map(|lease| &lease.events) {
                if let Some(Event::Checkpoint(object)) = &event.event {
                    checkpoint = Some(object.clone());
                }
            }
            request.leases.iter().find_map(|lease| lease.outcome.clone()?.outcome)
        });
        let outcome = outcome.await;
        (checkpoint, outcome)
    }

    /// Waits until a task has ended.
    pub(crate) async fn hear_outcome(&mut self) -> Outcome {
        self.hear("an outcome", |request| request.leases.iter().find_map(|lease| lease.outcome.clone()?.outcome)).await
    }
}

impl Service {
    /// What the worker should be doing, and whether that is new to it.
    fn answer(&self, request: &SynchronizeRequest) -> Option<(SynchronizeResponse, bool)> {
        let mut wishes = self.wishes.lock();
        if wishes.silent {
            return None;
        }
        let ended = request.leases.iter().filter(|lease| lease.outcome.is_some());
        let acknowledged: Vec<_> = ended
            .filter(|_| wishes.acknowledges)
            .map(|lease| LeaseKey { task_id: lease.task_id.clone(), epoch: lease.epoch })
            .collect();
        let is_ended = |task: &v1::Assignment| {
            acknowledged.iter().any(|key| key.task_id == task.task_id && key.epoch == task.epoch)
        };
        wishes.assignments.retain(|task| !is_ended(task));
        // Events are acknowledged at once: a worker abandons the message that waits when it has news.
        let mut is_new = !acknowledged.is_empty() || request.leases.iter().any(|lease| !lease.events.is_empty());
        let leases = wishes.assignments.iter().map(|task| {
            let held = request.leases.iter().find(|lease| lease.task_id == task.task_id && lease.epoch == task.epoch);
            is_new |= held.is_none() || wishes.cancel || wishes.preempt;
            v1::Lease {
                key: Some(LeaseKey { task_id: task.task_id.clone(), epoch: task.epoch }),
                ttl_ms: wishes.lease_ttl_ms,
                acknowledged_events: held.and_then(|lease| lease.events.last()).map_or(0, |event| event.sequence),
                cancel: wishes.cancel,
                preempt: wishes.preempt,
                assignment: held.is_none().then(|| task.clone()),
            }
        });
        let leases: Vec<_> = leases.collect();
        is_new |= leases.len() < request.leases.iter().filter(|lease| lease.outcome.is_none()).count();
        let lease_ttl_ms = wishes.lease_ttl_ms;
        Some((SynchronizeResponse { leases, acknowledged, lease_ttl_ms, ..SynchronizeResponse::default() }, is_new))
    }
}

#[tonic::async_trait]
impl WorkerService for Service {
    async fn synchronize(&self, request: Request<SynchronizeRequest>) -> Result<Response<SynchronizeResponse>, Status> {
        let request = request.into_inner();
        let change = self.changed.notified();
        // The send fails if the test is over.
        let _ = self.heard.send(request.clone());
        if let Some((response, true)) = self.answer(&request) {
            return Ok(Response::new(response));
        }
        // A change or the end of the worker's patience, whichever comes first.
        let _ = timeout(Duration::from_millis(request.wait_ms.into()), change).await;
        match self.answer(&request) {
            Some((response, _)) => Ok(Response::new(response)),
            None => std::future::pending().await,
        }
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Result<Response<ListWorkersResponse>, Status> {
        Err(Status::unimplemented("workers do not ask"))
    }
}
