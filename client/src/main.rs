//! `hat`: sort photos from the command line.

mod args;
mod commands;
mod exit;
mod failure;
mod follow;
mod local;
mod session;
mod show;
mod when;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{args::CommandLine, exit::Exit, session::Session};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let line = match CommandLine::try_parse_from(&arguments) {
        Ok(line) => line,
        Err(error) => return refuse_command_line(&error, &arguments),
    };
    let session = Session::new(line.global);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system starts threads");
    let exit = match runtime.block_on(commands::run(&session, line.command)) {
        Ok(exit) => exit,
        Err(failure) => {
            session.report(&failure);
            failure.exit()
        }
    };
    // A read of a folder that hangs must not keep a command that is done.
    runtime.shutdown_background();
    exit.into()
}

/// What clap says, which is help or a refusal; the latter as JSON where that was asked for.
fn refuse_command_line(error: &clap::Error, arguments: &[std::ffi::OsString]) -> ExitCode {
    if !error.use_stderr() || !arguments.iter().any(|argument| argument == "--json") {
        // Nobody reads it if this fails.
        let _ = error.print();
        return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
    }
    let text = error.render().to_string();
    eprintln!("{}", failure::to_json(Exit::Usage, "INVALID_ARGUMENT", "", text.trim_start_matches("error: ").trim()));
    Exit::Usage.into()
}
