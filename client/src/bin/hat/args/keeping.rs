//! The options of every command that submits a job: how the job is labelled, and how long it is kept.

use clap::Args;
use sortinghat_proto::{Labels, Retention};

use crate::{failure::Failure, when::Span};

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How the job is kept")]
pub(crate) struct Keeping {
    /// A label of your own, by which `hat jobs --label` finds the job; may be repeated
    #[arg(long = "label", hide_short_help = true, value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<Labels>,
    /// Keep the job, its photos and its results for so long after its end: 12h, 7days [default: --retention of the server]
    #[arg(long, hide_short_help = true, value_name = "TIME", conflicts_with = "keep")]
    pub(crate) keep_for: Option<Span>,
    /// Keep the job, its photos and its results until `hat jobs rm`
    #[arg(long, hide_short_help = true)]
    pub(crate) keep: bool,
}

impl Keeping {
    /// All labels.
    ///
    /// # Errors
    /// If a name has two values, or if there are too many labels.
    pub(crate) fn labels(&self) -> Result<Labels, Failure> {
        all(&self.labels)
    }

    /// How long the job is kept.
    ///
    /// # Errors
    /// If the time is too long.
    pub(crate) fn retention(&self) -> Result<Retention, Failure> {
        let keep_for_ms = self.keep_for.map_or(0, |span| span.0);
        Ok(Retention::from_wire(keep_for_ms, self.keep)?)
    }
}

/// Labels that were given one by one.
///
/// # Errors
/// As [`Keeping::labels`].
pub(super) fn all(labels: &[Labels]) -> Result<Labels, Failure> {
    Ok(labels.iter().cloned().try_fold(Labels::default(), Labels::with)?)
}
