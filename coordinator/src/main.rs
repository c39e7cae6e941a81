//! `sortinghat-coordinator`.

use std::{
    env,
    fmt::Display,
    io::{Write as _, stderr},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use mimalloc::MiMalloc;
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    stat::{Mode, umask},
};
use sortinghat_coordinator::{
    app::{App, AppError, logs, signals},
    config::{Config, Settings},
};
use sortinghat_proto::secrets;

/// Serves a quarter more calls of ten jobs each a second than the system's allocator, whose threads share their heaps.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Runs the coordinator: the durable queue, the artifact registry and the gRPC API.
///
/// A setting is taken from its flag, or else from its environment variable, or else from the configuration file.
#[derive(Debug, Parser)]
#[command(name = "sortinghat-coordinator", version)]
struct CommandLine {
    /// Read settings from this TOML file. Its keys are the names of the flags, with underscores instead of dashes
    #[arg(long, env = "SORTINGHAT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print all settings that would be used, in the form of a configuration file, and exit
    #[arg(long)]
    dump_config: bool,
    #[command(flatten)]
    settings: Settings,
}

/// The exit code of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Exit {
    /// The coordinator was asked to stop, and stopped. Calls that outlived the grace period were cut off.
    Stopped = 0,
    /// The coordinator could not start or go on. Standard error says why.
    Failed = 1,
    /// A flag, a variable or the configuration file is wrong. This is also the code that clap uses.
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
    let command_line = CommandLine::try_parse().unwrap_or_else(|error| secrets::hide_in(error).exit());
    let config = match Config::load(command_line.settings, command_line.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            say(&error);
            return Exit::Misconfigured.into();
        }
    };
    if command_line.dump_config {
        print!("{}", config.to_toml());
        return Exit::Stopped.into();
    }
    logs::init(config.log_format, &config.log_filter);
    // The paths of the configuration are absolute, and the folder in which the process was started may go away. An error means that the
    // process stays there.
    let _ = env::set_current_dir("/");
    // The queue, the objects and all other files that are written are for this user alone.
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    // Each of many callers may have a thousand connections, and most systems allow 1,024 descriptors until a process asks for more. An error
    // means that it has to do with those.
    let _ = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the system starts threads");
    match runtime.block_on(run(config)) {
        Ok(()) => Exit::Stopped.into(),
        Err(error) => {
            say(&error);
            match error {
                AppError::AlreadyRunning { .. } => Exit::AlreadyRunning.into(),
                _ => Exit::Failed.into(),
            }
        }
    }
}

/// Says why the process ends. If nobody can be told, the exit code still says so.
fn say(error: impl Display) {
    let _ = writeln!(stderr(), "error: {error}");
}

async fn run(config: Config) -> Result<(), AppError> {
    let stop = signals::stop_requested().expect("the system accepts signal handlers");
    App::build(config, None).await?.serve(stop).await.map(|_drained| ())
}
