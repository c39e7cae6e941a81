//! `hat`: sort photos from the command line.
//!
//! [`args`] parses, [`commands`] does what was asked for, [`tell`] says what a job has made, [`show`] words it. Imports go that way only.

mod args;
mod commands;
mod exit;
mod failure;
mod follow;
mod gallery;
mod local;
mod output;
mod session;
mod shell;
mod show;
mod sorting;
mod tell;
mod unsubmitted;
mod when;

use std::process::ExitCode;

use crate::{exit::Exit, session::Session};

fn main() -> ExitCode {
    commands::answer_shell();
    let arguments: Vec<_> = std::env::args_os().collect();
    let (line, typed) = match args::parse(arguments.clone()) {
        Ok(parsed) => parsed,
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
            runtime.block_on(commands::suggest(&session, &failure, &typed));
            failure.exit()
        }
    };
    // A command that is done must not wait for a read of a folder that hangs.
    runtime.shutdown_background();
    exit.into()
}

/// Prints what clap has to say, which is help or a refusal. A refusal is printed as JSON if the arguments ask for JSON.
fn refuse_command_line(error: &clap::Error, arguments: &[std::ffi::OsString]) -> ExitCode {
    if !error.use_stderr() || !arguments.iter().any(|argument| argument == "--json") {
        // If printing fails, nobody reads the text.
        let _ = error.print();
        return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
    }
    let text = error.render().to_string();
    eprintln!("{}", failure::to_json(Exit::Usage, "INVALID_ARGUMENT", "", text.trim_start_matches("error: ").trim()));
    Exit::Usage.into()
}
