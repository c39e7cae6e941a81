use std::path::Path;

use sortinghat_client::predictions::Format;

use crate::failure::Failure;

/// The format that the ending of a file's name asks for.
pub(crate) fn format_of(path: &Path) -> Result<Format, Failure> {
    Format::of_path(path).ok_or_else(|| {
        Failure::usage(format!(
            "predictions cannot be written to {}: end its name in .csv, .jsonl or .parquet",
            path.display()
        ))
    })
}
