//! `sortinghat-coordinator`.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use mimalloc::MiMalloc;
use sortinghat_coordinator::{
    app::{App, AppError, logs, signals},
    config::{Config, Settings},
};

/// Takes a quarter more calls a second that bring ten jobs each than the system's does, whose threads share its heaps.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The durable queue, the artifact registry and the gRPC API.
///
/// Settings come from flags, else from the environment, else from the configuration file.
#[derive(Debug, Parser)]
#[command(name = "sortinghat-coordinator", version)]
struct CommandLine {
    /// Configuration file (TOML); its keys are the flags with underscores
    #[arg(long, env = "SORTINGHAT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the configuration that would be used, as a configuration file, and exit
    #[arg(long)]
    dump_config: bool,
    #[command(flatten)]
    settings: Settings,
}

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Exit {
    /// Asked to stop, and stopped; calls that outlived the grace period were cut off.
    Stopped = 0,
    /// It could not start or go on; standard error says why.
    Failed = 1,
    /// A flag, a variable or the configuration file is wrong. Also clap's code.
    Misconfigured = 2,
    /// Another coordinator uses the data folder.
    AlreadyRunning = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    let config = match Config::load(command_line.settings, command_line.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return Exit::Misconfigured.into();
        }
    };
    if command_line.dump_config {
        print!("{}", config.to_toml());
        return Exit::Stopped.into();
    }
    logs::init(config.log_format, &config.log_filter);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system starts threads");
    match runtime.block_on(run(config)) {
        Ok(()) => Exit::Stopped.into(),
        Err(error) => {
            eprintln!("error: {error}");
            match error {
                AppError::AlreadyRunning { .. } => Exit::AlreadyRunning.into(),
                _ => Exit::Failed.into(),
            }
        }
    }
}

async fn run(config: Config) -> Result<(), AppError> {
    let stop = signals::stop_requested().expect("the system takes signal handlers");
    App::build(config, None).await?.serve(stop).await.map(|_drained| ())
}
