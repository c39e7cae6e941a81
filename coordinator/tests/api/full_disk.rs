//! A coordinator whose disk is full: it goes on, answers, refuses new work, and takes it again once there is room.

use std::{fs, io::Write as _, path::Path, time::Duration};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sortinghat_proto::{
    failure_of_status,
    v1::{ErrorCode, ListJobsRequest, SubmitJobRequest},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    harness::{channel, client},
    process::Process,
};

/// How long the coordinator may take to notice a change.
const PATIENCE: Duration = Duration::from_secs(20);

/// A small file system in memory. It is unmounted when this is dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// Mounts one, if this process may do that.
    fn mount(folder: &'a Path) -> Option<Self> {
        let mounted = mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("size=24m"));
        match mounted {
            Ok(()) => Some(Self(folder)),
            Err(error) => {
                eprintln!("SKIPPED: a file system cannot be mounted here ({error}), so no disk can be filled");
                None
            }
        }
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("ballast")).expect("there is room for a name");
        let block = vec![1; 4096];
        while file.write_all(&block).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("ballast")).expect("it was written");
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // A file that is still open keeps nothing else from ending.
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

async fn status_of(process: &Process, service: &str) -> ServingStatus {
    let mut health = HealthClient::new(channel(process.address).await);
    let request = HealthCheckRequest { service: service.to_owned() };
    health.check(request).await.expect("answered").into_inner().status()
}

/// Asks until the answer is the expected one.
async fn until_readiness_is(process: &Process, expected: ServingStatus) {
    let asked = async {
        while status_of(process, "readiness").await != expected {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("the coordinator notices");
}

#[tokio::test]
async fn on_a_full_disk_new_work_is_refused_and_taken_again_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(disk) = SmallDisk::mount(folder.path()) else { return };
    // The log lies on the full disk, too.
    let mut process = Process::start_logging_to(&folder.path().join("coordinator.log"), folder.path()).await;
    let mut client = client(process.address, None).await;
    until_readiness_is(&process, ServingStatus::Serving).await;
    let accepted = client.ingest_request("before").await;
    let accepted = SubmitJobRequest { idempotency_key: "before".to_owned(), ..accepted };
    let before = client.jobs.submit_job(accepted.clone()).await.expect("accepted").into_inner().job.expect("a job").id;
    let request = client.ingest_request("meanwhile").await;

    disk.fill();
    until_readiness_is(&process, ServingStatus::NotServing).await;
    assert_eq!(status_of(&process, "").await, ServingStatus::Serving, "it does not help to start it again");
    let refused_upload = client.try_upload(b"another photo").await.expect_err("there is no room");
    let refused_job = client.jobs.submit_job(request.clone()).await.expect_err("there is no room");
    for refused in [refused_upload, refused_job] {
        let failure = failure_of_status(&refused);
        assert_eq!(failure.code(), ErrorCode::StorageUnusable);
        assert!(!failure.message.contains(&folder.path().display().to_string()), "{}", failure.message);
    }
    let again = client.jobs.submit_job(accepted).await.expect("it was accepted before").into_inner();
    assert_eq!((again.job.expect("a job").id, again.existed), (before.clone(), true));
    let listed = client.jobs.list_jobs(ListJobsRequest::default()).await.expect("reads go on").into_inner();
    assert_eq!(listed.jobs[0].id, before);
    assert!(process.is_running());

    disk.free();
    until_readiness_is(&process, ServingStatus::Serving).await;
    client.jobs.submit_job(request).await.expect("there is room");
    assert!(process.is_running());
}
