//! The command line.

mod artifacts;
mod audit;
mod classify;
mod evaluate;
mod finetune;
mod gather;
mod ingest;
mod jobs;
mod keeping;
mod links;
mod machine;
mod named;
mod queue;
mod sort;
mod tta;
mod waiting;

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, parser::ValueSource};
use clap_complete::Shell;
use sortinghat_proto::{JobKind, secrets};

pub(crate) use artifacts::{Datasets, DatasetsCommand, Models, ModelsCommand};
pub(crate) use audit::Audit;
pub(crate) use classify::Classify;
pub(crate) use evaluate::Evaluate;
pub(crate) use finetune::{CropArg, FineTuneArgs, Finetune, RecipeArg};
pub(crate) use gather::Gather;
pub(crate) use ingest::Ingest;
pub(crate) use jobs::{Jobs, JobsCancel, JobsCommand, JobsList, JobsPredictions, RowFormat};
pub(crate) use machine::{Doctor, Up};
pub(crate) use named::{Named, TypedName};
pub(crate) use queue::{Queue, QueueCommand};
pub(crate) use sort::{Sort, SortBy, SortInto, SortTask};

/// Sort photos with a classifier trained on your own.
#[derive(Debug, Parser)]
#[command(name = "hat", version, after_long_help = crate::exit::HELP)]
#[command(after_help = "Start with `hat up`, then `hat ingest NAME FOLDER`. `hat --help` also lists the exit codes.")]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which of the options that name a server, or say who calls it, were typed. The others may come from variables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) server: bool,
    pub(crate) data_dir: bool,
    pub(crate) token_file: bool,
    pub(crate) ca_file: bool,
    pub(crate) client_cert: bool,
    pub(crate) client_key: bool,
}

impl Typed {
    fn on(matches: &ArgMatches) -> Self {
        let is_typed = |option| matches.value_source(option) == Some(ValueSource::CommandLine);
        Self {
            server: is_typed("server"),
            data_dir: is_typed("data_dir"),
            token_file: is_typed("token_file"),
            ca_file: is_typed("ca_file"),
            client_cert: is_typed("client_cert"),
            client_key: is_typed("client_key"),
        }
    }
}

/// The help of a command does not list the options that every command has.
const GLOBAL_OPTIONS: &str = "`hat -h` lists the options of every command, such as --server, --json and --quiet.";
/// What the short help of a command with further options says.
const MORE_OPTIONS: &str = "`--help` lists more options of this command, and ";

/// The command line for parsing and for help: the options of every command are listed once, with `hat` itself.
fn command() -> clap::Command {
    let command = CommandLine::command();
    let global: Vec<Arg> = command.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    let hidden: Vec<Arg> = global.into_iter().map(|arg| arg.hide(true)).collect();
    command.mut_subcommands(|below| without(below, &hidden))
}

/// Hides these options in the help of a command and of all commands below it.
fn without(command: clap::Command, hidden: &[Arg]) -> clap::Command {
    let has_more = command.get_arguments().any(Arg::is_hide_short_help_set);
    let command = command.args(hidden).after_help(GLOBAL_OPTIONS);
    let command = match has_more {
        true => command.after_help(format!("{MORE_OPTIONS}{GLOBAL_OPTIONS}")).after_long_help(GLOBAL_OPTIONS),
        false => command,
    };
    command.mut_subcommands(|below| without(below, hidden))
}

/// The command line with all of its options, for completion. `completer` makes each argument that names something complete it.
pub(crate) fn completing(completer: impl Fn(Arg, Named) -> Arg + Copy) -> clap::Command {
    fn below(command: clap::Command, completer: impl Fn(Arg, Named) -> Arg + Copy) -> clap::Command {
        let command = command.mut_args(|arg| match arg.get::<Named>().copied() {
            Some(named) => completer(arg, named),
            None => arg,
        });
        command.mut_subcommands(|command| below(command, completer))
    }
    below(CommandLine::command(), completer)
}

/// Parses a command line. Also returns the names that were typed on it.
///
/// # Errors
/// What clap has to say: help or a refusal.
pub(crate) fn parse(line: impl IntoIterator<Item = OsString>) -> Result<(CommandLine, Vec<TypedName>), clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(line).map_err(secrets::hide_in)?;
    let names = named::typed(&command, &matches);
    let mut line = CommandLine::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    line.global.typed = Typed::on(&matches);
    Ok((line, names))
}

/// The options of every command on a line that may not be finished. Everything else on it is ignored.
pub(crate) fn global_of(line: impl IntoIterator<Item = OsString>) -> Option<Global> {
    #[derive(Parser)]
    struct OnlyGlobal {
        #[command(flatten)]
        global: Global,
    }
    let command = OnlyGlobal::command();
    let with_value = command.get_opts().filter(|option| option.get_action().takes_values());
    let long: Vec<String> = with_value.filter_map(|option| Some(format!("--{}", option.get_long()?))).collect();
    let mut kept = vec![OsString::from("hat")];
    let mut words = line.into_iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        if long.contains(&text) {
            kept.push(word);
            kept.extend(words.next());
        } else if text.split_once('=').is_some_and(|(name, _)| long.iter().any(|option| option == name)) {
            kept.push(word);
        }
    }
    let matches = OnlyGlobal::command().try_get_matches_from(kept).ok()?;
    let OnlyGlobal { mut global } = OnlyGlobal::from_arg_matches(&matches).ok()?;
    global.typed = Typed::on(&matches);
    Some(global)
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "For every command")]
pub(crate) struct Global {
    /// The server [default: the one that `hat up` started, else http://127.0.0.1:7878]
    #[arg(long, global = true, env = "SORTINGHAT_SERVER", hide_env_values = true, value_name = "URL", value_parser = secrets::refuse_secrets)]
    pub(crate) server: Option<String>,
    /// The file that holds the token for the server
    #[arg(long, global = true, env = "SORTINGHAT_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates (PEM) to trust for https, instead of the system's
    #[arg(long, global = true, env = "SORTINGHAT_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Certificate to show (PEM), by which a server knows a worker; requires --client-key. `hat whoami` then says what the server makes of it
    #[arg(
        long,
        global = true,
        env = "SORTINGHAT_CLIENT_CERT",
        hide_env_values = true,
        value_name = "FILE",
        requires = "client_key"
    )]
    pub(crate) client_cert: Option<PathBuf>,
    /// Private key of this certificate (PEM)
    #[arg(
        long,
        global = true,
        env = "SORTINGHAT_CLIENT_KEY",
        hide_env_values = true,
        value_name = "FILE",
        requires = "client_cert"
    )]
    pub(crate) client_key: Option<PathBuf>,
    /// The folder in which `hat up` keeps everything; other commands then use the server that runs there [default:
    /// ~/.local/share/sortinghat]
    #[arg(long, global = true, env = "SORTINGHAT_DATA_DIR", hide_env_values = true, value_name = "DIR")]
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
    /// Print rows, and write CSV, with names, paths and messages byte for byte, also where a terminal or a spreadsheet would act on them
    #[arg(long, global = true)]
    pub(crate) raw: bool,
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
    #[command(about = JobKind::Gather.help())]
    Gather(Gather),
    #[command(about = JobKind::Finetune.help())]
    Finetune(Finetune),
    #[command(about = JobKind::Evaluate.help())]
    Evaluate(Evaluate),
    #[command(about = JobKind::Classify.help())]
    Classify(Classify),
    #[command(about = JobKind::Audit.help())]
    Audit(Audit),
    /// Sort the photos of a folder into a folder for each class, or take that back
    Sort(Sort),
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
    /// Show who the server takes you for, and what that lets you do
    Whoami,
    /// Check this machine and the server, and say what to do about each problem
    Doctor(Doctor),
    /// Print completions for a shell, which also offer the names of datasets, models and jobs
    ///
    /// Load them when the shell starts:
    ///
    /// bash, in ~/.bashrc: source <(hat completions bash)
    ///
    /// zsh, in ~/.zshrc after compinit: source <(hat completions zsh)
    ///
    /// fish: hat completions fish > ~/.config/fish/completions/hat.fish
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

    fn words(line: &str) -> impl Iterator<Item = OsString> {
        std::iter::once("hat").chain(line.split(' ')).map(OsString::from)
    }

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        super::parse(words(line)).map(|(line, _)| line)
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
        completing(|arg, _| arg).debug_assert();
    }

    #[test]
    fn options_of_every_command_are_taken_behind_each_command_and_listed_only_with_hat_itself() {
        for line in [
            "--server http://a:1 --json jobs list",
            "--json jobs list --server http://a:1",
            "jobs --json --server http://a:1",
        ] {
            let global = parse(line).expect(line).global;
            assert_eq!((global.server.as_deref(), global.json), (Some("http://a:1"), true), "{line}");
        }
        let mut all = vec![command()];
        while let Some(mut command) = all.pop() {
            let help = command.render_long_help().to_string();
            assert_eq!(help.contains("--token-file"), command.get_name() == "hat", "{}: {help}", command.get_name());
            all.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn the_names_on_a_line_are_known_with_what_they_name() {
        let typed = |line| super::parse(words(line)).expect(line).1;
        let named = |named, text: &str| TypedName { named, text: text.to_owned() };
        assert_eq!(typed("finetune stamps@1"), [named(Named::Dataset, "stamps@1")]);
        let both = [named(Named::Model, "stamps/1"), named(Named::DatasetOrFolder, "./photos")];
        assert_eq!(typed("evaluate stamps/1 --on ./photos"), both);
        assert_eq!(typed("jobs cancel 01 02"), [named(Named::Job, "01"), named(Named::Job, "02")]);
        assert!(typed("jobs").is_empty());
    }

    #[test]
    fn an_unfinished_line_says_where_the_server_is() {
        let global = |line| global_of(words(line)).expect("its options are complete");
        let server = |line| global(line).server;
        assert_eq!(server("finetune --server http://a:1 --backbone").as_deref(), Some("http://a:1"));
        assert_eq!(server("--server=http://a:1 nonsense --data-dir /x -q").as_deref(), Some("http://a:1"));
        assert_eq!(global("jobs --data-dir /x why").data_dir, Some(PathBuf::from("/x")));
    }

    #[test]
    fn the_tour_of_the_documentation_parses() {
        for line in [
            "up --background",
            "down",
            "ingest stamps ./photos",
            "gather potter Hagrid Draco=malfoy --per-class 50 --provider commons --licence by --dry-run",
            "gather potter --urls urls.csv --anew",
            "finetune stamps@1 --backbone efficientnet_lite0 --epochs 5",
            "evaluate stamps/1 --tta --on photos",
            "evaluate stamps/1 --tta=max --decisions F",
            "classify stamps/1 me.jpg",
            "classify stamps/1 ./holiday --out predictions.csv",
            "finetune stamps --not-before 2h --deadline 2026-11-30T08:00:00Z",
            "jobs",
            "jobs --kind ingest",
            "jobs watch 01",
            "jobs watch",
            "jobs why",
            "jobs logs -f",
            "jobs show",
            "jobs why 01 --json",
            "jobs cancel 01 02",
            "jobs cancel --all --kind finetune --state queued --before 2h --yes",
            "jobs retry 01",
            "queue",
            "queue pause",
            "queue pause --tenant lab",
            "whoami",
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
            ("gather a", "CLASS"),
            ("gather a b --urls c.csv", "--urls"),
            ("gather a --urls c.csv --provider commons", "--provider"),
            ("gather a b --licence gpl", "any, free or by"),
            ("gather a b --per-class 0", "--per-class"),
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
            ("jobs rm", "ID"),
            ("jobs --label user", "NAME=VALUE"),
            ("ingest a b --label user=", "not a label"),
            ("classify a/1 b --keep-for soon", "--keep-for"),
            ("classify a/1 b --keep-for 7days --keep", "--keep"),
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
            let read = super::parse(line.split(' ').map(OsString::from)).expect(line).0;
            assert_eq!(read.global.typed, Typed { server, data_dir, ..Typed::default() }, "{line}");
        }
    }

    #[test]
    fn help_is_not_an_error() {
        assert_eq!(parse("help finetune").expect_err("help").kind(), ErrorKind::DisplayHelp);
    }
}
