//! One executor process, seen from the worker: its messages, its lines of output, its end.

use std::{
    env,
    ffi::OsString,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream as StdUnixStream, process::ExitStatusExt as _},
    },
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use nix::{sys::signal::Signal, unistd::Pid};
use prost::Message as _;
use sortinghat_proto::Tenant;
use sortinghat_proto::executor::v1::{
    ExecutorCommand, ExecutorReport, executor_command::Command, executor_report::Report,
};
use tokio::{
    net::{UnixStream, unix::pipe},
    process::{Child, Command as Process},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::{environment, frames, log, scratch::Scratch, usage};
use crate::{
    broker::{Broker, Connection, Grant},
    device,
    objects::channel,
};

/// How long a process whose socket is closed may take to end by itself, and a killed one to be gone.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for the last lines of a process that is gone; a grandchild may hold the pipe open.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(500);

type Socket = Framed<UnixStream, LengthDelimitedCodec>;

/// What starts an executor: the program and its arguments.
#[derive(Debug, Clone)]
pub(crate) struct ExecutorProgram {
    /// The program; `/proc/self/exe` is this very binary, even if the file was replaced meanwhile.
    pub(crate) path: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// In which folder each executor gets a folder of its own for temporary files.
    pub(crate) temporary_dir: PathBuf,
    /// How much it may keep there.
    pub(crate) scratch_bytes: u64,
    /// What serves it objects.
    pub(crate) broker: Arc<Broker>,
}

/// What comes out of an executor.
#[derive(Debug)]
pub(super) enum Output {
    Report(Report),
    Line(String),
    /// The socket is closed, or a message on it is unreadable; the text is the reason in the latter case.
    Closed(Option<String>),
}

/// How a process ended.
#[derive(Debug)]
pub(super) struct End {
    /// For people: "was killed by signal 9 (SIGKILL)".
    pub(super) cause: String,
    /// Lines that were not read before.
    pub(super) last_lines: Vec<String>,
    /// Whether SIGKILL ended it, which the kernel also sends when memory runs out.
    pub(super) was_killed: bool,
}

/// A running executor process; killed when it is dropped.
#[derive(Debug)]
pub(super) struct Executor {
    process: Child,
    objects: Connection,
    /// The tenant that it has served; `None` before its first task.
    tenant: Option<Tenant>,
    scratch: Scratch,
    scratch_bytes: u64,
    commands: SplitSink<Socket, Bytes>,
    reports: mpsc::Receiver<Result<Report, Option<String>>>,
    lines: mpsc::Receiver<String>,
    readers: [JoinHandle<()>; 2],
}

impl Executor {
    /// Starts the process in a process group of its own, so that a Ctrl-C at the terminal reaches the worker alone.
    pub(super) fn spawn(program: &ExecutorProgram) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let (objects, its_objects) = program.broker.connect()?;
        channel::send_bytes(&ours, &[0], Some(its_objects.as_fd()))?;
        ours.set_nonblocking(true)?;
        let (output, printer) = io::pipe()?;
        let in_folder = |error: io::Error| {
            let folder = program.temporary_dir.display();
            io::Error::new(error.kind(), format!("it has no folder for temporary files in {folder}: {error}"))
        };
        let scratch = Scratch::new(&program.temporary_dir).map_err(in_folder)?;
        let process = Process::new(&program.path)
            .arg0("sortinghat-worker")
            .args(&program.arguments)
            .env_clear()
            .envs(environment::allowed(env::vars_os()))
            .env("TMPDIR", scratch.path())
            // CUDA keeps kernels there that it has compiled.
            .env("CUDA_CACHE_PATH", scratch.path())
            .envs(device::library_settings())
            // The worker's own working folder may have been removed.
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(printer.try_clone()?))
            .stderr(Stdio::from(printer))
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (commands, frames) = Framed::new(UnixStream::from_std(ours)?, frames::codec()).split();
        let (report_sender, reports) = mpsc::channel(64);
        let reporter = tokio::spawn(forward_reports(frames, report_sender));
        let (line_sender, lines) = mpsc::channel(64);
        let printed = pipe::Receiver::from_owned_fd(output.into())?;
        let printer = tokio::spawn(log::forward_lines(printed, line_sender));
        let scratch_bytes = program.scratch_bytes;
        let readers = [reporter, printer];
        Ok(Self { process, objects, tenant: None, scratch, scratch_bytes, commands, reports, lines, readers })
    }

    /// Whether it may run a task that is granted this: it has served no other tenant, and nobody at all if the task fetches from the web,
    /// since it may have been taken over by a photo.
    pub(super) fn may_serve(&self, grant: &Grant) -> bool {
        self.tenant.as_ref().is_none_or(|served| served == grant.tenant() && !grant.includes_web())
    }

    /// What it may ask for from now on; nothing if that is `None`.
    pub(super) fn grant(&mut self, grant: Option<Grant>) {
        if let Some(grant) = &grant {
            self.tenant = Some(grant.tenant().clone());
        }
        self.objects.grant(grant);
    }

    /// Waits until it takes more of this machine than it may; returns what that is.
    pub(super) fn excess(&self) -> impl Future<Output = String> + use<> {
        let process = self.process.id().and_then(|id| i32::try_from(id).ok()).map_or(Pid::from_raw(0), Pid::from_raw);
        usage::excess(process, self.scratch.path().to_owned(), self.scratch_bytes)
    }

    pub(super) async fn send(&mut self, command: Command) -> io::Result<()> {
        self.commands.send(ExecutorCommand { command: Some(command) }.encode_to_vec().into()).await
    }

    /// The next output. After [`Output::Closed`] only lines follow. The future may be dropped, and the call repeated.
    pub(super) async fn next(&mut self) -> Output {
        tokio::select! {
            Some(line) = self.lines.recv() => Output::Line(line),
            report = self.reports.recv() => match report {
                Some(Ok(report)) => Output::Report(report),
                Some(Err(reason)) => Output::Closed(reason),
                None => Output::Closed(None),
            },
            reason = self.objects.broken() => Output::Closed(Some(reason)),
        }
    }

    /// The lines that the process has printed until now and that were not read before.
    pub(super) async fn printed(&mut self) -> Vec<String> {
        let mut printed = Vec::new();
        loop {
            let known = printed.len();
            // Lets the task that reads the pipe run, so that it forwards what the kernel has buffered.
            for _ in 0..2 {
                tokio::task::yield_now().await;
                while let Ok(line) = self.lines.try_recv() {
                    printed.push(line);
                }
            }
            if printed.len() == known {
                return printed;
            }
        }
    }

    /// Waits for the process to end by itself, else kills it.
    pub(super) async fn end(mut self) -> End {
        let status = tokio::time::timeout(END_TIMEOUT, self.process.wait()).await;
        match status {
            Ok(status) => self.ended(status).await,
            Err(_) => self.kill().await,
        }
    }

    /// Kills the process and waits until it is gone.
    pub(super) async fn kill(mut self) -> End {
        // This fails only if the process is gone already.
        let _ = self.process.start_kill();
        match tokio::time::timeout(END_TIMEOUT, self.process.wait()).await {
            Ok(status) => self.ended(status).await,
            Err(_) => {
                let cause = "did not end although it was killed".to_owned();
                End { cause, last_lines: Vec::new(), was_killed: false }
            }
        }
    }

    async fn ended(mut self, status: io::Result<ExitStatus>) -> End {
        let mut last_lines = Vec::new();
        let drained = tokio::time::timeout(LAST_LINES_TIMEOUT, async {
            while let Some(line) = self.lines.recv().await {
                last_lines.push(line);
            }
        });
        // After a timeout, the lines that have arrived by then are enough.
        let _ = drained.await;
        let was_killed = status.as_ref().is_ok_and(|status| status.signal() == Some(libc::SIGKILL));
        let cause = status.map_or_else(|error| format!("ended in an unknown way ({error})"), describe);
        End { cause, last_lines, was_killed }
    }
}

/// Forwards each message of the executor, and at last the end: `None` if the socket was closed, else the reason.
async fn forward_reports(mut frames: SplitStream<Socket>, reports: mpsc::Sender<Result<Report, Option<String>>>) {
    let end = loop {
        let report = match frames.next().await {
            Some(Ok(frame)) => match ExecutorReport::decode(frame) {
                Ok(ExecutorReport { report: Some(report) }) => report,
                Ok(ExecutorReport { report: None }) => break Some("it sent an unknown message".to_owned()),
                Err(error) => break Some(format!("it sent an unreadable message: {error}")),
            },
            Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                break Some(format!("it sent an unreadable message: {error}"));
            }
            // A process that is killed may leave half a message.
            Some(Err(_)) | None => break None,
        };
        if reports.send(Ok(report)).await.is_err() {
            return;
        }
    };
    // If nobody listens any more, nobody needs the message.
    let _ = reports.send(Err(end)).await;
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.readers.iter().for_each(JoinHandle::abort);
    }
}

/// How a process ended, for people.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(number)) => {
            let name = Signal::try_from(number).map_or("unknown", Signal::as_str);
            format!("was killed by signal {number} ({name})")
        }
        (None, None) => "ended in an unknown way".to_owned(),
    }
}
