//! The folder of pretrained weights.

use std::{env, path::PathBuf};

/// The folder in which a worker looks for weights if none is named.
pub(crate) fn usual_folder() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    cache.or_else(|| Some(env::home_dir()?.join(".cache"))).unwrap_or_default().join("sortinghat/weights")
}
