//! What each command does, one file a command.

mod classify;
mod completions;
mod datasets;
mod doctor;
mod down;
mod evaluate;
mod finetune;
mod ingest;
mod jobs;
mod models;
mod queue;
mod sources;
mod up;
mod workers;

use crate::{args::Command, exit::Exit, failure::Failure, session::Session};

/// Runs one command.
pub(crate) async fn run(session: &Session, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Up(args) => up::run(session, args).await,
        Command::Down => down::run(session).await,
        Command::Ingest(args) => ingest::run(session, args).await,
        Command::Finetune(args) => finetune::run(session, args).await,
        Command::Evaluate(args) => evaluate::run(session, args).await,
        Command::Classify(args) => classify::run(session, args).await,
        Command::Jobs(args) => jobs::run(session, args).await,
        Command::Queue(args) => queue::run(session, args).await,
        Command::Datasets(args) => datasets::run(session, args).await,
        Command::Models(args) => models::run(session, args).await,
        Command::Workers => workers::run(session).await,
        Command::Doctor(args) => doctor::run(session, args).await,
        Command::Completions { shell } => completions::run(shell),
    }
}
