//! The command line.

mod finetune;
mod waiting;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use sortinghat_proto::JobKind;

use crate::when::Past;
pub(crate) use finetune::{CropArg, Finetune, PrecisionArg};
pub(crate) use waiting::Waiting;

/// Sort photos with a classifier trained on your own.
#[derive(Debug, Parser)]
#[command(name = "hat", version, propagate_version = true, after_long_help = crate::exit::HELP)]
#[command(after_help = "Start with `hat up`, then `hat ingest NAME FOLDER`. `hat --help` also lists the exit codes.")]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "For every command")]
pub(crate) struct Global {
    /// The server [default: the one that `hat up` started, else http://127.0.0.1:7878]
    #[arg(long, global = true, env = "SORTINGHAT_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// A file that holds the token to show to the server
    #[arg(long, global = true, env = "SORTINGHAT_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The token itself, where a file is not at hand
    #[arg(long, global = true, env = "SORTINGHAT_TOKEN", hide = true, hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Certificates (PEM) to trust for https, instead of the system's
    #[arg(long, global = true, env = "SORTINGHAT_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Where `hat up` keeps everything [default: ~/.local/share/sortinghat]
    #[arg(long, global = true, env = "SORTINGHAT_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print data for programs, one JSON object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Submit the job, print its id, and do not follow it
    #[arg(long, global = true)]
    pub(crate) detach: bool,
    /// No progress and no hints on standard error
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// No colours
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a server and a worker on this machine
    Up(Up),
    /// Stop what `hat up` started, and wait for its end
    Down,
    /// Make a dataset from a folder of photos
    Ingest(Ingest),
    /// Train a model on a dataset
    Finetune(Finetune),
    /// Measure a model on photos that it has not seen
    Evaluate(Evaluate),
    /// Name the classes of photos
    Classify(Classify),
    /// List, show, follow, cancel and retry jobs
    Jobs(Jobs),
    /// Show your queue, pause and resume it
    Queue(Queue),
    /// List, show and remove datasets
    Datasets(Datasets),
    /// List, show and remove models
    Models(Models),
    /// List workers
    Workers,
    /// Check what is needed and say what to do about what is missing
    Doctor(Doctor),
    /// Print completions for a shell: hat completions bash > ~/.local/share/bash-completion/completions/hat
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Return as soon as it serves, and go on in the background
    #[arg(long)]
    pub(crate) background: bool,
    /// Address to serve on [default: 127.0.0.1:7878, or a free port if that one is taken]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// What computes: auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// Where pretrained weights lie [default: ~/.cache/sortinghat/weights]
    #[arg(long, env = "SORTINGHAT_WEIGHTS_DIR", value_name = "DIR")]
    pub(crate) weights_dir: Option<PathBuf>,
    /// This process is the background half of `hat up --background`
    #[arg(long, hide = true)]
    pub(crate) daemon: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ingest {
    /// The dataset's name: a-z, 0-9, '-', '_'; its versions are counted from 1
    pub(crate) name: String,
    /// A folder per class, or train/ and valid/ with a folder per class each
    pub(crate) dir: PathBuf,
    /// Share of each class that is held out, in percent, 1 to 50 [default: 20]
    #[arg(long, value_name = "N", conflicts_with = "folds", value_parser = clap::value_parser!(u32).range(1..=50))]
    pub(crate) valid_percent: Option<u32>,
    /// Cross-validation folds instead of one split, 2 to 20
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=20))]
    pub(crate) folds: Option<u32>,
    /// Seed of the split
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Go on although over half of the photos cannot be decoded
    #[arg(long)]
    pub(crate) allow_failures: bool,
    /// Short side of the lossless copy that training reads, in pixels, 64 to 4096; never enlarges [default: 512]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(64..=4096))]
    pub(crate) short_side: Option<u32>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TtaArg {
    /// 3/4 of the mean over the augmented passes + 1/4 of the plain one
    Fastai2,
    /// The mean over all passes
    Fastai07,
    /// The maximum over all passes
    Max,
}

#[derive(Debug, Args)]
pub(crate) struct Evaluate {
    /// stamps/1, or stamps for the newest
    pub(crate) model: String,
    /// Test-time augmentation beside the plain result
    #[arg(long, value_name = "RECIPE", num_args = 0..=1, require_equals = true, default_missing_value = "fastai2")]
    pub(crate) tta: Option<TtaArg>,
    /// Augmented passes, 1 to 32 [default: 4]
    #[arg(long, value_name = "N", requires = "tta", value_parser = clap::value_parser!(u32).range(1..=32))]
    pub(crate) passes: Option<u32>,
    /// Seed of the augmentation
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Measure on this folder (a folder per class), or on the held-out photos of this dataset [default: what was held out]
    #[arg(long, value_name = "DIR|DATASET")]
    pub(crate) on: Option<String>,
    /// What was decided in the report: keep, exclude or relabel
    #[arg(long, value_name = "FILE")]
    pub(crate) decisions: Option<PathBuf>,
    /// Arithmetic of the passes
    #[arg(long, value_enum, default_value_t = PrecisionArg::Auto)]
    pub(crate) precision: PrecisionArg,
    /// Where to save the report [default: MODEL-report.html here]
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Args)]
pub(crate) struct Classify {
    /// stamps/1, or stamps for the newest
    pub(crate) model: String,
    /// Photos, and folders of photos
    #[arg(required = true, value_name = "PHOTO|DIR")]
    pub(crate) photos: Vec<PathBuf>,
    /// Write a row or an error for each photo to this .csv, .jsonl or .parquet file
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// How many of the most probable classes to give for each photo
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) top: u32,
    /// Test-time augmentation
    #[arg(long, value_name = "RECIPE", num_args = 0..=1, require_equals = true, default_missing_value = "fastai2")]
    pub(crate) tta: Option<TtaArg>,
    /// Augmented passes, 1 to 32 [default: 4]
    #[arg(long, value_name = "N", requires = "tta", value_parser = clap::value_parser!(u32).range(1..=32))]
    pub(crate) passes: Option<u32>,
    /// Seed of the augmentation
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Arithmetic of the passes
    #[arg(long, value_enum, default_value_t = PrecisionArg::Auto)]
    pub(crate) precision: PrecisionArg,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

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
        /// The job's id, or the beginning of it
        id: String,
    },
    /// Say exactly why a job waits, where it runs, or how it ended
    Why {
        /// The job's id, or the beginning of it
        id: String,
    },
    /// Follow a job until it ends, from its beginning
    Watch {
        /// The job's id, or the beginning of it
        id: String,
        /// Save what it makes: predictions (.csv, .jsonl, .parquet) or a report (.html)
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Print a job's history with what its executors logged
    Logs {
        /// The job's id, or the beginning of it
        id: String,
        /// Go on with what comes, until the job ends
        #[arg(short, long)]
        follow: bool,
    },
    /// Cancel jobs: those named, or all that match
    Cancel(JobsCancel),
    /// Submit a failed or cancelled job again, as a new job, and follow it
    Retry {
        /// The job's id, or the beginning of it
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct JobsCancel {
    /// The jobs' ids, or the beginnings of them
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) ids: Vec<String>,
    /// Cancel every job that has not ended and matches the options below
    #[arg(long)]
    pub(crate) all: bool,
    /// Only jobs of this kind: ingest, finetune, evaluate or classify
    #[arg(long, requires = "all", conflicts_with = "ids")]
    pub(crate) kind: Option<JobKind>,
    /// Only jobs in this state: blocked, queued or running
    #[arg(long, value_enum, requires = "all", conflicts_with = "ids")]
    pub(crate) state: Vec<StateArg>,
    /// Only jobs that were submitted before this time, or longer ago than this: 2026-11-30T08:00:00Z, 2h
    #[arg(long, value_name = "TIME", requires = "all", conflicts_with = "ids")]
    pub(crate) before: Option<Past>,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Queue {
    #[command(subcommand)]
    pub(crate) command: Option<QueueCommand>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum QueueCommand {
    /// Show how many jobs there are in each state, and how long the oldest has waited
    Show,
    /// Let no job start any more; those that run go on
    Pause,
    /// Let jobs start again
    Resume,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct JobsList {
    /// Only jobs in this state
    #[arg(long, value_enum)]
    pub(crate) state: Vec<StateArg>,
    /// Only jobs of this kind: ingest, finetune, evaluate or classify
    #[arg(long)]
    pub(crate) kind: Option<JobKind>,
    /// At most this many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateArg {
    Blocked,
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

#[derive(Debug, Args)]
pub(crate) struct Datasets {
    #[command(subcommand)]
    pub(crate) command: Option<DatasetsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DatasetsCommand {
    /// List datasets
    List,
    /// Show classes, sizes, the split and what was not used
    Show {
        /// stamps@1, or stamps for the newest
        name: String,
        /// List every file that was not used, and why
        #[arg(long)]
        rejected: bool,
    },
    /// Remove a dataset's name; models keep what they were made from
    Rm {
        /// stamps@1
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Models {
    #[command(subcommand)]
    pub(crate) command: Option<ModelsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// List models
    List,
    /// Show classes, how it was made and the table of its training
    Show {
        /// stamps/1, or stamps for the newest
        name: String,
    },
    /// Remove a model's name
    Rm {
        /// stamps/1
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Where pretrained weights lie [default: ~/.cache/sortinghat/weights]
    #[arg(long, env = "SORTINGHAT_WEIGHTS_DIR", value_name = "DIR")]
    pub(crate) weights_dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(std::iter::once("hat").chain(line.split(' ')))
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn the_tour_of_the_documentation_parses() {
        for line in [
            "up --background",
            "down",
            "ingest stamps ./photos",
            "finetune stamps@1 --backbone efficientnet_lite0 --epochs 5",
            "evaluate stamps/1 --tta --on photos",
            "evaluate stamps/1 --tta=max --decisions F",
            "classify stamps/1 me.jpg",
            "classify stamps/1 ./holiday --out predictions.csv",
            "finetune stamps --not-before 2h --deadline 2026-11-30T08:00:00Z",
            "jobs",
            "jobs --kind ingest",
            "jobs watch 01",
            "jobs why 01 --json",
            "jobs cancel 01 02",
            "jobs cancel --all --kind finetune --state queued --before 2h --yes",
            "jobs retry 01",
            "queue",
            "queue pause",
            "datasets rm stamps@1",
            "models show stamps/1",
            "--json --detach classify stamps/1 a b",
            "finetune stamps@1 --priority -3 --require device=cuda --require memory=16GiB",
            "classify stamps/1 me.jpg --lane bulk",
            "doctor",
            "completions zsh",
        ] {
            if let Err(error) = parse(line) {
                panic!("hat {line}: {error}");
            }
        }
    }

    #[test]
    fn values_out_of_range_and_options_without_effect_are_refused_by_name() {
        for (line, says) in [
            ("finetune a --epochs 0", "--epochs"),
            ("finetune a --lr -1", "--lr"),
            ("finetune a --lr nan", "--lr"),
            ("finetune a --backbone vgg16", "efficientnet_lite0"),
            ("ingest a b --folds 5 --valid-percent 20", "--folds"),
            ("evaluate a --passes 8", "--tta"),
            ("classify a/1", "PHOTO"),
            ("jobs --kind training", "classify"),
            ("finetune a --priority 11", "--priority"),
            ("finetune a --lane fast", "interactive"),
            ("finetune a --require zone=eu", "label.NAME"),
            ("ingest a b --deadline soon", "--deadline"),
            ("jobs cancel", "ID"),
            ("jobs cancel 01 --all", "--all"),
            ("jobs cancel 01 --kind ingest", "--kind"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.to_string().contains(says), "hat {line}: {error}");
        }
    }

    #[test]
    fn tta_takes_no_value_from_the_next_argument() {
        let Command::Classify(args) = parse("classify stamps/1 --tta me.jpg").expect("valid").command else {
            panic!("not classify")
        };
        assert_eq!((args.tta, args.photos), (Some(TtaArg::Fastai2), vec![PathBuf::from("me.jpg")]));
    }

    #[test]
    fn help_is_not_an_error() {
        assert_eq!(parse("help finetune").expect_err("help").kind(), ErrorKind::DisplayHelp);
    }
}
