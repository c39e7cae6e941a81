//! The worker's binary: parses the command line and hands over.

use std::{io::IsTerminal as _, num::NonZeroUsize, process::ExitCode};

use clap::Parser as _;
use sortinghat_worker::{
    config::{Command, CommandLine, ComputeArgs, RunArgs},
    device, executor, session,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    match CommandLine::parse().command {
        Command::Run(args) => {
            let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter());
            log.with_ansi(std::io::stderr().is_terminal()).init();
            exit_code(run(&args))
        }
        Command::Devices(args) => exit_code(devices(&args)),
        Command::Executor(args) => {
            // The worker adds the time, and stores the lines as they are.
            let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter());
            log.without_time().with_ansi(false).init();
            exit_code(executor::run(&args))
        }
    }
}

fn filter() -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"))
}

fn exit_code<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sortinghat-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the worker on one thread, which is enough: the worker computes nothing.
fn run(args: &RunArgs) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
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
    })
}

fn devices(args: &ComputeArgs) -> Result<(), device::DeviceError> {
    let compute = device::choose(args.device, args.threads.map(NonZeroUsize::get))?;
    println!("{}", compute.reason);
    Ok(())
}
