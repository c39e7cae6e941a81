//! The folder of what can be had again: pretrained weights, and the digests of files that were uploaded.

use std::{env, path::PathBuf};

/// `$XDG_CACHE_HOME/sortinghat`, else `~/.cache/sortinghat`; `None` if there is no home folder.
pub(crate) fn folder() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(cache.or_else(|| Some(env::home_dir()?.join(".cache")))?.join("sortinghat"))
}

/// The folder in which a worker looks for weights if none is named.
pub(crate) fn weights() -> PathBuf {
    folder().unwrap_or_else(|| PathBuf::from("sortinghat")).join("weights")
}
