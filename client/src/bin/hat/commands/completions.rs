use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{args::CommandLine, exit::Exit, failure::Failure, show::line::print_line};

pub(super) fn run(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "hat", &mut script);
    print_line(String::from_utf8_lossy(&script).trim_end());
    Ok(Exit::Ok)
}
