use std::path::PathBuf;

use clap::Args;

use super::{finetune::PrecisionArg, links::FollowLinks, named::Named, tta::Augmentation, waiting::Waiting};
use crate::{failure::Failure, sorting::Mode};

/// The options that undoing would ignore.
const OF_SORTING: [&str; 11] = [
    "model",
    "into",
    "mode",
    "min_probability",
    "dry_run",
    "gallery",
    "job",
    "FollowLinks",
    "Augmentation",
    "precision",
    "Waiting",
];

#[derive(Debug, Args)]
#[command(
    override_usage = "hat sort [OPTIONS] <MODEL> <DIR> --into <OUT>\n       hat sort [OPTIONS] --job <ID> <DIR> --into <OUT>\n       \
                           hat sort --undo <OUT>"
)]
pub(crate) struct Sort {
    /// The model: stamps/1, or stamps for the newest version
    #[arg(add = Named::ModelOrFolder, required_unless_present = "undo")]
    model: Option<String>,
    /// The folder of photos
    dir: Option<PathBuf>,
    /// Put each photo into OUT/CLASS; OUT may lie in DIR, and is made if its parent exists
    #[arg(long, value_name = "OUT", required_unless_present = "undo")]
    into: Option<PathBuf>,
    /// How photos get there; undecodable files and photos that have changed meanwhile stay where they are
    #[arg(long, value_enum, default_value_t = Mode::Copy)]
    mode: Mode,
    /// Put photos that are less probable than this into OUT/unsure, 0 to 1
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    min_probability: f32,
    /// Classify the photos and print what would be done with each, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// Also write a page that shows the photos by class to this .html file; it refers to the photos by their paths
    #[arg(long, value_name = "FILE")]
    gallery: Option<PathBuf>,
    /// Overwrite the file of --gallery if it exists
    #[arg(long, requires = "gallery")]
    force: bool,
    /// Sort by the predictions of this job, which has classified DIR, instead of classifying it now
    #[arg(long, value_name = "ID", add = Named::Job, conflicts_with_all = ["FollowLinks", "Augmentation", "precision", "Waiting"])]
    job: Option<String>,
    /// Take back everything that was sorted into OUT, except what has changed since
    #[arg(long, value_name = "OUT", conflicts_with_all = OF_SORTING)]
    undo: Option<PathBuf>,
    #[command(flatten)]
    links: FollowLinks,
    #[command(flatten)]
    augmentation: Augmentation,
    /// The arithmetic of the passes
    #[arg(long, hide_short_help = true, value_enum, default_value_t = PrecisionArg::Auto)]
    precision: PrecisionArg,
    #[command(flatten)]
    waiting: Waiting,
}

/// What `hat sort` shall do.
pub(crate) enum SortTask {
    /// Take back what was sorted into a folder.
    Undo(PathBuf),
    /// Sort the photos of a folder.
    Into(Box<SortInto>),
}

/// Photos to be sorted.
pub(crate) struct SortInto {
    pub(crate) by: SortBy,
    pub(crate) dir: PathBuf,
    pub(crate) into: PathBuf,
    pub(crate) mode: Mode,
    pub(crate) min_probability: f32,
    pub(crate) dry_run: bool,
    pub(crate) gallery: Option<PathBuf>,
    pub(crate) force: bool,
    pub(crate) links: FollowLinks,
    pub(crate) augmentation: Augmentation,
    pub(crate) precision: PrecisionArg,
    pub(crate) waiting: Waiting,
}

/// What photos are sorted by.
pub(crate) enum SortBy {
    /// What this model says of them.
    Model(String),
    /// The predictions of this job.
    Job(String),
}

impl Sort {
    /// What these options ask for.
    ///
    /// # Errors
    /// [`Failure::Usage`] if an argument is missing, or is one too many.
    pub(crate) fn task(self) -> Result<SortTask, Failure> {
        if let Some(out) = self.undo {
            return Ok(SortTask::Undo(out));
        }
        let (by, dir) = match (self.job, self.model, self.dir) {
            (Some(job), Some(dir), None) => (SortBy::Job(job), dir.into()),
            (None, Some(model), Some(dir)) => (SortBy::Model(model), dir),
            (Some(_), _, _) => {
                return Err(Failure::usage(
                    "--job ID takes the folder alone: leave out the model, which the job names",
                ));
            }
            (None, _, _) => {
                return Err(Failure::usage("name a model and a folder of photos: hat sort MODEL DIR --into OUT"));
            }
        };
        Ok(SortTask::Into(Box::new(SortInto {
            by,
            dir,
            into: self.into.unwrap_or_default(),
            mode: self.mode,
            min_probability: self.min_probability,
            dry_run: self.dry_run,
            gallery: self.gallery,
            force: self.force,
            links: self.links,
            augmentation: self.augmentation,
            precision: self.precision,
            waiting: self.waiting,
        })))
    }
}

fn probability(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| format!("{text} is no number"))?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err(format!("a probability is 0 to 1, not {text}")) }
}
