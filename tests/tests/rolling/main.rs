//! All processes are replaced, one after the other, while jobs run and clients call. With the client's own retries no call fails, and no attempt is
//! wasted.

mod commands;
mod load;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use sortinghat_client::{Client, Endpoint, Existing};
use sortinghat_tests::{
    Deployment, Identity, Options, PATIENCE, Process, Proxy, SimulatedWorker, Weather, lasting_address, photos,
    start_coordinator, start_redis, wait_until,
};
use tempfile::TempDir;

use commands::Commands;
use load::{Craft, Load};

/// How often all processes are replaced.
const ROUNDS: usize = 3;
/// How many simulated workers there are.
const WORKERS: usize = 3;
/// How many tasks each worker runs at a time. All workers together have fewer slots than there are clients, so that each always has tasks.
const SLOTS: u32 = 2;

#[test]
fn workers_and_their_coordinator_are_replaced_and_no_command_of_hat_notices() {
    let mut deployment = Deployment::start(Options::default());
    deployment.add_worker();
    photos::write_classes(&deployment.folder().join("photos"), 20, 64);
    let hat = deployment.hat();
    hat.ok(["ingest", "shapes", "photos"]);
    let commands = Commands::start(&hat);
    for _ in 0..ROUNDS {
        deployment.roll();
        commands.go_on();
    }
    commands.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_coordinator_and_its_workers_are_replaced_and_no_call_fails() {
    let folder = TempDir::with_prefix("sortinghat-test-").expect("a temporary folder");
    let coordinator = Coordinator::start(folder.path(), "coordinator", &[]);
    let address = coordinator.address;
    roll_under_load(vec![coordinator], address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coordinators_over_one_redis_and_their_workers_are_replaced_and_no_call_fails() {
    let folder = TempDir::with_prefix("sortinghat-test-").expect("a temporary folder");
    let (_redis, port) = tokio::task::block_in_place(|| start_redis(folder.path(), &[]));
    let shared = [
        "--store".to_owned(),
        format!("redis://127.0.0.1:{port}"),
        "--object-store".to_owned(),
        format!("file://{}", folder.path().join("objects").display()),
    ];
    let coordinators = ["first", "second"].map(|name| Coordinator::start(folder.path(), name, &shared));
    // The proxy stands for the one address of a Kubernetes service.
    let road = Proxy::start(coordinators.iter().map(|coordinator| coordinator.address).collect()).await;
    let road = road.expect("loopback has free ports");
    roll_under_load(coordinators.into(), road.address()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_whose_connection_breaks_goes_on_where_it_was() {
    let folder = TempDir::with_prefix("sortinghat-test-").expect("a temporary folder");
    let coordinator = Coordinator::start(folder.path(), "coordinator", &[]);
    let road = Proxy::start(vec![coordinator.address]).await.expect("loopback has free ports");
    let client = Client::connect(Endpoint::local(format!("http://{}", road.address()))).await.expect("it serves");
    let content: Vec<u8> = (0..16 << 20_u32).map(|n: u32| n.to_le_bytes()[n as usize % 3]).collect();
    let object = client.upload_bytes(content.clone().into()).await.expect("there is room");
    road.set(Weather::Slow(Duration::from_millis(10)));
    let path = folder.path().join("object");
    let download = tokio::spawn({
        let path = path.clone();
        async move { client.save_object(&object, &path, Existing::Keep).await }
    });
    let part = |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|ending| ending == "part");
    let half = || std::fs::read_dir(folder.path()).ok()?.filter_map(Result::ok).find(part);
    tokio::task::block_in_place(|| {
        wait_until("a part of the download to arrive", || half()?.metadata().ok().filter(|file| file.len() > 0));
    });
    road.reset();
    road.set(Weather::Clear);
    download.await.expect("no panic").expect("the download goes on");
    assert!(std::fs::read(path).expect("it was written") == content);
}

/// Replaces each worker and each coordinator in turn, and waits each time until every client has been served again.
async fn roll_under_load(mut coordinators: Vec<Coordinator>, address: SocketAddr) {
    let craft = Craft::prepare(address).await;
    let mut incarnations = 0..;
    let mut worker = || {
        let id = format!("rolling-{}", incarnations.next().expect("endless"));
        SimulatedWorker::start(address, Identity { id, slots: SLOTS, ahead: 0 }, craft.clone())
    };
    let mut workers: Vec<SimulatedWorker> = (0..WORKERS).map(|_| worker()).collect();
    let load = Load::start(address, craft.source.clone()).await;
    for _ in 0..ROUNDS {
        for _ in 0..WORKERS {
            let drained = tokio::time::timeout(PATIENCE, workers.remove(0).drain()).await;
            drained.expect("a worker ends once its drain is acknowledged");
            workers.push(worker());
            load.go_on().await;
        }
        for coordinator in &mut coordinators {
            tokio::task::block_in_place(|| coordinator.replace());
            load.go_on().await;
        }
    }
    load.end(address).await;
}

/// A coordinator that can be replaced at the same address.
struct Coordinator {
    data_dir: PathBuf,
    arguments: Vec<String>,
    address: SocketAddr,
    process: Process,
}

impl Coordinator {
    fn start(folder: &Path, name: &str, arguments: &[String]) -> Self {
        let (data_dir, arguments) = (folder.join(name), arguments.to_vec());
        let (process, address) = spawn(&data_dir, &arguments, lasting_address());
        Self { data_dir, arguments, address, process }
    }

    /// Terminates the coordinator and starts it again.
    fn replace(&mut self) {
        let ended = self.process.terminate();
        assert!(ended.success(), "a coordinator drains: {ended}");
        (self.process, _) = spawn(&self.data_dir, &self.arguments, self.address);
    }
}

fn spawn(data_dir: &Path, arguments: &[String], listen: SocketAddr) -> (Process, SocketAddr) {
    start_coordinator(data_dir, listen, &data_dir.with_extension("log"), |command| {
        command.args(["--lease-ttl", "5s"]).args(arguments);
    })
}
