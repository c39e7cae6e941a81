use std::path::PathBuf;

use clap::Args;

use super::{finetune::PrecisionArg, links::FollowLinks, named::Named, tta::Augmentation, waiting::Waiting};

#[derive(Debug, Args)]
pub(crate) struct Evaluate {
    /// The model: stamps/1, or stamps for the newest version
    #[arg(add = Named::Model)]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) augmentation: Augmentation,
    /// Measure on this folder (one folder per class), an archive of one, a table (.csv), a list of paths (-), or on the held-out photos of this dataset
    /// [default: the photos that training held out]
    #[arg(long, value_name = "DIR|DATASET", add = Named::DatasetOrFolder)]
    pub(crate) on: Option<String>,
    #[command(flatten)]
    pub(crate) links: FollowLinks,
    /// The file of decisions that the report saves: which labels to keep, exclude or relabel
    #[arg(long, value_name = "FILE")]
    pub(crate) decisions: Option<PathBuf>,
    /// The arithmetic of the passes
    #[arg(long, hide_short_help = true, value_enum, default_value_t = PrecisionArg::Auto)]
    pub(crate) precision: PrecisionArg,
    /// Where to save the report, an .html file [default: MODEL-report.html in the current folder, or MODEL-report-2.html if that
    /// exists, and so on]
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Overwrite the report if it exists
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}
