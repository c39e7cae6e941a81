use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Queue {
    #[command(subcommand)]
    pub(crate) command: Option<QueueCommand>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum QueueCommand {
    /// Show how many jobs are in each state, and how long the oldest has waited
    Show,
    /// Start no more jobs; jobs that run already go on
    Pause,
    /// Start jobs again
    Resume,
}
