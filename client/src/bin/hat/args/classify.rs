use std::path::PathBuf;

use clap::{ArgGroup, Args};
use sortinghat_proto::limits::MAX_TOP_K;

use super::{finetune::PrecisionArg, links::FollowLinks, named::Named, tta::Augmentation, waiting::Waiting};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("file").args(["out", "gallery"]).multiple(true)))]
pub(crate) struct Classify {
    /// The model: stamps/1, or stamps for the newest version
    #[arg(add = Named::Model)]
    pub(crate) model: String,
    /// Photos, folders of photos, archives (.zip, .tar, .tar.zst, .tar.gz), tables (.csv, .tsv), or - for a list of paths on standard input
    #[arg(required = true, value_name = "PHOTO|DIR")]
    pub(crate) photos: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) links: FollowLinks,
    /// Write a row or an error for each photo to this .csv, .jsonl or .parquet file
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Give a .csv file a column p_CLASS for each class, with its probability; --top then is the number of classes
    #[arg(long, requires = "out", conflicts_with = "top")]
    pub(crate) class_columns: bool,
    /// Write a page that shows the photos by class to this .html file; it refers to the photos by their paths
    #[arg(long, value_name = "FILE")]
    pub(crate) gallery: Option<PathBuf>,
    /// Overwrite the files of --out and --gallery if they exist
    #[arg(long, requires = "file")]
    pub(crate) force: bool,
    /// How many of the most probable classes to give for each photo
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TOP_K)))]
    pub(crate) top: u32,
    #[command(flatten)]
    pub(crate) augmentation: Augmentation,
    /// The arithmetic of the passes
    #[arg(long, hide_short_help = true, value_enum, default_value_t = PrecisionArg::Auto)]
    pub(crate) precision: PrecisionArg,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}
