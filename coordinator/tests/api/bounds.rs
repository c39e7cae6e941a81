//! How much one identity may have open: connections, calls and workers. Others are served beside it.

use sortinghat_coordinator::config::Settings;
use sortinghat_proto::{
    retry_after,
    v1::{ListJobsRequest, WatchJobRequest},
};
use tonic::{Code, Status};

use crate::harness::{ByHand, Client, Coordinator, token};

const MOST: usize = 3;

async fn coordinator() -> (Coordinator, tempfile::NamedTempFile) {
    let tokens = [
        token("alice", "role = 'user'\ntenant = 'a'"),
        token("bob", "role = 'user'\ntenant = 'a'"),
        token("worker", "role = 'worker'\ntenants = ['a']"),
        token("other-worker", "role = 'worker'\ntenants = ['a']"),
    ];
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), tokens.concat()).expect("writable");
    let settings = Settings {
        credentials: Some(file.path().to_owned()),
        max_open_per_identity: MOST.to_string().parse().ok(),
        ..Settings::default()
    };
    (Coordinator::start_with(settings).await, file)
}

async fn list(client: &mut Client) -> Result<(), Status> {
    client.jobs.list_jobs(ListJobsRequest::default()).await.map(drop)
}

fn assert_names_the_bound(refused: &Status, what: &str) {
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains(what) && refused.message().contains("max_open_per_identity"), "{refused}");
}

#[tokio::test]
async fn one_identity_has_so_many_connections_and_gets_another_when_one_ends() {
    let (coordinator, _tokens) = coordinator().await;
    let mut open = Vec::new();
    for _ in 0..MOST {
        let mut alice = coordinator.client_with("alice").await;
        list(&mut alice).await.expect("there is room");
        open.push(alice);
    }
    let mut further = coordinator.client_with("alice").await;
    let refused = list(&mut further).await.expect_err("it is one too many");
    assert_names_the_bound(&refused, "alice has 3 connections open");
    assert!(retry_after(&refused).is_some(), "{refused}");
    list(&mut coordinator.client_with("bob").await).await.expect("others have their own");
    list(&mut open[0]).await.expect("those that are open go on");
    drop(open.pop());
    // The coordinator notices the end of a connection a moment later.
    while list(&mut further).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn one_identity_has_so_many_calls_under_way_on_one_connection_or_many() {
    let (coordinator, _tokens) = coordinator().await;
    let mut alice = coordinator.client_with("alice").await;
    let job_id = alice.submit_ingest("stamps").await;
    let mut watches = Vec::new();
    for _ in 0..MOST {
        let watch = alice.jobs.watch_job(WatchJobRequest { job_id: job_id.clone(), after_sequence: 0 }).await;
        watches.push(watch.expect("there is room"));
    }
    let refused = list(&mut alice).await.expect_err("it is one too many");
    assert_names_the_bound(&refused, "alice has 3 calls under way");
    list(&mut coordinator.client_with("bob").await).await.expect("others have their own");
    drop(watches.pop());
    while list(&mut alice).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn one_identity_has_so_many_workers() {
    let (coordinator, _tokens) = coordinator().await;
    let client = coordinator.client_with("worker").await;
    let mut workers: Vec<ByHand> =
        (0..=MOST).map(|number| ByHand::named(&format!("w{number}"), client.clone())).collect();
    let mut further = workers.pop().expect("one more than it may have");
    for worker in &mut workers {
        worker.synchronize(vec![], 0, 0).await.expect("there is room");
    }
    let refused = further.synchronize(vec![], 0, 0).await.expect_err("it is one too many");
    assert_names_the_bound(&refused, "worker has 3 workers");
    workers[0].synchronize(vec![], 0, 0).await.expect("those that are known go on");
    further.switch_to(coordinator.client_with("other-worker").await);
    further.synchronize(vec![], 0, 0).await.expect("another identity has its own");
}
