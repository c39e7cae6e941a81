//! Waits for the disk on a thread of an async runtime.
//!
//! `block_in_place` would first hand the thread's other tasks to another thread. That takes longer than the sync of a quick disk, so it is
//! done only if the disk was slow the last time. A watch notices when a quick disk turns slow. It then wakes another thread of the
//! runtime, which serves the sockets and timers, as the thread that served them may be the one that waits. One task that was just woken
//! on the waiting thread may be delayed, once.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::{Handle, RuntimeFlavor};

/// A disk that syncs within this time is quick.
const QUICK: Duration = Duration::from_millis(2);
/// How often the watch looks. Sockets and timers are served after at most twice this time.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Runs work that waits for the disk, one piece of work at a time.
#[derive(Debug)]
pub(super) struct Blocking {
    was_slow: AtomicBool,
    seen: Arc<Seen>,
    /// Wakes the watch for a runtime, and ends it when this is dropped.
    runtimes: mpsc::Sender<Handle>,
}

/// What the watch observes.
#[derive(Debug, Default)]
struct Seen {
    /// Counts the beginnings and ends of work: the count is odd while a thread waits for the disk.
    steps: AtomicU64,
    /// Whether the watch looks at intervals. It rests while nothing happens.
    is_awake: AtomicBool,
}

impl Blocking {
    /// Starts the watch.
    pub(super) fn start() -> io::Result<Self> {
        let (runtimes, woken) = mpsc::channel();
        let seen = Arc::<Seen>::default();
        let watched = seen.clone();
        thread::Builder::new().name("store-watch".to_owned()).spawn(move || watch(&watched, &woken))?;
        Ok(Self { was_slow: AtomicBool::new(false), seen, runtimes })
    }

    /// Runs work that waits for the disk. The other tasks of the caller's runtime go on meanwhile, if the runtime has other threads.
    pub(super) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let Ok(runtime) = Handle::try_current() else { return work() };
        if runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
            return work();
        }
        #[expect(clippy::disallowed_methods, reason = "a disk takes real time, whatever a test says the time is")]
        let began = Instant::now();
        let result = match self.was_slow.load(Ordering::Relaxed) || runtime.metrics().num_workers() == 1 {
            true => tokio::task::block_in_place(work),
            false => self.run_watched(runtime, work),
        };
        self.was_slow.store(began.elapsed() > QUICK, Ordering::Relaxed);
        result
    }

    fn run_watched<T>(&self, runtime: Handle, work: impl FnOnce() -> T) -> T {
        self.seen.steps.fetch_add(1, Ordering::SeqCst);
        if !self.seen.is_awake.swap(true, Ordering::SeqCst) {
            // The watch lives as long as this does, so the channel is open.
            let _ = self.runtimes.send(runtime);
        }
        let result = work();
        self.seen.steps.fetch_add(1, Ordering::SeqCst);
        result
    }
}

/// Watches each runtime that it is woken for, until no thread of it waits for the disk.
fn watch(seen: &Seen, woken: &mpsc::Receiver<Handle>) {
    while let Ok(runtime) = woken.recv() {
        let mut last = None;
        loop {
            let steps = seen.steps.load(Ordering::SeqCst);
            if last != Some(steps) {
                last = Some(steps);
            } else if steps % 2 == 1 {
                // This wakes another thread, which serves sockets and timers before it sleeps again.
                runtime.spawn(async {});
            } else {
                seen.is_awake.store(false, Ordering::SeqCst);
                // A thread that has begun to wait in the meantime may not have seen that the watch rests.
                if seen.steps.load(Ordering::SeqCst) == steps || seen.is_awake.swap(true, Ordering::SeqCst) {
                    break;
                }
            }
            #[expect(clippy::disallowed_methods, reason = "this thread is the watch's own")]
            thread::sleep(LOOK_INTERVAL);
        }
    }
}
