//! The embedded store on a disk that stops for a while, on a thread that other tasks need.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use redb::{StorageBackend, backends::InMemoryBackend};
use sortinghat_coordinator::store::{EmbeddedStore, Store as _, SystemClock, Verdict};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    runtime::Runtime,
    task::JoinHandle,
};

use crate::create;

/// How long a socket waits for its answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a server sends first.
const GREETING: &[u8] = b"hello";
/// The length from which a log is checkpointed, in bytes: more than this test writes.
const LOG_BYTES: u64 = 1 << 20;

/// A storage in memory that can stall.
#[derive(Debug, Clone, Default)]
struct Stalling {
    memory: Arc<InMemoryBackend>,
    /// The next sync waits at this barrier when it begins, and once more before it ends.
    stall: Arc<Mutex<Option<Arc<Barrier>>>>,
}

impl Stalling {
    fn stall(&self, stall: Option<Arc<Barrier>>) -> Option<Arc<Barrier>> {
        std::mem::replace(&mut self.stall.lock(), stall)
    }
}

impl StorageBackend for Stalling {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Some(stall) = self.stall(None) {
            stall.wait();
            stall.wait();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write(offset, data)
    }
}

/// Accepts one connection and sends the greeting.
async fn greet(listener: TcpListener) -> tokio::net::TcpStream {
    let (mut peer, _) = listener.accept().await.expect("somebody comes");
    peer.write_all(GREETING).await.expect("somebody listens");
    peer
}

/// Commits a batch when a byte arrives.
async fn commit_when_asked(listener: TcpListener, store: EmbeddedStore) -> Vec<Verdict> {
    greet(listener).await.read_u8().await.expect("a byte");
    store.apply(vec![create("a")]).await.expect("the disk comes back")
}

/// Sends one byte back.
async fn echo(listener: TcpListener) {
    let mut peer = greet(listener).await;
    let heard = peer.read_u8().await.expect("a byte");
    peer.write_u8(heard).await.expect("somebody listens");
}

fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.read_exact(&mut [0; GREETING.len()]).expect("a greeting");
    stream
}

/// Waits until all threads of a runtime sleep.
fn until_asleep(runtime: &Runtime) {
    let metrics = runtime.metrics();
    // The count grows when a thread falls asleep and when it wakes.
    while !(0..metrics.num_workers()).all(|worker| metrics.worker_park_unpark_count(worker) % 2 == 1) {
        thread::yield_now();
    }
}

#[test]
fn sockets_are_served_while_the_thread_that_served_them_waits_for_the_disk() {
    let storages: [Stalling; 3] = Default::default();
    let [_, logs @ ..] = storages.clone();
    let store = EmbeddedStore::over(move || storages.clone(), LOG_BYTES, Arc::new(SystemClock::new()));
    let store = store.expect("it is empty");
    let stall = Arc::new(Barrier::new(2));
    logs.iter().for_each(|log| drop(log.stall(Some(stall.clone()))));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let listen = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let (commits, echoes) = (listen(), listen());
    let addresses = [&commits, &echoes].map(|listener| listener.local_addr().expect("an address"));
    let committing: JoinHandle<Vec<Verdict>> = runtime.spawn(commit_when_asked(commits, store));
    runtime.spawn(echo(echoes));
    let [mut committer, mut echo] = addresses.map(connect);
    until_asleep(&runtime);

    // The thread that receives this byte is the one that has served the sockets until now.
    committer.write_all(b"!").expect("it listens");
    stall.wait();
    echo.write_all(b"?").expect("it listens");
    let mut answer = [0];
    let answered = echo.read_exact(&mut answer);
    stall.wait();
    answered.expect("an answer while the disk stalls");
    assert_eq!(answer, *b"?");
    let verdicts = runtime.block_on(committing).expect("no panic");
    assert_eq!(verdicts, [Verdict::Applied(Vec::new())]);
}
