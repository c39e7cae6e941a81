//! Completion: the script for a shell, and the answers to the shell that runs it.

use std::{ffi::OsStr, path::Path, time::Duration};

use clap::Arg;
use clap_complete::{
    CompleteEnv, Shell,
    engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _},
    env::Shells,
};
use sortinghat_client::{SHORT_ID_CHARACTERS, short_id};

use super::names::{self, Name};
use crate::{
    args::{self, Named},
    exit::Exit,
    failure::Failure,
    session::Session,
    show::{line::print_whole, plain},
};

/// A person who has pressed the tabulator waits no longer than this for a server.
const PATIENCE: Duration = Duration::from_millis(700);
/// The variable by which a shell asks for completions, of this program and of others.
const VARIABLE: &str = "COMPLETE";

pub(super) fn run(shell: Shell) -> Result<Exit, Failure> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let completer = shells.completer(&name).ok_or_else(|| Failure::usage(format!("{name} has no completion")))?;
    let mut script = Vec::new();
    let written = completer.write_registration(VARIABLE, "hat", "hat", "hat", &mut script);
    written.map_err(|error| Failure::local(format!("the script for {name} cannot be made: {error}")))?;
    if shell == Shell::Bash {
        // Without this, bash takes stamps@1 for three words.
        print_whole("COMP_WORDBREAKS=${COMP_WORDBREAKS//@/}");
    }
    print_whole(String::from_utf8_lossy(&script).trim());
    Ok(Exit::Ok)
}

/// Answers a shell that asks for completions, and ends the process then. Any other run returns at once.
pub(crate) fn answer_shell() {
    let completer = |arg: Arg, named| arg.add(ArgValueCompleter::new(move |typed: &OsStr| candidates(named, typed)));
    CompleteEnv::with_factory(move || args::completing(completer)).var(VARIABLE).complete();
}

/// The names that begin with what is typed; none if no server answers in time, because an error would end up in the line that is typed.
fn candidates(named: Named, typed: &OsStr) -> Vec<CompletionCandidate> {
    let folders = match named {
        Named::DatasetOrFolder | Named::ModelOrFolder => PathCompleter::dir().complete(typed),
        Named::Dataset | Named::Model | Named::Job => Vec::new(),
    };
    let Some(typed) = typed.to_str() else { return folders };
    let names = ask(named).unwrap_or_default();
    let names = names.iter().filter_map(|name| {
        let text = if named == Named::Job { job(&name.text, typed)? } else { name.text.as_str() };
        text.starts_with(typed)
            .then(|| CompletionCandidate::new(text).help(Some(plain::cell(&name.about).into_owned().into())))
    });
    names.chain(folders).collect()
}

/// A job as it is completed: by the end of its id, or by all of it if its beginning was typed.
fn job<'a>(id: &'a str, typed: &str) -> Option<&'a str> {
    let short = short_id(id, SHORT_ID_CHARACTERS);
    [short, id].into_iter().find(|text| text.starts_with(typed))
}

/// The names that exist, from the server that the unfinished line means.
fn ask(named: Named) -> Option<Vec<Name>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let line = std::env::args_os().skip_while(|word| Path::new(word) != Path::new("--")).skip(1);
    let session = Session::new(args::global_of(line)?);
    let names = runtime.block_on(async {
        let asked = async { names::existing(&session.connect().await?, named).await };
        tokio::time::timeout(PATIENCE, asked).await
    });
    // A look-up of a host's name that hangs must not hold up the shell.
    runtime.shutdown_background();
    names.ok()?.ok()
}
