use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sortinghat_proto::layout::LayoutChoice;

use super::{links::FollowLinks, waiting::Waiting};

#[derive(Debug, Args)]
pub(crate) struct Ingest {
    /// The dataset's name, of a-z, 0-9, '-' and '_'; its versions are counted from 1
    pub(crate) name: String,
    /// A folder that holds a folder per class, or train/ and valid/ with a folder per class each; an archive of such a folder (.zip,
    /// .tar, .tar.zst, .tar.gz); a table with the columns path, label and perhaps split (.csv, .tsv); or - for a list of paths on
    /// standard input, such as CLASS/1.jpg
    pub(crate) dir: PathBuf,
    /// How to read the folder, if it can be read in two ways
    #[arg(long, value_enum, value_name = "LAYOUT")]
    pub(crate) layout: Option<LayoutArg>,
    #[command(flatten)]
    pub(crate) links: FollowLinks,
    /// Share of each class that is held out, in percent, 1 to 50 [default: 20]
    #[arg(long, value_name = "N", conflicts_with = "folds", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(crate) valid_percent: Option<u32>,
    /// Number of cross-validation folds, 2 to 20, instead of one split
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=20))]
    pub(crate) folds: Option<u32>,
    /// Seed of the split
    #[arg(long, hide_short_help = true, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Make the dataset even if more than half of the photos cannot be read or decoded
    #[arg(long, hide_short_help = true)]
    pub(crate) allow_failures: bool,
    /// Short side, in pixels, of the lossless copies that training reads, 64 to 4096; smaller photos are not enlarged [default: 512]
    #[arg(long, hide_short_help = true, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(64..=4096))]
    pub(crate) short_side: Option<u32>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayoutArg {
    // Comments and no help, because help of values would make the page of this command twice as long.
    // Each folder is a class, whatever it is called.
    Classes,
    // train/ (or training/) and val/ (or valid/, validation/, test/) hold a folder per class each.
    Splits,
}

impl Ingest {
    /// What the person says of the layout.
    pub(crate) fn layout(&self) -> LayoutChoice {
        match self.layout {
            None => LayoutChoice::Auto,
            Some(LayoutArg::Classes) => LayoutChoice::Classes,
            Some(LayoutArg::Splits) => LayoutChoice::Splits,
        }
    }
}
