//! Ten times as many calls as there are places.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use prost::Message;
use sortinghat_proto::{
    limits, retry_after,
    v1::{
        GetJobRequest, SubmitJobRequest, SubmitJobResponse, SubmitJobsRequest, SubmitJobsResponse,
        submit_verdict::Verdict,
    },
};
use tokio::{sync::watch, task::JoinHandle};
use tonic::{Code, Request, Response, Status, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

use crate::harness::{ByHand, Client, Coordinator};

/// How many calls one connection has; a server allows this many.
const CALLS_PER_CONNECTION: usize = 900;

/// A submission that holds a place and sends its message when `go` is set. It tries again until it has a place, as a call of
/// [`until_refused`] may hold the last one for a moment.
fn held<Q, A>(
    channel: Channel,
    path: &'static str,
    request: Q,
    go: watch::Receiver<bool>,
) -> JoinHandle<Result<Response<A>, Status>>
where
    Q: Message + Clone + 'static,
    A: Message + Default + 'static,
{
    tokio::spawn(async move {
        let mut client = Grpc::new(channel);
        loop {
            let (mut go, request) = (go.clone(), request.clone());
            let message = stream::once(async move {
                go.wait_for(|go| *go).await.expect("the test goes on");
                request
            });
            client.ready().await.expect("connected");
            let path = http::uri::PathAndQuery::from_static(path);
            match client.client_streaming(Request::new(message), path, ProstCodec::default()).await {
                Err(refused) if refused.code() == Code::ResourceExhausted => {}
                answer => return answer,
            }
        }
    })
}

/// Submits until a call is refused, which happens once every place is taken, and returns the refusal.
async fn until_refused(client: &mut Client, request: &SubmitJobRequest) -> Status {
    loop {
        if let Err(refused) = client.jobs.submit_job(request.clone()).await {
            return refused;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_submissions_is_refused_and_everything_else_goes_on() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let request = client.ingest_request("stamps").await;
    client.jobs.submit_job(request.clone()).await.expect("a place is free");
    let (go, gone) = watch::channel(false);
    let channel = coordinator.channel().await;
    let path = "/sortinghat.v1.JobService/SubmitJob";
    let accepted: Vec<JoinHandle<Result<Response<SubmitJobResponse>, Status>>> = (0..limits::MAX_SUBMITS_IN_FLIGHT)
        .map(|_| held(channel.clone(), path, request.clone(), gone.clone()))
        .collect();
    let refused = until_refused(&mut client, &request).await;
    assert_eq!(refused.code(), Code::ResourceExhausted);

    let mut flood = Vec::new();
    for _ in 0..(9 * limits::MAX_SUBMITS_IN_FLIGHT).div_ceil(CALLS_PER_CONNECTION) {
        let flooder = coordinator.client().await;
        for _ in 0..CALLS_PER_CONNECTION {
            let (mut flooder, request) = (flooder.clone(), request.clone());
            flood.push(tokio::spawn(async move { flooder.jobs.submit_job(request).await }));
        }
    }
    let mut worker = ByHand::new(coordinator.client().await);
    let lease = worker.take().await;
    worker.confirm(&lease).await;
    for answer in flood {
        let refused = answer.await.expect("no panic").expect_err("every place is taken");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(retry_after(&refused).is_some_and(|pause| pause < Duration::from_secs(1)), "{refused:?}");
    }

    go.send(true).expect("the calls wait for it");
    let ids: Vec<String> = stream::iter(accepted)
        .then(|answer| async { answer.await.expect("no panic").expect("it held a place").into_inner() })
        .map(|accepted| accepted.job.expect("a job").id)
        .collect()
        .await;
    for job_id in ids {
        client.jobs.get_job(GetJobRequest { job_id }).await.expect("it was accepted");
    }
    client.jobs.submit_job(request).await.expect("a place is free again");
    worker.finish(&lease).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_many_jobs_are_refused_before_they_are_read_and_take_no_place_of_single_jobs() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let request = client.ingest_request("stamps").await;
    let many = SubmitJobsRequest { jobs: vec![request.clone(); 2] };
    let (go, gone) = watch::channel(false);
    let channel = coordinator.channel().await;
    let path = "/sortinghat.v1.JobService/SubmitJobs";
    let unread: Vec<JoinHandle<Result<Response<SubmitJobsResponse>, Status>>> = (0..limits::MAX_BULK_SUBMITS_IN_FLIGHT)
        .map(|_| held(channel.clone(), path, many.clone(), gone.clone()))
        .collect();
    let refused = loop {
        if let Err(refused) = client.jobs.submit_jobs(many.clone()).await {
            break refused;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(retry_after(&refused).is_some_and(|pause| pause < Duration::from_secs(1)), "{refused:?}");
    for _ in 0..limits::MAX_BULK_SUBMITS_IN_FLIGHT {
        client.jobs.submit_job(request.clone()).await.expect("single jobs have their own places");
    }
    go.send(true).expect("the calls wait for it");
    for answer in unread {
        answer.await.expect("no panic").expect("it held a place");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_many_jobs_that_come_together_are_refused_as_a_whole_and_single_jobs_go_on() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client().await;
    let request = client.ingest_request("stamps").await;
    let many = SubmitJobsRequest { jobs: vec![request.clone(); limits::MAX_JOBS_PER_CALL] };
    let flood: Vec<_> = (0..40)
        .map(|_| {
            let (mut client, many) = (client.clone(), many.clone());
            tokio::spawn(async move { client.jobs.submit_jobs(many).await })
        })
        .collect();
    for _ in 0..10 {
        client.jobs.submit_job(request.clone()).await.expect("single jobs have their own places");
    }
    let (mut accepted, mut refused) = (0, 0);
    for answer in flood {
        match answer.await.expect("no panic") {
            Ok(answer) => {
                let verdicts = answer.into_inner().verdicts;
                assert!(verdicts.iter().all(|verdict| matches!(verdict.verdict, Some(Verdict::Accepted(_)))));
                accepted += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                assert!(retry_after(&status).is_some_and(|pause| pause < Duration::from_secs(1)), "{status:?}");
                refused += 1;
            }
        }
    }
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
}
