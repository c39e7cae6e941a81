use std::path::PathBuf;

use clap::Args;
use sortinghat_proto::AuditSpec;

use super::{
    finetune::{PrecisionArg, backbones},
    named::Named,
    waiting::Waiting,
};

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// The dataset: stamps@1, or stamps for the newest version
    #[arg(add = Named::Dataset)]
    pub(crate) dataset: String,
    /// The network that sees the photos
    #[arg(long, default_value = "efficientnet_lite0", value_parser = backbones())]
    pub(crate) backbone: String,
    /// Pretrained weights: a safetensors file, none, or hub:OWNER/REPOSITORY [default: those of the backbone]
    #[arg(long, hide_short_help = true, value_name = "SOURCE")]
    pub(crate) weights: Option<String>,
    /// Side of the squares that the network sees, in pixels
    #[arg(long, hide_short_help = true, value_name = "PIXELS", default_value_t = AuditSpec::DEFAULT_IMAGE_SIZE_PX, value_parser = clap::value_parser!(u32).range(32..=1024))]
    pub(crate) size: u32,
    /// Seed of the folds, and of the random sample
    #[arg(long, hide_short_help = true, default_value_t = 0)]
    pub(crate) seed: u64,
    /// The arithmetic of the passes
    #[arg(long, hide_short_help = true, value_enum, default_value_t = PrecisionArg::Auto)]
    pub(crate) precision: PrecisionArg,
    /// Where to save the page on which you decide about labels, an .html file [default: DATASET-audit-report.html in the current folder,
    /// or DATASET-audit-report-2.html if that exists, and so on]
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Overwrite the page if it exists
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}
