//! Which arguments name something that the server knows. Completion offers the names that exist, and a name that does not exist is answered
//! with one that is like it.

use clap::{ArgMatches, Command, builder::ArgExt};

/// What an argument names. An argument says so with `#[arg(add = Named::Dataset)]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Dataset,
    /// A dataset, or a folder of this machine.
    DatasetOrFolder,
    Model,
    /// A model, or a folder of this machine.
    ModelOrFolder,
    Job,
}

impl ArgExt for Named {}

/// A name as somebody has typed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TypedName {
    pub(crate) named: Named,
    pub(crate) text: String,
}

/// The names on a command line.
pub(super) fn typed(command: &Command, matches: &ArgMatches) -> Vec<TypedName> {
    let values = |argument: &clap::Arg| {
        let raw = matches.try_get_raw(argument.get_id().as_str()).ok().flatten();
        raw.into_iter().flatten().filter_map(|value| value.to_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let own = command.get_arguments().filter_map(|argument| Some((argument.get::<Named>()?, values(argument))));
    let own = own.flat_map(|(named, values)| values.into_iter().map(|text| TypedName { named: *named, text }));
    let below = matches.subcommand().and_then(|(name, matches)| Some(typed(command.find_subcommand(name)?, matches)));
    own.chain(below.into_iter().flatten()).collect()
}
