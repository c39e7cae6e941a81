//! Waiting for the disk on a thread of an async runtime.
//!
//! To hand the thread's other tasks over first, as `block_in_place` does, and to have another thread send the answer, takes longer than
//! a quick disk takes to sync. So that is only done where the disk was slow the last time. One that turns slow is noticed by a watch,
//! which lets another thread look after the sockets and timers: the one that did may be the one that waits. Only a task that this thread
//! has just woken waits along, once.

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

/// What a quick disk takes at most.
const QUICK: Duration = Duration::from_millis(2);
/// How often the watch looks. Nobody looks after sockets and timers for at most twice this.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Whoever waits for the disk where it is, one at a time.
#[derive(Debug)]
pub(super) struct Blocking {
    was_slow: AtomicBool,
    seen: Arc<Seen>,
    /// Ends the watch when it is dropped.
    runtimes: mpsc::Sender<Handle>,
}

/// What the watch sees.
#[derive(Debug, Default)]
struct Seen {
    /// Counts beginnings and ends: odd while somebody waits.
    steps: AtomicU64,
    /// Whether it looks now and then; it rests while nothing happens.
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

    /// Does what waits for the disk, and lets the other tasks of the caller's runtime go on meanwhile, if it has other threads.
    pub(super) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let Ok(runtime) = Handle::try_current() else { return work() };
        if runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
            return work();
        }
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
            // It does not end before this does.
            let _ = self.runtimes.send(runtime);
        }
        let result = work();
        self.seen.steps.fetch_add(1, Ordering::SeqCst);
        result
    }
}

/// Looks after each runtime that it is woken for, until nothing happens there.
fn watch(seen: &Seen, woken: &mpsc::Receiver<Handle>) {
    while let Ok(runtime) = woken.recv() {
        let mut last = None;
        loop {
            let steps = seen.steps.load(Ordering::SeqCst);
            if last != Some(steps) {
                last = Some(steps);
            } else if steps % 2 == 1 {
                // A thread that has woken for this looks after sockets and timers before it sleeps again.
                runtime.spawn(async {});
            } else {
                seen.is_awake.store(false, Ordering::SeqCst);
                // Whoever has begun meanwhile may not have seen that.
                if seen.steps.load(Ordering::SeqCst) == steps || seen.is_awake.swap(true, Ordering::SeqCst) {
                    break;
                }
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }
}
