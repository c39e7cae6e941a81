use std::path::PathBuf;

use clap::{
    Args, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use sortinghat_client::JobFilter;
use sortinghat_proto::{JobKind, Labels, v1::JobState};

use super::{keeping, named::Named};
use crate::{failure::Failure, when::Past};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Jobs {
    #[command(subcommand)]
    pub(crate) command: Option<JobsCommand>,
    #[command(flatten)]
    pub(crate) list: JobsList,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// List jobs, newest first
    List(JobsList),
    /// Show everything about a job
    Show {
        /// The job's id, or the beginning or end of it [default: the newest job]
        #[arg(add = Named::Job)]
        id: Option<String>,
    },
    /// Say why a job waits, where it runs, or how it ended
    Why {
        /// The job's id, or the beginning or end of it [default: the newest job]
        #[arg(add = Named::Job)]
        id: Option<String>,
    },
    /// Follow a job from its beginning until it ends
    Watch {
        /// The job's id, or the beginning or end of it [default: the newest job]
        #[arg(add = Named::Job)]
        id: Option<String>,
        /// Save what the job makes: the predictions of a classify (.csv, .jsonl, .parquet), the report (.html) or the predictions
        /// (.csv) of an evaluate, or the page (.html) or all labels (.csv) of an audit
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Give the .csv file of a classify a column p_CLASS for each class
        #[arg(long, requires = "out")]
        class_columns: bool,
        /// Overwrite the file of --out if it exists
        #[arg(long, requires = "out")]
        force: bool,
    },
    /// Print what a classify has predicted so far, also while it runs and after it was cancelled or has failed
    Predictions(JobsPredictions),
    /// Print a job's history, with the log lines of its executors
    Logs {
        /// The job's id, or the beginning or end of it [default: the newest job]
        #[arg(add = Named::Job)]
        id: Option<String>,
        /// Go on with what comes, until the job ends
        #[arg(short, long)]
        follow: bool,
    },
    /// Cancel the jobs that are named, or all that match
    Cancel(JobsCancel),
    /// Remove jobs that have ended, with their history and results; datasets and models stay
    Rm {
        /// The jobs' ids, or the beginnings or ends of them
        #[arg(value_name = "ID", required = true, add = Named::Job)]
        ids: Vec<String>,
        /// Also have the server remove the uploaded photos and the results within minutes, except those to which something else refers
        #[arg(long)]
        erase: bool,
    },
    /// Submit a failed or cancelled job again, as a new job, and follow it
    Retry {
        /// The job's id, or the beginning or end of it
        #[arg(add = Named::Job)]
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct JobsPredictions {
    /// The job's id, or the beginning or end of it [default: the newest job]
    #[arg(add = Named::Job)]
    pub(crate) id: Option<String>,
    /// Go on with the photos of each part of the job as it is finished, until the job ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print the photos in the order of the upload, although a part may then wait for others
    #[arg(long)]
    pub(crate) in_order: bool,
    /// Print CSV with a header, or a JSON object a line
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<RowFormat>,
    /// Give CSV a column p_CLASS for each class
    #[arg(long, requires = "format")]
    pub(crate) class_columns: bool,
}

/// The formats in which rows are printed for other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowFormat {
    Csv,
    Jsonl,
}

#[derive(Debug, Args)]
pub(crate) struct JobsCancel {
    /// The jobs' ids, or the beginnings or ends of them
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all", add = Named::Job)]
    pub(crate) ids: Vec<String>,
    /// Cancel every job that has not ended and matches the options below
    #[arg(long)]
    pub(crate) all: bool,
    /// Only jobs of this kind
    #[arg(long, requires = "all", conflicts_with = "ids", value_parser = kinds())]
    kind: Option<JobKind>,
    /// Only jobs in this state: blocked, queued or running
    #[arg(long, value_enum, requires = "all", conflicts_with = "ids")]
    state: Vec<StateArg>,
    /// Only jobs that were submitted before this time, or longer ago than this: 2026-11-30T08:00:00Z, 2h
    #[arg(long, value_name = "TIME", requires = "all", conflicts_with = "ids")]
    pub(crate) before: Option<Past>,
    /// Do not ask for confirmation
    #[arg(long, short)]
    pub(crate) yes: bool,
}

impl JobsCancel {
    pub(crate) fn filter(&self) -> JobFilter {
        filter(&self.state, self.kind)
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct JobsList {
    /// Only jobs in this state; may be repeated
    #[arg(long, value_enum)]
    state: Vec<StateArg>,
    /// Only jobs of this kind
    #[arg(long, value_parser = kinds())]
    kind: Option<JobKind>,
    /// Only jobs with this label; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<Labels>,
    /// Only jobs that were submitted at this time or later, or at most so long ago: 2026-11-30T08:00:00Z, 2h
    #[arg(long, value_name = "TIME")]
    since: Option<Past>,
    /// Only jobs that were submitted before this time, or longer ago than this
    #[arg(long, value_name = "TIME")]
    before: Option<Past>,
    /// Only the job that was submitted with this idempotency key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// At most this many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

impl JobsList {
    pub(crate) fn filter(&self) -> Result<JobFilter, Failure> {
        Ok(JobFilter {
            labels: keeping::all(&self.labels)?,
            from: self.since.map(|past| past.0),
            before: self.before.map(|past| past.0),
            idempotency_key: self.key.clone().unwrap_or_default(),
            ..filter(&self.state, self.kind)
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateArg {
    Blocked,
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl From<StateArg> for JobState {
    fn from(asked: StateArg) -> Self {
        match asked {
            StateArg::Blocked => Self::Blocked,
            StateArg::Queued => Self::Queued,
            StateArg::Running => Self::Running,
            StateArg::Succeeded => Self::Succeeded,
            StateArg::Failed => Self::Failed,
            StateArg::Cancelled => Self::Cancelled,
        }
    }
}

fn filter(states: &[StateArg], kind: Option<JobKind>) -> JobFilter {
    JobFilter { states: states.iter().copied().map(JobState::from).collect(), kind, ..JobFilter::default() }
}

/// Every kind there is, so that help and errors list them.
fn kinds() -> impl TypedValueParser<Value = JobKind> {
    PossibleValuesParser::new(JobKind::ALL.iter().map(|kind| kind.as_str())).try_map(|word| word.parse::<JobKind>())
}
