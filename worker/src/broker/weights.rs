//! Where pretrained weights come from: from the folder of installed ones, or from the hub.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use sortinghat_proto::Backbone;

use super::{
    failure::Failure,
    hub::{Hub, Showing},
};
use crate::models::Architecture as _;

const HUB_FILE: &str = "model.safetensors";

/// Installed weights, and the hub.
pub(super) struct Weights {
    /// Where `make deps` puts weights.
    folder: PathBuf,
    hub: Hub,
    /// Whether what tenants name is fetched with the operator's token.
    shows_token: bool,
}

impl Weights {
    pub(super) fn new(folder: PathBuf, hub_folder: PathBuf, shows_token: bool) -> Self {
        Self { folder, hub: Hub::from_env(hub_folder), shows_token }
    }

    /// `<folder>/<backbone>.safetensors` if it is there, else the file of the backbone's public repository; and where it was found.
    pub(super) fn of_backbone(&self, backbone: Backbone) -> Result<(String, File), Failure> {
        let file = self.folder.join(format!("{backbone}.safetensors"));
        let mut looked_at = match File::open(&file) {
            Ok(opened) => return Ok((file_name(&file), opened)),
            Err(error) => vec![format!("{} ({error})", file.display())],
        };
        let Some(repository) = backbone.hub_repository() else {
            looked_at
                .push("no public repository carries them: they must be installed where the worker runs".to_owned());
            return Err(Failure::NoWeights(looked_at));
        };
        // The repository is ours to name, not a tenant's.
        self.of_hub(repository, Showing::Token).map_err(|reason| {
            looked_at.push(reason);
            Failure::NoWeights(looked_at)
        })
    }

    /// The weights in a repository of the hub that a tenant names.
    pub(super) fn of_repository(&self, repository: &str) -> Result<(String, File), Failure> {
        let showing = if self.shows_token { Showing::Token } else { Showing::Nothing };
        self.of_hub(repository, showing).map_err(|reason| Failure::NoWeights(vec![reason]))
    }

    fn of_hub(&self, repository: &str, showing: Showing) -> Result<(String, File), String> {
        let file = self.hub.fetch(repository, HUB_FILE, showing)?;
        Ok((format!("hub:{repository}/{HUB_FILE}"), file))
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn weights(folder: &Path) -> Weights {
        Weights::new(folder.to_owned(), folder.join("hub"), false)
    }

    #[test]
    fn absent_weights_are_an_error_that_lists_every_place_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let message = weights(folder.path()).of_backbone(Backbone::EfficientnetLite0).unwrap_err().to_string();
        assert!(message.contains("efficientnet_lite0.safetensors"), "{message}");
        assert!(message.contains("then no public repository"), "{message}");
    }

    #[test]
    fn installed_weights_are_found_by_the_name_of_their_backbone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("resnet18.safetensors"), b"not weights").unwrap();
        let (origin, _) = weights(folder.path()).of_backbone(Backbone::Resnet18).unwrap();
        assert_eq!(origin, "resnet18.safetensors");
    }
}
