//! What each command does, one file a command.

mod audit;
mod classify;
mod completions;
mod datasets;
mod doctor;
mod down;
mod evaluate;
mod finetune;
mod gallery;
mod gather;
mod ingest;
mod jobs;
mod models;
mod names;
mod queue;
mod sort;
mod sources;
mod up;
mod whoami;
mod workers;

use std::time::Duration;

use crate::{
    args::{Command, TypedName},
    exit::Exit,
    failure::Failure,
    session::Session,
};

pub(crate) use completions::answer_shell;

/// How long the search for a similar name may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says on standard error which name may have been meant, if a command failed because a name on its line does not exist.
pub(crate) async fn suggest(session: &Session, failure: &Failure, typed: &[TypedName]) {
    if failure.exit() != Exit::NotFound || session.json() {
        return;
    }
    if let Ok(Some(suggestion)) = tokio::time::timeout(PATIENCE, names::similar(session, typed)).await {
        session.hint(&format!("  {suggestion}"));
    }
}

/// Runs one command.
pub(crate) async fn run(session: &Session, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Up(args) => up::run(session, args).await,
        Command::Down => down::run(session).await,
        Command::Ingest(args) => ingest::run(session, args).await,
        Command::Gather(args) => gather::run(session, args).await,
        Command::Finetune(args) => finetune::run(session, args).await,
        Command::Evaluate(args) => evaluate::run(session, args).await,
        Command::Classify(args) => classify::run(session, args).await,
        Command::Audit(args) => audit::run(session, args).await,
        Command::Sort(args) => sort::run(session, args).await,
        Command::Jobs(args) => jobs::run(session, args).await,
        Command::Queue(args) => queue::run(session, args).await,
        Command::Datasets(args) => datasets::run(session, args).await,
        Command::Models(args) => models::run(session, args).await,
        Command::Workers => workers::run(session).await,
        Command::Whoami => whoami::run(session).await,
        Command::Doctor(args) => doctor::run(session, args).await,
        Command::Completions { shell } => completions::run(shell),
    }
}
