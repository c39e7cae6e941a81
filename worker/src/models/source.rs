//! Where pretrained weights come from.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sortinghat_proto::Backbone;

use super::backbone::Architecture;
use super::hub::Hub;
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

    /// Reads and checks the weights; `None` only where random ones were asked for. Files from the hub are kept in `cache_dir`.
    ///
    /// # Errors
    /// [`WeightsError::NotFound`] with every place looked at, or what is wrong with the file.
    pub fn load(&self, cache_dir: &Path) -> Result<Option<StateDict>, WeightsError> {
        self.read(cache_dir)?.map(|file| StateDict::from_safetensors(&file.bytes)).transpose()
    }

    /// Finds the weights' file without looking into it; `None` only where random ones were asked for.
    ///
    /// # Errors
    /// [`WeightsError::NotFound`] with every place looked at.
    pub fn read(&self, cache_dir: &Path) -> Result<Option<WeightsFile>, WeightsError> {
        let from_hub = |repository: &str, file: &str| {
            let bytes = Hub::from_env().fetch(repository, file, cache_dir);
            let bytes = bytes.map_err(|reason| not_found(repository, vec![reason]))?;
            Ok(WeightsFile { origin: hub_origin(repository, file), bytes: bytes.into() })
        };
        match self {
            Self::None => Ok(None),
            Self::Bytes { name, bytes } => Ok(Some(WeightsFile { origin: name.clone(), bytes: bytes.clone() })),
            Self::File(path) => {
                let bytes = read(path).map_err(|reason| not_found(&path.display().to_string(), vec![reason]))?;
                Ok(Some(WeightsFile { origin: file_name(path), bytes: bytes.into() }))
            }
            Self::Hub { repository, file } => from_hub(repository, file).map(Some),
            Self::Published { backbone, file } => published(*backbone, file, cache_dir).map(Some),
        }
    }
}

/// A file of weights and where it was found.
#[derive(Debug, Clone)]
pub struct WeightsFile {
    /// A file's name or a file of the hub, for provenance.
    pub origin: String,
    /// Its content, not checked yet.
    pub bytes: Bytes,
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn hub_origin(repository: &str, file: &str) -> String {
    format!("hub:{repository}/{file}")
}

fn not_found(what: &str, looked_at: Vec<String>) -> WeightsError {
    WeightsError::NotFound { what: what.to_owned(), looked_at }
}

fn published(backbone: Backbone, file: &Path, cache_dir: &Path) -> Result<WeightsFile, WeightsError> {
    let mut looked_at = Vec::new();
    match read(file) {
        Ok(bytes) => return Ok(WeightsFile { origin: file_name(file), bytes: bytes.into() }),
        Err(reason) => looked_at.push(reason),
    }
    match backbone.hub_repository() {
        Some(repository) => match Hub::from_env().fetch(repository, HUB_FILE, cache_dir) {
            Ok(bytes) => return Ok(WeightsFile { origin: hub_origin(repository, HUB_FILE), bytes: bytes.into() }),
            Err(reason) => looked_at.push(reason),
        },
        None => looked_at.push("no public repository carries them (`make deps` installs them)".to_owned()),
    }
    Err(not_found(backbone.as_str(), looked_at))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{} ({error})", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_weights_are_an_error_that_lists_every_place_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let source = WeightsSource::default_for(Backbone::EfficientnetLite0, folder.path());
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
        let error = WeightsSource::default_for(Backbone::Resnet18, folder.path()).load(folder.path()).unwrap_err();
        assert!(matches!(error, WeightsError::Malformed { .. }), "{error}");
    }
}
