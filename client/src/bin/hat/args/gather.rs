use std::path::PathBuf;

use clap::Args;
use sortinghat_proto::{Licence, limits::MAX_GATHERED_PER_CLASS};

use super::waiting::Waiting;

#[derive(Debug, Args)]
pub(crate) struct Gather {
    /// The dataset's name, of a-z, 0-9, '-' and '_'. If it exists, the new version has the photos of the newest one as well
    pub(crate) name: String,
    /// The classes, each with what is searched for, if that is not its name: "Hermione Granger" or "Hermione Granger=hermione granger
    /// film"
    #[arg(value_name = "CLASS[=QUERY]", required_unless_present = "urls", conflicts_with = "urls")]
    pub(crate) classes: Vec<String>,
    /// A table (.csv, .tsv) of URLs instead, with the columns class and url, and perhaps source_page, title, author, licence and
    /// licence_url
    #[arg(long, value_name = "FILE")]
    pub(crate) urls: Option<PathBuf>,
    /// How many photos each class shall have [default: 100]
    #[arg(long, value_name = "N", conflicts_with = "urls", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_GATHERED_PER_CLASS)))]
    pub(crate) per_class: Option<u32>,
    /// Who is asked for photos: openverse, commons, or one that the worker has a file for [default: openverse]
    #[arg(long, value_name = "NAME", conflicts_with = "urls")]
    pub(crate) provider: Option<String>,
    /// Which photos: any; free, which may be changed and used commercially; by, which ask for no more than their author's name [default:
    /// any]
    #[arg(long, value_name = "LICENCE", conflicts_with = "urls")]
    pub(crate) licence: Option<Licence>,
    /// Say what would be asked for, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Begin anew: the new version has no photo of an older one
    #[arg(long)]
    pub(crate) anew: bool,
    /// Fetch over http as well, which anybody on the way can read and change
    #[arg(long, hide_short_help = true)]
    pub(crate) allow_http: bool,
    /// Share of each class that is held out, in percent, 1 to 50 [default: 20]
    #[arg(long, hide_short_help = true, value_name = "N", conflicts_with = "folds", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(crate) valid_percent: Option<u32>,
    /// Number of cross-validation folds, 2 to 20, instead of one split
    #[arg(long, hide_short_help = true, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=20))]
    pub(crate) folds: Option<u32>,
    /// Seed of the split
    #[arg(long, hide_short_help = true, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Make the dataset even if more than half of the photos cannot be decoded
    #[arg(long, hide_short_help = true)]
    pub(crate) allow_failures: bool,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}
