//! Finds the programs of the coordinator and the worker.

use std::{env, path::PathBuf};

use crate::failure::Failure;

pub(crate) const COORDINATOR: &str = "sortinghat-coordinator";
pub(crate) const WORKER: &str = "sortinghat-worker";

/// The path of a program: beside this one, else in PATH.
pub(crate) fn find(name: &str) -> Result<PathBuf, Failure> {
    let own = env::current_exe().ok().and_then(|path| path.parent().map(PathBuf::from));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = own.clone().into_iter().chain(env::split_paths(&path)).collect();
    folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        let beside = own.map(|folder| format!("in {} and ", folder.display())).unwrap_or_default();
        Failure::local(format!(
            "{name} was not found {beside}in PATH: `make build` builds it (`cargo build --workspace --bins`)"
        ))
    })
}
