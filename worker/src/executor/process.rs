//! The executor process itself. It takes a task, runs it on the main thread, reports how the task ended, and takes the next one.

use std::{
    env, io,
    num::NonZeroUsize,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, Signal, raise},
    },
    unistd::dup2_stdin,
};
use sortinghat_proto::{
    ByteCount,
    executor::v1::{ExecutorCommand, ExecutorReport, Ready, executor_command::Command, executor_report::Report},
    v1,
};

use super::{
    frames,
    sandbox::{self, SandboxError, Sockets},
};
use crate::{
    aten,
    config::{ExecutorArgs, SandboxChoice},
    device::{self, DeviceError},
    jobs::{self, WarmModel},
    objects::{TenantObjects, channel},
    task::{Done, JobContext, JobError, Machine, StopSignal, Task, outcome_of},
};

/// How long an idle executor keeps freed memory: if tasks follow each other, the next one needs the memory again.
const KEEP_MEMORY: Duration = Duration::from_secs(5);

/// Why an executor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It cannot be confined.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The executor was not started by a worker, or the machine lacks a resource.
    #[error("failed to {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

/// A task and what stops it.
struct Start {
    assignment: v1::Assignment,
    stop: Arc<StopSignal>,
}

/// Serves the worker on the other side of standard input until it goes away.
///
/// # Errors
/// [`ExecutorError`] if it cannot start; then the worker reads the reason on standard error.
pub fn run(args: &ExecutorArgs) -> Result<(), ExecutorError> {
    // This must come before the first thread and the first allocation of libtorch.
    device::keep_freed_memory();
    let failed = |action| move |source| ExecutorError::System { action, source };
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from).map_err(failed("be bound to the worker"))?;
    leave_termination_to_the_worker().map_err(io::Error::from).map_err(failed("block signals"))?;
    let (socket, objects) = take_sockets().map_err(failed("take the worker's sockets from standard input"))?;
    let sandbox = confine(args, &objects)?;
    let machine = machine(args, objects)?;
    if sandbox.sockets == Sockets::Local {
        device::initialise(machine.compute.device)
            .map_err(|error| failed("initialise the GPU")(io::Error::other(error)))?;
        sandbox::close_sockets()?;
    }
    let (reports, outbox) = mpsc::channel();
    let (starts, inbox) = mpsc::channel();
    let reader = socket.try_clone().map_err(failed("duplicate the worker's socket"))?;
    thread::spawn(move || forward_commands(reader, &starts));
    thread::spawn(move || send_reports(socket, &outbox));
    // A closed channel means that the process is ending.
    let _ = reports.send(ExecutorReport { report: Some(Report::Ready(ready(&machine, sandbox))) });
    let mut model = WarmModel::default();
    while let Some(start) = next_task(&inbox, &machine) {
        let outcome = run_task(start, &machine, &reports, &mut model);
        let _ = reports.send(ExecutorReport { report: Some(Report::Finished(outcome)) });
    }
    Ok(())
}

/// Waits for a task. If none comes for a while, returns the memory of the last one, which may be gigabytes, to the system.
fn next_task(inbox: &mpsc::Receiver<Start>, machine: &Machine) -> Option<Start> {
    match inbox.recv_timeout(KEEP_MEMORY) {
        Err(RecvTimeoutError::Timeout) => {
            device::give_memory_back(machine.compute.device);
            inbox.recv().ok()
        }
        next => next.ok(),
    }
}

/// Blocks the signals that ask a process to end. A service manager that stops a worker signals every process of the worker, but the
/// executor must live on to store a checkpoint: its worker says when to stop. Threads that are started later inherit the mask.
fn leave_termination_to_the_worker() -> Result<(), Errno> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()
}

/// Takes the socket that the worker has passed as standard input, and the one for objects that comes with its first byte. Standard input
/// becomes empty then, so that no library that reads it takes messages away.
///
/// # Errors
/// [`io::Error`] if standard input is no socket of a worker.
pub fn take_sockets() -> io::Result<(UnixStream, OwnedFd)> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Anything but a connected socket is refused here.
    socket.peer_addr()?;
    let first = channel::receive_bytes(&socket, &mut [0])?;
    let objects = first.and_then(|(_, objects)| objects);
    let objects = objects.ok_or_else(|| io::Error::other("no second socket comes with the first byte"))?;
    dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok((socket, objects))
}

/// How this process is confined.
struct Sandbox {
    in_words: String,
    is_complete: bool,
    /// Which sockets it may open until the device is initialised.
    sockets: Sockets,
}

/// Confines this process as it was told to. What it has open by now, up to the socket for objects, it keeps.
fn confine(args: &ExecutorArgs, objects: &OwnedFd) -> Result<Sandbox, ExecutorError> {
    if args.sandbox == SandboxChoice::Off {
        return Ok(Sandbox { in_words: sandbox::OFF.to_owned(), is_complete: false, sockets: Sockets::None });
    }
    let sockets = if device::may_be_cuda(args.compute.device) { Sockets::Local } else { Sockets::None };
    let confinement = sandbox::confine(&env::temp_dir(), sockets, objects.as_raw_fd() + 1)?;
    Ok(Sandbox { in_words: confinement.in_words(), is_complete: confinement.missing.is_empty(), sockets })
}

fn machine(args: &ExecutorArgs, objects: OwnedFd) -> Result<Arc<Machine>, ExecutorError> {
    if let Some(ByteCount(bytes)) = args.memory_limit {
        aten::limit_host_memory(usize::try_from(bytes).unwrap_or(usize::MAX))
            .map_err(io::Error::other)
            .map_err(|source| ExecutorError::System { action: "bound its memory", source })?;
    }
    let compute = device::choose(args.compute.device, args.compute.threads.map(NonZeroUsize::get))?;
    let failed = |action| move |source| ExecutorError::System { action, source };
    rayon::ThreadPoolBuilder::new()
        .num_threads(compute.threads)
        .build_global()
        .map_err(io::Error::other)
        .map_err(failed("start the threads that decode"))?;
    let objects = TenantObjects::over(objects).map_err(failed("start the thread that takes objects"))?;
    let checkpoint_interval = args.checkpoint_interval.into();
    Ok(Arc::new(Machine { compute, objects, temporary_dir: env::temp_dir(), checkpoint_interval }))
}

fn ready(machine: &Machine, sandbox: Sandbox) -> Ready {
    Ready {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: machine.compute.device_name(),
        device_reason: machine.compute.reason.clone(),
        threads: u32::try_from(machine.compute.threads).unwrap_or(u32::MAX),
        device_memory_bytes: device::memory_bytes(machine.compute.device).unwrap_or(0),
        sandbox: sandbox.in_words,
        is_fully_confined: sandbox.is_complete,
    }
}

/// Reads commands on a thread of its own, so that they reach a task that is running.
fn forward_commands(mut socket: UnixStream, starts: &mpsc::Sender<Start>) {
    let mut current = Arc::<StopSignal>::default();
    loop {
        let command = match frames::read::<ExecutorCommand>(&mut socket) {
            Ok(Some(ExecutorCommand { command: Some(command) })) => command,
            // An unknown command can come only from a newer worker, and that would not have started this executor.
            Ok(Some(ExecutorCommand { command: None })) => continue,
            Ok(None) => end(),
            Err(error) => {
                tracing::error!(%error, "a command of the worker could not be read");
                end();
            }
        };
        match command {
            Command::Start(assignment) => {
                current = Arc::default();
                if starts.send(Start { assignment, stop: current.clone() }).is_err() {
                    end();
                }
            }
            Command::Cancel(_) => current.cancel(),
            Command::HandBack(_) => current.hand_back(),
        }
    }
}

fn send_reports(mut socket: UnixStream, outbox: &mpsc::Receiver<ExecutorReport>) {
    for report in outbox {
        if let Err(error) = frames::write(&mut socket, &report) {
            tracing::error!(%error, "a report could not be sent to the worker");
            end();
        }
    }
}

/// Ends the process at once, whatever its main thread is doing. An orderly exit would run libtorch's destructors while the main thread
/// still uses libtorch.
fn end() -> ! {
    // SIGKILL cannot be refused; the loop is for the compiler.
    loop {
        let _: Result<(), Errno> = raise(Signal::SIGKILL);
    }
}

fn run_task(
    start: Start,
    machine: &Arc<Machine>,
    reports: &mpsc::Sender<ExecutorReport>,
    model: &mut WarmModel,
) -> v1::TaskOutcome {
    let result = Task::try_from(start.assignment).map_err(JobError::from).and_then(|task| {
        tracing::info!(task = %task.id, kind = %task.spec.kind(), attempt = task.attempt, "task started");
        let context = JobContext::new(task, machine.clone(), reports.clone(), start.stop);
        contain_panic(|| jobs::run(&context, model))
    });
    match &result {
        Ok(Done::Made(output)) => tracing::info!(summary = output.summary, "task succeeded"),
        Ok(Done::Counted { items }) => tracing::info!(items, "the job is to be divided"),
        Err(error) => {
            // The network is not trusted after a task has failed.
            model.release();
            tracing::info!(%error, "task ended without a result");
        }
    }
    outcome_of(result)
}

/// A panic (tch's plain methods panic with libtorch's message) fails the task, not the process.
fn contain_panic(job: impl FnOnce() -> Result<Done, JobError>) -> Result<Done, JobError> {
    panic::catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|payload| {
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without a message");
        Err(JobError::of_panic(message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_libtorch_becomes_a_failure_that_says_what_happened() {
        let result =
            contain_panic(|| panic!("called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory\")"));
        assert!(matches!(result, Err(JobError::OutOfMemory { .. })), "{result:?}");
        let result = contain_panic(|| panic!("index out of bounds"));
        assert!(matches!(&result, Err(JobError::Internal(message)) if message.contains("index")), "{result:?}");
    }
}
