use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Queue {
    #[command(subcommand)]
    pub(crate) command: Option<QueueCommand>,
    /// The tenant whose queue it is; only an operator may name another than its own
    #[arg(long, global = true, value_name = "TENANT")]
    pub(crate) tenant: Option<String>,
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
