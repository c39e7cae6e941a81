//! A watch through restarts of its server: every event once, in order.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use sortinghat_client::{Client, ClientError, Endpoint, Update};
use sortinghat_proto::v1::{
    self, Job, JobEvent, JobState, LogLine, StateChanged, WatchJobRequest, WatchJobResponse,
    job_event::Event,
    job_service_server::{JobService, JobServiceServer},
    watch_job_response,
};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// What a server does after it has told all that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Holds the stream open.
    Hold,
    /// Ends the stream, as when it drains or the job has ended.
    End,
}

/// A server that knows a part of one job's history.
#[derive(Debug, Clone)]
struct Script {
    events: Arc<Vec<JobEvent>>,
    known: u64,
    then: Then,
    state: JobState,
    /// How many events before the wanted one it sends again.
    repeats: u64,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl JobService for Script {
    type WatchJobStream = Pin<Box<dyn Stream<Item = Result<WatchJobResponse, Status>> + Send>>;

    async fn watch_job(&self, request: Request<WatchJobRequest>) -> Answer<Self::WatchJobStream> {
        let after = request.into_inner().after_sequence.saturating_sub(self.repeats);
        let events = self.events.iter().filter(|event| event.sequence > after && event.sequence <= self.known);
        let told: Vec<_> = events
            .cloned()
            .map(|event| Ok(WatchJobResponse { update: Some(watch_job_response::Update::Event(event)) }))
            .collect();
        Ok(Response::new(match self.then {
            Then::Hold => stream::iter(told).chain(stream::pending()).boxed(),
            Then::End => stream::iter(told).boxed(),
        }))
    }

    type WatchPredictionsStream = Pin<Box<dyn Stream<Item = Result<v1::WatchPredictionsResponse, Status>> + Send>>;

    async fn watch_predictions(&self, _: Request<v1::WatchPredictionsRequest>) -> Answer<Self::WatchPredictionsStream> {
        Err(Status::unimplemented("not watched"))
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Answer<v1::GetJobResponse> {
        let id = request.into_inner().job_id;
        if id != "job" {
            return Err(sortinghat_proto::Refusal::not_found(format!("no job {id}")).into());
        }
        let job = Job { id, state: self.state.into(), ..Default::default() };
        Ok(Response::new(v1::GetJobResponse { job: Some(job) }))
    }

    async fn submit_job(&self, _: Request<v1::SubmitJobRequest>) -> Answer<v1::SubmitJobResponse> {
        Err(Status::unimplemented("not watched"))
    }

    async fn submit_jobs(&self, _: Request<v1::SubmitJobsRequest>) -> Answer<v1::SubmitJobsResponse> {
        Err(Status::unimplemented("not watched"))
    }

    async fn list_jobs(&self, _: Request<v1::ListJobsRequest>) -> Answer<v1::ListJobsResponse> {
        Err(Status::unimplemented("not watched"))
    }

    async fn cancel_job(&self, _: Request<v1::CancelJobRequest>) -> Answer<v1::CancelJobResponse> {
        Err(Status::unimplemented("not watched"))
    }

    async fn explain_job(&self, _: Request<v1::ExplainJobRequest>) -> Answer<v1::ExplainJobResponse> {
        Err(Status::unimplemented("not watched"))
    }

    async fn cancel_jobs(&self, _: Request<v1::CancelJobsRequest>) -> Answer<v1::CancelJobsResponse> {
        Err(Status::unimplemented("not watched"))
    }

    async fn delete_job(&self, _: Request<v1::DeleteJobRequest>) -> Answer<v1::DeleteJobResponse> {
        Err(Status::unimplemented("not watched"))
    }

    async fn retry_job(&self, _: Request<v1::RetryJobRequest>) -> Answer<v1::RetryJobResponse> {
        Err(Status::unimplemented("not watched"))
    }

    async fn get_queue(&self, _: Request<v1::GetQueueRequest>) -> Answer<v1::GetQueueResponse> {
        Err(Status::unimplemented("not watched"))
    }

    async fn pause_queue(&self, _: Request<v1::PauseQueueRequest>) -> Answer<v1::PauseQueueResponse> {
        Err(Status::unimplemented("not watched"))
    }

    async fn resume_queue(&self, _: Request<v1::ResumeQueueRequest>) -> Answer<v1::ResumeQueueResponse> {
        Err(Status::unimplemented("not watched"))
    }
}

/// A server in a runtime of its own, so that it can end as a killed process does: with every socket at once.
struct Serving {
    runtime: Runtime,
    address: SocketAddr,
}

impl Serving {
    fn start(script: Script, address: &str) -> Self {
        let runtime = Runtime::new().expect("threads");
        let listener = runtime.block_on(TcpListener::bind(address)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let service = JobServiceServer::new(script);
        let serve = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        runtime.spawn(serve);
        Self { runtime, address }
    }

    fn kill(self) -> String {
        self.runtime.shutdown_timeout(Duration::from_secs(10));
        self.address.to_string()
    }
}

/// Log lines and, as the last event, the job's success.
fn history(events: u64) -> Arc<Vec<JobEvent>> {
    let log = |sequence| Event::Log(LogLine { text: format!("line {sequence}") });
    let success = || Event::StateChanged(StateChanged { state: JobState::Succeeded.into(), ..Default::default() });
    let event =
        |n| JobEvent { sequence: n, time_unix_ms: 0, event: Some(if n == events { success() } else { log(n) }) };
    Arc::new((1..=events).map(event).collect())
}

fn script(known: u64, then: Then) -> Script {
    let state = if known < 8 { JobState::Running } else { JobState::Succeeded };
    Script { events: history(8), known, then, state, repeats: 0 }
}

/// Sequences of events until `enough` hold or the watch ends.
async fn sequences(watch: &mut sortinghat_client::Watch, enough: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.len() < enough {
        match watch.next().await.expect("the watch goes on") {
            Some(Update::Event(event)) => seen.push(event.sequence),
            Some(Update::Progress(_) | Update::UpToDate | Update::Interrupted { .. }) => {}
            None => break,
        }
    }
    seen
}

#[test]
fn a_server_that_is_killed_in_the_middle_costs_no_event_and_doubles_none() {
    let client_runtime = Runtime::new().expect("threads");
    let first = Serving::start(script(3, Then::Hold), "127.0.0.1:0");
    let url = format!("http://{}", first.address);
    let client = client_runtime.block_on(Client::connect(Endpoint::local(url))).expect("it listens");
    let mut watch = client.watch("job", 0);
    assert_eq!(client_runtime.block_on(sequences(&mut watch, 3)), [1, 2, 3]);

    let address = first.kill();
    // It repeats two events that were seen, as a server may that did not hear that they arrived.
    let second = Serving::start(Script { repeats: 2, ..script(6, Then::End) }, &address);
    assert_eq!(client_runtime.block_on(sequences(&mut watch, 3)), [4, 5, 6]);

    let address = second.kill();
    let _third = Serving::start(script(8, Then::End), &address);
    assert_eq!(client_runtime.block_on(sequences(&mut watch, 9)), [7, 8], "and then it ends");
    assert_eq!(watch.last_sequence(), 8);
}

#[test]
fn a_watch_from_beyond_the_last_event_of_an_ended_job_ends() {
    let runtime = Runtime::new().expect("threads");
    let server = Serving::start(script(8, Then::End), "127.0.0.1:0");
    let url = format!("http://{}", server.address);
    let client = runtime.block_on(Client::connect(Endpoint::local(url))).expect("it listens");
    assert_eq!(runtime.block_on(sequences(&mut client.watch("job", 8), 1)), [0; 0]);
    assert_eq!(runtime.block_on(sequences(&mut client.watch("job", 6), 9)), [7, 8]);
    server.kill();
}

#[test]
fn a_gap_in_the_history_is_an_error_and_never_passed_over() {
    let runtime = Runtime::new().expect("threads");
    let holed: Vec<JobEvent> = history(8).iter().filter(|event| event.sequence != 4).cloned().collect();
    let server = Serving::start(Script { events: Arc::new(holed), ..script(8, Then::End) }, "127.0.0.1:0");
    let url = format!("http://{}", server.address);
    let client = runtime.block_on(Client::connect(Endpoint::local(url))).expect("it listens");
    let mut watch = client.watch("job", 0);
    assert_eq!(runtime.block_on(sequences(&mut watch, 3)), [1, 2, 3]);
    assert!(matches!(runtime.block_on(watch.next()), Err(ClientError::Protocol(_))));
    server.kill();
}

#[test]
fn nobody_listening_is_unreachable_and_says_where() {
    let runtime = Runtime::new().expect("threads");
    let address = Serving::start(script(8, Then::End), "127.0.0.1:0").kill();
    let once = Client::connect_within(Endpoint::local(format!("http://{address}")), Duration::ZERO);
    let error = runtime.block_on(once).err().expect("closed");
    assert!(matches!(&error, ClientError::Unreachable { url, .. } if url.contains(&address)), "{error}");
}

#[test]
fn a_server_that_refuses_connections_for_a_moment_is_waited_for() {
    let runtime = Runtime::new().expect("threads");
    let address = Serving::start(script(8, Then::End), "127.0.0.1:0").kill();
    let endpoint = Endpoint::local(format!("http://{address}"));
    let connecting = runtime.spawn(Client::connect(endpoint.clone()));
    let refused = runtime.block_on(Client::connect_within(endpoint, Duration::ZERO));
    assert!(matches!(refused.err(), Some(ClientError::Unreachable { .. })));
    let server = Serving::start(script(8, Then::End), &address);
    runtime.block_on(connecting).expect("no panic").expect("it is back");
    server.kill();
}
