//! The network that stays loaded between tasks.

use sortinghat_proto::Digest;

use crate::{models::Classifier, task::JobError};

/// The network that was used last, so that a second task with the same model does not load it again. One, because a
/// network can fill a GPU.
#[derive(Debug, Default)]
pub struct WarmModel {
    kept: Option<(Digest, Classifier)>,
}

impl WarmModel {
    /// The network of the model whose manifest has this digest; `load` is called if another or none is loaded.
    ///
    /// # Errors
    /// Those of `load`; then nothing is kept.
    pub fn get(
        &mut self,
        manifest: &Digest,
        load: impl FnOnce() -> Result<Classifier, JobError>,
    ) -> Result<&Classifier, JobError> {
        let kept = match self.kept.take() {
            Some((digest, network)) if digest == *manifest => (digest, network),
            other => {
                // Freed before the next one is loaded: both may not fit.
                drop(other);
                (manifest.clone(), load()?)
            }
        };
        Ok(&self.kept.insert(kept).1)
    }

    /// Frees the network, to make room for training.
    pub fn release(&mut self) {
        self.kept = None;
    }
}
