//! The faults of a run, in an order that the seed determines.

use std::{
    ffi::OsStr,
    fmt,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use sortinghat_tests::{Dice, Process};
use tokio::time::Instant;

use crate::{
    Failure, PATIENCE,
    clock::{WallClock, compiler},
    cluster::Writer,
    settings::StoreKind,
};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL to a worker with an executor.
    KillWorker,
    /// SIGKILL to an executor.
    KillExecutor,
    /// A simulated worker vanishes.
    KillSimulated,
    /// SIGKILL to a coordinator while the disk is busy.
    KillCoordinator,
    /// SIGTERM to a worker, and a new one.
    ReplaceWorker,
    /// SIGTERM to a coordinator, and a new one.
    ReplaceCoordinator,
    /// SIGSTOP to a worker for longer than a lease.
    StopWorker,
    /// A simulated worker is silent for longer than a lease, and then sends its old reports.
    StopSimulated,
    /// SIGSTOP to a coordinator for longer than a lease.
    StopCoordinator,
    /// No message passes between workers and coordinators.
    PartitionWorkers,
    /// No message passes between simulated workers and coordinators.
    PartitionSimulated,
    /// No message passes between clients and coordinators.
    PartitionClients,
    /// Messages of simulated workers arrive, but the answers do not.
    HalfOpenSimulated,
    /// Messages of clients arrive, but the answers do not.
    HalfOpenClients,
    /// Every piece of every message is delayed.
    SlowNetwork,
    /// Every connection is reset.
    ResetConnections,
    /// Objects can be read, but not written.
    ReadOnlyObjects,
    /// SIGKILL to Redis while the disk is busy.
    KillRedis,
    /// No message passes between coordinators and Redis.
    PartitionRedis,
    /// The clock of the queue's time is set forward or back: that of Redis while it runs, or that of a coordinator before it is started again,
    /// as a coordinator reads its clock only at its start.
    JumpClock,
    /// The disk of the queue's store is full.
    NoSpace,
    /// The disk of the queue's store fails to sync.
    FailingSync,
}

/// How many cards each fault has in the deck.
const DECK: [(Fault, usize); 22] = [
    (Fault::KillWorker, 2),
    (Fault::KillExecutor, 2),
    (Fault::KillSimulated, 3),
    (Fault::KillCoordinator, 4),
    (Fault::ReplaceWorker, 1),
    (Fault::ReplaceCoordinator, 1),
    (Fault::StopWorker, 1),
    (Fault::StopSimulated, 3),
    (Fault::StopCoordinator, 1),
    (Fault::PartitionWorkers, 1),
    (Fault::PartitionSimulated, 2),
    (Fault::PartitionClients, 1),
    (Fault::HalfOpenSimulated, 1),
    (Fault::HalfOpenClients, 1),
    (Fault::SlowNetwork, 1),
    (Fault::ResetConnections, 2),
    (Fault::ReadOnlyObjects, 1),
    (Fault::KillRedis, 4),
    (Fault::PartitionRedis, 1),
    (Fault::JumpClock, 2),
    (Fault::NoSpace, 1),
    (Fault::FailingSync, 1),
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::KillWorker => "kill -9 of a worker",
            Self::KillExecutor => "kill -9 of an executor",
            Self::KillSimulated => "a simulated worker vanishes",
            Self::KillCoordinator => "kill -9 of a coordinator beside a busy disk",
            Self::ReplaceWorker => "SIGTERM to a worker",
            Self::ReplaceCoordinator => "SIGTERM to a coordinator",
            Self::StopWorker => "SIGSTOP of a worker past its lease",
            Self::StopSimulated => "a simulated worker is silent past its leases",
            Self::StopCoordinator => "SIGSTOP of a coordinator past the leases",
            Self::PartitionWorkers => "partition of the workers",
            Self::PartitionSimulated => "partition of the simulated workers",
            Self::PartitionClients => "partition of the clients",
            Self::HalfOpenSimulated => "simulated workers are heard and do not hear",
            Self::HalfOpenClients => "clients are heard and do not hear",
            Self::SlowNetwork => "a slow network",
            Self::ResetConnections => "a reset of every connection",
            Self::ReadOnlyObjects => "objects cannot be written",
            Self::KillRedis => "kill -9 of Redis beside a busy disk",
            Self::PartitionRedis => "partition of Redis",
            Self::JumpClock => "a jump of the queue's clock",
            Self::NoSpace => "no space left for the queue",
            Self::FailingSync => "the queue's disk fails to sync",
        };
        f.write_str(words)
    }
}

impl Fault {
    /// The faults of a round, in order.
    pub(crate) fn deal(seed: u64, round: u32, count: u32, possible: impl Fn(Self) -> bool) -> Vec<Self> {
        let mut dice = Dice::of(seed, "faults", u64::from(round));
        let mut deck: Vec<Self> = DECK.iter().flat_map(|(fault, times)| vec![*fault; *times]).collect();
        deck.retain(|fault| possible(*fault));
        for place in (1..deck.len()).rev() {
            deck.swap(place, dice.below(place as u64 + 1) as usize);
        }
        deck.into_iter().cycle().take(count as usize).collect()
    }

    /// Whether this fault is possible with this store.
    pub(crate) fn concerns(self, store: StoreKind) -> bool {
        match self {
            Self::KillRedis | Self::PartitionRedis => store == StoreKind::Redis,
            _ => true,
        }
    }

    /// Whether clients that watch a job should notice the fault and resume.
    pub(crate) fn interrupts_clients(self) -> bool {
        matches!(
            self,
            Self::KillCoordinator
                | Self::ReplaceCoordinator
                | Self::StopCoordinator
                | Self::KillRedis
                | Self::PartitionClients
                | Self::HalfOpenClients
                | Self::ResetConnections
        )
    }
}

/// The faults that this machine allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abilities {
    /// Whether mounts are allowed.
    mounts: bool,
    /// Whether processes can be traced, to let their system calls fail.
    traces: bool,
    /// Whether a clock can be compiled.
    clocks: bool,
}

impl Abilities {
    /// Tests what this machine allows. If this runs as root, later mounts are visible only to this process and its children.
    pub(crate) fn find() -> Self {
        let mounts = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_ok()
            && mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).is_ok();
        let probe = ["-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"];
        let strace = Command::new("strace").args(probe).output();
        let traces = mounts && strace.is_ok_and(|output| output.status.success());
        let clocks = compiler().arg("--version").output().is_ok_and(|output| output.status.success());
        Self { mounts, traces, clocks }
    }

    pub(crate) fn to_cause(self, fault: Fault) -> bool {
        match fault {
            Fault::ReadOnlyObjects => self.mounts,
            Fault::NoSpace | Fault::FailingSync => self.traces,
            Fault::JumpClock => self.clocks,
            _ => true,
        }
    }

    /// Prints which faults are left out on this machine.
    pub(crate) fn say_what_is_left_out(self) {
        for (fault, _) in DECK.iter().filter(|(fault, _)| !self.to_cause(*fault)) {
            println!("left out here: {fault} (needs root; strace for system calls that fail; cc for a clock)");
        }
    }

    /// A clock that can be set, if this machine allows one.
    pub(crate) fn clock(self, folder: &Path) -> Result<Option<WallClock>, Failure> {
        self.clocks.then(|| WallClock::build(folder)).transpose()
    }

    /// Removes what [`prepare`](Self::prepare) has created.
    pub(crate) fn clean_up(self, objects: &Path) -> Result<(), Failure> {
        if self.mounts {
            umount2(&read_only_view(objects), MntFlags::MNT_DETACH)?;
        }
        Ok(())
    }

    /// Creates a read-only view of the folder beside it. No process opens files through this view: a mount with a file that is open for
    /// writing could not become read-only.
    pub(crate) fn prepare(self, objects: &Path) -> Result<(), Failure> {
        if self.mounts {
            let view = read_only_view(objects);
            std::fs::create_dir_all(&view)?;
            mount(Some(objects), &view, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(None::<&str>, &view, None::<&str>, flags, None::<&str>)?;
        }
        Ok(())
    }
}

fn read_only_view(folder: &Path) -> PathBuf {
    folder.with_added_extension("read-only")
}

/// Covers a folder that [`Abilities::prepare`] was called for with its read-only view.
pub(crate) fn forbid_writing(folder: &Path) -> Result<(), Failure> {
    Ok(mount(Some(&read_only_view(folder)), folder, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// Removes the cover again, even while processes read through it.
pub(crate) fn allow_writing(folder: &Path) -> Result<(), Failure> {
    Ok(umount2(folder, MntFlags::MNT_DETACH)?)
}

/// Lets system calls of a process fail until this is dropped.
pub(crate) struct Sabotage(Process);

impl Sabotage {
    /// `calls` and `error` are named as the system names them, such as "fsync,fdatasync" and "EIO".
    pub(crate) fn start(writer: &Writer, calls: &str, error: &str, log: &Path) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-p", &writer.pid.to_string()]);
        command.args(writer.files.iter().flat_map(|file| [OsStr::new("-P"), file.as_os_str()]));
        command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:error={error}")]);
        Self(Process::start(&mut command, log))
    }
}

impl Drop for Sabotage {
    fn drop(&mut self) {
        // Detaches from the traced process. If strace were killed, it might leave the process stopped.
        self.0.signal(Signal::SIGTERM);
        let asked = Instant::now();
        while self.0.ended().is_none() {
            if asked.elapsed() > PATIENCE {
                println!("  strace does not let go of its process and is killed");
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "strace is left within a moment")]
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Keeps the disk busy until this is dropped, by writing and syncing large files.
pub(crate) struct BusyDisk {
    stop: Arc<AtomicBool>,
    writer: Option<JoinHandle<()>>,
}

impl BusyDisk {
    pub(crate) fn start(folder: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, path) = (stop.clone(), folder.join("ballast"));
        Self { stop, writer: Some(std::thread::spawn(move || write_until(&stopped, &path))) }
    }
}

impl Drop for BusyDisk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.writer.take().map(JoinHandle::join).expect("it was started").expect("it does not panic");
    }
}

fn write_until(stop: &AtomicBool, path: &PathBuf) {
    let block = vec![0x5a; 4 << 20];
    while !stop.load(Ordering::Relaxed) {
        let written = File::create(path).and_then(|mut file| {
            (0..8).try_for_each(|_| file.write_all(&block))?;
            file.sync_all()
        });
        if written.is_err() {
            // A full disk is busy enough.
            #[expect(clippy::disallowed_methods, reason = "this thread has no other work")]
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    // The file has no other use.
    let _ = std::fs::remove_file(path);
}
