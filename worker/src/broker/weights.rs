//! Where pretrained weights come from: from the folder of installed ones, or from the hub.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use sortinghat_proto::Backbone;

use super::{
    failure::Failure,
    hub::{Hub, HubError, HubSettingsError, Showing},
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

/// Why a backbone has no weights here, and who can change that. The tenant is not told where the worker has looked: the log says it.
const NOT_INSTALLED: &str = "they are not installed where the worker runs";
const INSTALL: &str = "ask whoever runs the worker to install them";

impl Weights {
    pub(super) fn new(folder: PathBuf, hub_folder: PathBuf, shows_token: bool) -> Result<Self, HubSettingsError> {
        Ok(Self { folder, hub: Hub::from_env(hub_folder)?, shows_token })
    }

    /// `<folder>/<backbone>.safetensors` if it is there, else the file of the backbone's public repository; and where it was found.
    pub(super) fn of_backbone(&self, backbone: Backbone) -> Result<(String, File), Failure> {
        let file = self.folder.join(format!("{backbone}.safetensors"));
        let error = match File::open(&file) {
            Ok(opened) => return Ok((file_name(&file), opened)),
            Err(error) => error,
        };
        // The repository is ours to name, not a tenant's.
        let found = backbone.hub_repository().map(|repository| self.of_hub(repository, Showing::Token));
        let elsewhere = match found {
            Some(Ok(found)) => return Ok(found),
            Some(Err(error)) => error.to_string(),
            None => "no public repository carries them".to_owned(),
        };
        tracing::warn!(file = %file.display(), %error, %backbone, elsewhere, "a task needs weights that are not here: install them");
        Err(Failure::NoWeights(format!("{NOT_INSTALLED}, and {elsewhere}: {INSTALL}")))
    }

    /// The weights in a repository of the hub that a tenant names.
    pub(super) fn of_repository(&self, repository: &str) -> Result<(String, File), Failure> {
        let showing = if self.shows_token { Showing::Token } else { Showing::Nothing };
        self.of_hub(repository, showing).map_err(|error| {
            let advice = match error {
                HubError::Missing => format!("name a repository with a file {HUB_FILE}"),
                HubError::Denied => "name a public one, or ask whoever runs the worker for access".to_owned(),
                HubError::Unavailable => "try again later, or ask whoever runs the worker".to_owned(),
                HubError::NoRoom => "ask whoever runs the worker to make room".to_owned(),
            };
            Failure::NoWeights(format!("{error}: {advice}"))
        })
    }

    fn of_hub(&self, repository: &str, showing: Showing) -> Result<(String, File), HubError> {
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
        Weights::new(folder.to_owned(), folder.join("hub"), false).unwrap()
    }

    #[test]
    fn absent_weights_are_an_error_that_says_whom_to_ask_and_names_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let message = weights(folder.path()).of_backbone(Backbone::EfficientnetLite0).unwrap_err().to_string();
        assert_eq!(
            message,
            "they are not installed where the worker runs, and no public repository carries them: ask whoever runs the worker to install them"
        );
    }

    #[test]
    fn installed_weights_are_found_by_the_name_of_their_backbone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("resnet18.safetensors"), b"not weights").unwrap();
        let (origin, _) = weights(folder.path()).of_backbone(Backbone::Resnet18).unwrap();
        assert_eq!(origin, "resnet18.safetensors");
    }
}
