use super::{
    health::{Proof, Trouble},
    *,
};
use crate::config::{Command, CommandLine};
use clap::Parser as _;
use sortinghat_proto::v1::{
    attempt_event::Event,
    task_outcome::Outcome,
    worker_service_server::{WorkerService, WorkerServiceServer},
};
use tokio::{net::TcpListener, sync::oneshot, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, transport::Server};

/// How long to wait for what should come at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message, held until the test answers it; the sender is closed when the worker abandons it.
type Call = (v1::SynchronizeRequest, oneshot::Sender<v1::SynchronizeResponse>);

/// Hands every message to the test.
struct Service(mpsc::UnboundedSender<Call>);

#[tonic::async_trait]
impl WorkerService for Service {
    async fn synchronize(
        &self,
        request: Request<v1::SynchronizeRequest>,
    ) -> Result<Response<v1::SynchronizeResponse>, Status> {
        let (answer, answered) = oneshot::channel();
        // The test may be over.
        let _ = self.0.send((request.into_inner(), answer));
        answered.await.map(Response::new).map_err(|_| Status::unavailable("the test does not answer"))
    }

    async fn list_workers(
        &self,
        _: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        Err(Status::unimplemented("workers do not ask"))
    }
}

/// A session with one slot, of which the test plays both the coordinator and the slot.
struct Stage {
    calls: mpsc::UnboundedReceiver<Call>,
    commands: mpsc::UnboundedReceiver<SlotCommand>,
    /// Proofs that the worker can work; it ends when this is dropped.
    proofs: mpsc::Sender<prover::Counted>,
    /// The channel holds one report: when a report is accepted, the one before it has been heard.
    reports: mpsc::Sender<(usize, SlotReport)>,
}

impl Stage {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (heard, calls) = mpsc::unbounded_channel();
        let server = Server::builder().add_service(WorkerServiceServer::new(Service(heard)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));

        let line = CommandLine::try_parse_from(["sortinghat-worker", "run", "--coordinator", &url]).unwrap();
        let Command::Run(args) = line.command else { unreachable!("as written") };
        let (slot, commands) = mpsc::unbounded_channel();
        let (reports, heard_reports) = mpsc::channel(1);
        let (prover, proofs) = Prover::by_hand();
        proofs.send((0, proof())).await.unwrap();
        let session = Session {
            link: Link::new(&args, None).unwrap(),
            slots: vec![slot],
            reports: heard_reports,
            state: State::new(1),
            cached: Cached::new(1),
            prover,
            identity: Identity::new(&args).unwrap(),
            complaint: Complaint::default(),
            probes: Probes::default(),
            shutdown: CancellationToken::new(),
            give_up_at: None,
            is_owed_an_answer: false,
            has_news: false,
        };
        tokio::spawn(session.run());
        Self { calls, commands, proofs, reports }
    }

    async fn call(&mut self) -> Call {
        timeout(PATIENCE, self.calls.recv()).await.expect("a message comes").expect("the server runs")
    }

    /// The next message that says how something ended.
    async fn call_with_outcome(&mut self) -> Call {
        self.call_where(|request| !outcomes(request).is_empty()).await
    }

    /// The next message for which this is true.
    async fn call_where(&mut self, is_meant: impl Fn(&v1::SynchronizeRequest) -> bool) -> Call {
        // The messages before it stay unanswered until the worker abandons them.
        let mut others = Vec::new();
        loop {
            let call = self.call().await;
            if is_meant(&call.0) {
                return call;
            }
            others.push(call);
        }
    }

    async fn command(&mut self) -> SlotCommand {
        timeout(PATIENCE, self.commands.recv()).await.expect("a command comes").expect("the session runs")
    }

    async fn report(&self, report: SlotReport) {
        self.reports.send((0, report)).await.expect("the session runs");
    }

    async fn report_epoch(&self) {
        self.report(SlotReport::Event(Event::EpochFinished(v1::EpochMetrics::default()))).await;
    }
}

fn proof() -> Result<Proof, Trouble> {
    Ok(Proof { address: "file:///objects".into(), queue: Some("ours".into()) })
}

fn answer(acknowledged_events: u64, assignment: Option<v1::Assignment>) -> v1::SynchronizeResponse {
    let key = Some(v1::LeaseKey { task_id: "task".into(), epoch: 1 });
    let lease = v1::Lease { key, ttl_ms: 600_000, acknowledged_events, assignment, ..v1::Lease::default() };
    v1::SynchronizeResponse { leases: vec![lease], lease_ttl_ms: 600_000, ..v1::SynchronizeResponse::default() }
}

fn sequences(request: &v1::SynchronizeRequest) -> Vec<u64> {
    request.leases.iter().flat_map(|lease| &lease.events).map(|event| event.sequence).collect()
}

#[tokio::test]
async fn news_that_come_faster_than_answers_do_not_keep_a_lease_from_being_renewed() {
    let mut stage = Stage::start().await;
    stage.report(SlotReport::Ready(Ready::default())).await;
    let (_, first) = stage.call().await;
    first.send(answer(0, Some(v1::Assignment::default()))).unwrap();
    assert!(matches!(stage.command().await, SlotCommand::Start { .. }));

    let (waiting, mut held) = stage.call().await;
    assert!(waiting.wait_ms > 0, "nothing is new");
    stage.report_epoch().await;
    timeout(PATIENCE, held.closed()).await.expect("news end a wait");

    let (urgent, slow) = stage.call().await;
    assert_eq!((urgent.wait_ms, sequences(&urgent)), (0, vec![1]));
    // The channel takes a report only once the session has heard the one before it.
    for _ in 0..3 {
        stage.report_epoch().await;
    }
    slow.send(answer(1, None)).expect("it is still waited for");
    assert!(matches!(stage.command().await, SlotCommand::Renew { .. }));
    let (next, _) = stage.call().await;
    assert_eq!(sequences(&next)[..2], [2, 3]);
}

/// A task by its epoch, as a coordinator offers it.
fn offer(epoch: u64) -> v1::Lease {
    let key = Some(v1::LeaseKey { task_id: "task".into(), epoch });
    let assignment = Some(v1::Assignment { epoch, ..v1::Assignment::default() });
    v1::Lease { key, ttl_ms: 600_000, assignment, ..v1::Lease::default() }
}

/// The epochs that a message says have ended, and how.
fn outcomes(request: &v1::SynchronizeRequest) -> Vec<(u64, Outcome)> {
    let outcome = |lease: &v1::LeaseReport| Some((lease.epoch, lease.outcome.as_ref()?.outcome.clone()?));
    request.leases.iter().filter_map(outcome).collect()
}

#[tokio::test]
async fn short_tasks_are_taken_ahead_and_given_back_unasked_when_one_turns_out_long() {
    let mut stage = Stage::start().await;
    stage.report(SlotReport::Ready(Ready::default())).await;
    let (_, mut reply) = stage.call().await;
    let mut acknowledged = Vec::new();
    for epoch in 1..=8 {
        let leases = vec![offer(epoch)];
        reply
            .send(v1::SynchronizeResponse {
                leases,
                acknowledged,
                lease_ttl_ms: 600_000,
                ..v1::SynchronizeResponse::default()
            })
            .unwrap();
        assert!(matches!(stage.command().await, SlotCommand::Start { .. }));
        let outcome = Outcome::Succeeded(v1::TaskSucceeded::default());
        stage.report(SlotReport::Ended { outcome, executor_kept: true }).await;
        let told = stage.call_with_outcome().await;
        acknowledged =
            told.0.leases.iter().map(|lease| v1::LeaseKey { task_id: "task".into(), epoch: lease.epoch }).collect();
        // The coordinator is slow, compared with the tasks.
        sleep(Duration::from_millis(20)).await;
        if epoch == 8 {
            assert!(told.0.free_slots >= 2, "more than the slot: {}", told.0.free_slots);
        }
        reply = told.1;
    }
    let leases = vec![offer(100), offer(101)];
    reply
        .send(v1::SynchronizeResponse {
            leases,
            acknowledged,
            lease_ttl_ms: 600_000,
            ..v1::SynchronizeResponse::default()
        })
        .unwrap();
    let SlotCommand::Start { assignment, .. } = stage.command().await else { panic!("the slot is free") };
    assert_eq!(assignment.epoch, 100);
    // Sooner than the messages before it would have failed.
    let (told, _) = timeout(Duration::from_secs(8), stage.call_with_outcome()).await.expect("it is news");
    assert!(matches!(outcomes(&told)[..], [(101, Outcome::Returned(_))]), "{told:?}");
}

/// An answer without leases, from a coordinator with this queue.
fn of_queue(queue: &str) -> v1::SynchronizeResponse {
    v1::SynchronizeResponse { lease_ttl_ms: 600_000, queue_id: queue.into(), ..v1::SynchronizeResponse::default() }
}

#[tokio::test]
async fn a_worker_asks_for_tasks_only_once_it_has_found_the_coordinators_queue_in_its_store() {
    let mut stage = Stage::start().await;
    stage.report(SlotReport::Ready(Ready::default())).await;
    let (first, reply) = stage.call().await;
    assert_eq!(first.free_slots, 0, "it does not know the coordinator's queue");
    reply.send(of_queue("theirs")).unwrap();
    let (second, reply) = stage.call().await;
    let health = second.health.unwrap();
    assert!(second.free_slots == 0 && health.reason.contains("not the one of the coordinator"), "{health:?}");
    reply.send(of_queue("ours")).unwrap();
    let (third, _) = stage.call().await;
    assert!(third.free_slots == 1 && third.health.unwrap().is_able);
}

#[tokio::test]
async fn after_a_failure_of_the_store_nothing_is_asked_for_until_the_store_is_proved_again() {
    let mut stage = Stage::start().await;
    stage.report(SlotReport::Ready(Ready::default())).await;
    let (_, reply) = stage.call().await;
    reply.send(v1::SynchronizeResponse { leases: vec![offer(1)], ..of_queue("ours") }).unwrap();
    assert!(matches!(stage.command().await, SlotCommand::Start { .. }));
    let failure = v1::Failure { code: v1::ErrorCode::CorruptObject.into(), ..v1::Failure::default() };
    stage.report(SlotReport::Ended { outcome: Outcome::Failed(failure), executor_kept: true }).await;
    let (told, reply) = stage.call_with_outcome().await;
    assert!(told.free_slots == 0 && !told.health.unwrap().is_able);
    reply.send(of_queue("ours")).unwrap();
    let refused = Trouble { reason: "refused".into(), detail: "refused with a code".into() };
    stage.proofs.send((1, Err(refused))).await.unwrap();
    let (told, reply) = stage.call_where(|request| request.health.as_ref().unwrap().reason == "refused").await;
    assert_eq!(told.free_slots, 0);
    reply.send(of_queue("ours")).unwrap();
    stage.proofs.send((1, proof())).await.unwrap();
    stage.call_where(|request| request.free_slots == 1).await;
}
