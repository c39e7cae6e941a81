//! The worker's binary: parses the command line and hands over.

use std::{
    env,
    io::{IsTerminal as _, Write as _, stderr},
    num::NonZeroUsize,
    process::ExitCode,
};

use clap::Parser as _;
use nix::sys::stat::{Mode, umask};
use sortinghat_proto::secrets;
use sortinghat_worker::{
    config::{Command, CommandLine, ComputeArgs, RunArgs},
    device, executor, session,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match CommandLine::try_parse().unwrap_or_else(|error| secrets::hide_in(error).exit()).command {
        Command::Run(mut args) => {
            args.make_paths_absolute();
            leave_working_folder();
            // The objects, the cache and all other files that are written are for this user alone.
            umask(Mode::S_IRWXG | Mode::S_IRWXO);
            // A line that a full disk does not take is lost. Telling so on the same standard error would panic.
            let log = tracing_subscriber::fmt().with_writer(stderr).log_internal_errors(false);
            log.with_env_filter(filter("info")).with_ansi(stderr().is_terminal()).init();
            exit_code(run(&args))
        }
        Command::Devices(args) => {
            leave_working_folder();
            exit_code(devices(&args))
        }
        Command::Executor(args) => {
            // The worker adds the time, and stores the lines as they are. They are part of the history of a job, in which the retries of
            // its requests to the object store say nothing to its user.
            let log = tracing_subscriber::fmt().with_writer(stderr).log_internal_errors(false);
            log.with_env_filter(filter("info,object_store=off")).without_time().with_ansi(false).init();
            exit_code(executor::run(&args))
        }
    }
}

/// The working folder may be removed while the process runs. Then libraries that look for their files in it do not find them, and no
/// further process starts.
fn leave_working_folder() {
    // If this fails, the process stays in the folder in which it was started.
    let _ = env::set_current_dir("/");
}

fn filter(usual: &str) -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual))
}

fn exit_code<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If nobody can be told, the exit code still says so.
            let _ = writeln!(stderr(), "sortinghat-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the worker on one thread, which is enough: the worker computes nothing.
fn run(args: &RunArgs) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let requested = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            requested.cancel();
            // Whoever asks a second time does not want to wait. Executors die with this process.
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            std::process::exit(130);
        });
        session::run(args, shutdown).await.map_err(Into::into)
    });
    // A folder of objects that hangs may still hold a thread.
    runtime.shutdown_background();
    ended
}

fn devices(args: &ComputeArgs) -> Result<(), device::DeviceError> {
    let compute = device::choose(args.device, args.threads.map(NonZeroUsize::get))?;
    println!("{}", compute.reason);
    Ok(())
}
