//! Where pretrained weights come from.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sortinghat_proto::Backbone;

use super::backbone::Architecture;
use super::hub::Hub;
use super::weights::WeightsError;

const HUB_FILE: &str = "model.safetensors";

/// Where to load the weights of a backbone from. No source falls back to random weights.
#[derive(Debug, Clone)]
pub enum WeightsSource {
    /// Random weights, if the user asks for them.
    None,
    /// A safetensors file already fetched, from the object store for instance.
    Bytes {
        /// What to call it in messages.
        name: String,
        /// The file.
        bytes: Bytes,
    },
    /// A repository `owner/name` of the Hugging Face hub.
    Hub(String),
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

    /// Finds the weights' file without looking into it; `None` only where random ones were asked for.
    ///
    /// # Errors
    /// [`WeightsError::NotFound`] with every place looked at.
    pub fn read(&self, cache_dir: &Path) -> Result<Option<WeightsFile>, WeightsError> {
        match self {
            Self::None => Ok(None),
            Self::Bytes { name, bytes } => Ok(Some(WeightsFile { origin: name.clone(), bytes: bytes.clone() })),
            Self::Hub(repository) => {
                let file = from_hub(repository, cache_dir).map_err(|reason| not_found(repository, vec![reason]))?;
                Ok(Some(file))
            }
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

/// The weights in a repository of the hub; the error is a reason for people.
fn from_hub(repository: &str, cache_dir: &Path) -> Result<WeightsFile, String> {
    let bytes = Hub::from_env().fetch(repository, HUB_FILE, cache_dir)?;
    Ok(WeightsFile { origin: format!("hub:{repository}/{HUB_FILE}"), bytes: bytes.into() })
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
        Some(repository) => match from_hub(repository, cache_dir) {
            Ok(file) => return Ok(file),
            Err(reason) => looked_at.push(reason),
        },
        None => {
            looked_at.push("no public repository carries them: they must be installed where the worker runs".to_owned())
        }
    }
    Err(not_found(backbone.as_str(), looked_at))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{} ({error})", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::StateDict;

    #[test]
    fn absent_weights_are_an_error_that_lists_every_place_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let source = WeightsSource::default_for(Backbone::EfficientnetLite0, folder.path());
        let message = source.read(folder.path()).unwrap_err().to_string();
        assert!(message.contains("efficientnet_lite0.safetensors"), "{message}");
        assert!(message.contains("then no public repository"), "{message}");
        assert!(WeightsSource::None.read(folder.path()).unwrap().is_none());
    }

    #[test]
    fn a_file_that_is_there_is_read_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resnet18.safetensors");
        fs::write(&path, b"not weights").unwrap();
        let source = WeightsSource::default_for(Backbone::Resnet18, folder.path());
        let file = source.read(folder.path()).unwrap().unwrap();
        let error = StateDict::from_safetensors(&file.bytes).unwrap_err();
        assert!(matches!(error, WeightsError::Malformed { .. }), "{error}");
    }
}
