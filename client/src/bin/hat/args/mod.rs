//! The command line.

mod artifacts;
mod classify;
mod evaluate;
mod finetune;
mod ingest;
mod jobs;
mod links;
mod machine;
mod queue;
mod tta;
mod waiting;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, parser::ValueSource};
use clap_complete::Shell;
use sortinghat_proto::JobKind;

pub(crate) use artifacts::{Datasets, DatasetsCommand, Models, ModelsCommand};
pub(crate) use classify::Classify;
pub(crate) use evaluate::Evaluate;
pub(crate) use finetune::{CropArg, Finetune};
pub(crate) use ingest::Ingest;
pub(crate) use jobs::{Jobs, JobsCancel, JobsCommand, JobsList};
pub(crate) use machine::{Doctor, Up};
pub(crate) use queue::{Queue, QueueCommand};

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

impl CommandLine {
    /// Parses the arguments, and remembers which of the options that name a server were typed.
    pub(crate) fn read(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let mut matches = Self::command().try_get_matches_from(arguments)?;
        let is_typed = |option| matches.value_source(option) == Some(ValueSource::CommandLine);
        let typed = Typed { server: is_typed("server"), data_dir: is_typed("data_dir") };
        let mut line = Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut Self::command()))?;
        line.global.typed = typed;
        Ok(line)
    }
}

/// Which of the options that name a server were typed. The others may come from variables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) server: bool,
    pub(crate) data_dir: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "For every command")]
pub(crate) struct Global {
    /// The server [default: the one that `hat up` started, else http://127.0.0.1:7878]
    #[arg(long, global = true, env = "SORTINGHAT_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The file that holds the token for the server
    #[arg(long, global = true, env = "SORTINGHAT_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The token itself, if there is no file of it
    #[arg(long, global = true, env = "SORTINGHAT_TOKEN", hide = true, hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Certificates (PEM) to trust for https, instead of the system's
    #[arg(long, global = true, env = "SORTINGHAT_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The folder in which `hat up` keeps everything; other commands then use the server that runs there [default:
    /// ~/.local/share/sortinghat]
    #[arg(long, global = true, env = "SORTINGHAT_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print JSON for programs, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Submit the job and print its id, but do not follow it
    #[arg(long, global = true)]
    pub(crate) detach: bool,
    /// Print no progress and no hints on standard error, but still warnings
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Use no colours
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    #[arg(skip)]
    pub(crate) typed: Typed,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a server and a worker on this machine
    Up(Up),
    /// Stop the server and the worker that `hat up` started, and wait until both have ended
    Down,
    #[command(about = JobKind::Ingest.help())]
    Ingest(Ingest),
    #[command(about = JobKind::Finetune.help())]
    Finetune(Finetune),
    #[command(about = JobKind::Evaluate.help())]
    Evaluate(Evaluate),
    #[command(about = JobKind::Classify.help())]
    Classify(Classify),
    /// List, show, follow, cancel and retry jobs
    Jobs(Jobs),
    /// Show, pause and resume your queue
    Queue(Queue),
    /// List, show and remove datasets
    Datasets(Datasets),
    /// List, show and remove models
    Models(Models),
    /// List workers
    Workers,
    /// Check this machine and the server, and say what to do about each problem
    Doctor(Doctor),
    /// Print completions for a shell: hat completions bash > ~/.local/share/bash-completion/completions/hat
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use sortinghat_proto::TtaRecipe;

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
            panic!("another command was parsed")
        };
        let tta = args.augmentation.tta().expect("it was asked for");
        assert_eq!((tta.recipe, tta.passes), (TtaRecipe::Fastai2, 4));
        assert_eq!(args.photos, [PathBuf::from("me.jpg")]);
    }

    #[test]
    fn options_that_were_typed_are_told_from_variables_wherever_they_stand() {
        for (line, server, data_dir) in [
            ("hat jobs", false, false),
            ("hat --server http://a jobs", true, false),
            ("hat jobs list --data-dir a", false, true),
            ("hat --server http://a datasets rm stamps@1 --data-dir a", true, true),
        ] {
            let read = CommandLine::read(line.split(' ')).expect(line);
            assert_eq!(read.global.typed, Typed { server, data_dir }, "{line}");
        }
    }

    #[test]
    fn help_is_not_an_error() {
        assert_eq!(parse("help finetune").expect_err("help").kind(), ErrorKind::DisplayHelp);
    }
}
