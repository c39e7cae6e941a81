//! Where pretrained weights come from.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use hf_hub::HFClientBuilder;

use super::backbone::Backbone;
use super::weights::{StateDict, WeightsError};

const HUB_FILE: &str = "model.safetensors";

/// One place or another to load a backbone from. Nothing here ever falls back to random weights.
#[derive(Debug, Clone)]
pub enum WeightsSource {
    /// Random weights, asked for explicitly.
    None,
    /// A safetensors file on this machine.
    File(PathBuf),
    /// A safetensors file already fetched, from the object store for instance.
    Bytes {
        /// What to call it in messages.
        name: String,
        /// The file.
        bytes: Bytes,
    },
    /// A file in a repository of the Hugging Face hub.
    Hub {
        /// `owner/name`.
        repository: String,
        /// The file in it.
        file: String,
    },
    /// A file if it is there, else the hub.
    Published {
        /// The backbone.
        backbone: Backbone,
        /// Where `make deps` puts weights.
        file: PathBuf,
    },
}

impl WeightsSource {
    /// `<weights_dir>/<backbone>.safetensors` if it is there, else the backbone's public repository.
    #[must_use]
    pub fn default_for(backbone: Backbone, weights_dir: &Path) -> Self {
        Self::Published { backbone, file: weights_dir.join(format!("{backbone}.safetensors")) }
    }

    /// Reads the weights; `None` only where random ones were asked for. Files from the hub are kept in `cache_dir`.
    ///
    /// # Errors
    /// [`WeightsError::NotFound`] with every place looked at, or what is wrong with the file.
    pub fn load(&self, cache_dir: &Path) -> Result<Option<StateDict>, WeightsError> {
        match self {
            Self::None => Ok(None),
            Self::Bytes { bytes, .. } => StateDict::from_safetensors(bytes).map(Some),
            Self::File(path) => {
                read(path).map_err(|reason| not_found(&path.display().to_string(), vec![reason])).and_then(parse)
            }
            Self::Hub { repository, file } => {
                fetch(repository, file, cache_dir).map_err(|reason| not_found(repository, vec![reason])).and_then(parse)
            }
            Self::Published { backbone, file } => published(*backbone, file, cache_dir).and_then(parse),
        }
    }
}

fn parse(bytes: Vec<u8>) -> Result<Option<StateDict>, WeightsError> {
    StateDict::from_safetensors(&bytes).map(Some)
}

fn not_found(what: &str, looked_at: Vec<String>) -> WeightsError {
    WeightsError::NotFound { what: what.to_owned(), looked_at }
}

fn published(backbone: Backbone, file: &Path, cache_dir: &Path) -> Result<Vec<u8>, WeightsError> {
    let mut looked_at = Vec::new();
    match read(file) {
        Ok(bytes) => return Ok(bytes),
        Err(reason) => looked_at.push(reason),
    }
    match backbone.hub_repository() {
        Some(repository) => match fetch(repository, HUB_FILE, cache_dir) {
            Ok(bytes) => return Ok(bytes),
            Err(reason) => looked_at.push(reason),
        },
        None => looked_at.push("no public repository carries them (`make deps` installs them)".to_owned()),
    }
    Err(not_found(backbone.name(), looked_at))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{} ({error})", path.display()))
}

/// Downloads a file, or takes it from the cache. Two short retries: the job has its own.
fn fetch(repository: &str, file: &str, cache_dir: &Path) -> Result<Vec<u8>, String> {
    let place = format!("the hub's {repository}/{file}");
    let (owner, name) =
        repository.split_once('/').ok_or_else(|| format!("{place} (a repository is written owner/name)"))?;
    let path = HFClientBuilder::new()
        .cache_dir(cache_dir)
        .retry_max_attempts(2)
        .retry_base_delay(Duration::from_millis(500))
        .build_sync()
        .and_then(|client| client.model(owner, name).download_file().filename(file).send())
        .map_err(|error| format!("{place} ({error})"))?;
    read(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_weights_are_an_error_that_lists_every_place_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let source = WeightsSource::default_for(Backbone::EfficientNetLite0, folder.path());
        let message = source.load(folder.path()).unwrap_err().to_string();
        assert!(message.contains("efficientnet_lite0.safetensors"), "{message}");
        assert!(message.contains("then no public repository"), "{message}");
        assert!(WeightsSource::None.load(folder.path()).unwrap().is_none());
    }

    #[test]
    fn a_file_that_is_there_is_read_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resnet18.safetensors");
        fs::write(&path, b"not weights").unwrap();
        let error = WeightsSource::default_for(Backbone::ResNet18, folder.path()).load(folder.path()).unwrap_err();
        assert!(matches!(error, WeightsError::Malformed { .. }), "{error}");
    }
}
