//! What a saved model says about itself, beside its weights.

use serde::{Deserialize, Serialize};

use super::backbone::Backbone;

/// Version of [`ModelConfig`] that this program writes and reads.
pub const MODEL_FORMAT: u32 = 1;

/// Everything needed to rebuild a network around its weights, and to feed it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// [`MODEL_FORMAT`] when it was written.
    pub format: u32,
    /// The network without its head.
    pub backbone: Backbone,
    /// Class names, sorted; logit i belongs to class i.
    pub classes: Vec<String>,
    /// Side of the square input in pixels.
    pub image_size: u32,
    /// Subtracted from R, G, B in 0..1.
    pub mean: [f32; 3],
    /// Divides R, G, B afterwards.
    pub std: [f32; 3],
    /// Dropout before the last layer; half of it before the first of the head.
    pub dropout: f64,
}

/// A model's description makes no sense.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum BundleError {
    /// Written by a newer program.
    #[error("model has format {found}, this program reads up to {MODEL_FORMAT}: update it")]
    Format {
        /// The model's format.
        found: u32,
    },
    /// A classifier needs at least two.
    #[error("model has {count} classes, needed are at least two")]
    TooFewClasses {
        /// How many it has.
        count: usize,
    },
    /// The class list is the meaning of the outputs.
    #[error("model's class names are not sorted and distinct: {first:?} stands before {second:?}")]
    Unsorted {
        /// The earlier one.
        first: String,
        /// The one that should not follow it.
        second: String,
    },
    /// A number outside its range.
    #[error("model's {field} is out of range: {found}")]
    OutOfRange {
        /// Which.
        field: &'static str,
        /// Its value.
        found: String,
    },
}

impl ModelConfig {
    /// The description of a model to be trained from `backbone`, with fastai's dropout of 0.5.
    #[must_use]
    pub fn new(backbone: Backbone, classes: Vec<String>, image_size: u32) -> Self {
        let (mean, std) = (backbone.mean(), backbone.std());
        Self { format: MODEL_FORMAT, backbone, classes, image_size, mean, std, dropout: 0.5 }
    }

    /// Refuses what cannot be built.
    ///
    /// # Errors
    /// The first field that makes no sense.
    pub fn check(&self) -> Result<(), BundleError> {
        if self.format == 0 || self.format > MODEL_FORMAT {
            return Err(BundleError::Format { found: self.format });
        }
        if self.classes.len() < 2 {
            return Err(BundleError::TooFewClasses { count: self.classes.len() });
        }
        if let Some(pair) = self.classes.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(BundleError::Unsorted { first: pair[0].clone(), second: pair[1].clone() });
        }
        let out_of_range = |field, found: String| Err(BundleError::OutOfRange { field, found });
        if !(32..=1024).contains(&self.image_size) {
            return out_of_range("image_size", format!("{} (32 to 1024)", self.image_size));
        }
        if !self.std.iter().all(|std| std.is_finite() && *std > 0.0) || !self.mean.iter().all(|mean| mean.is_finite()) {
            return out_of_range("normalisation", format!("mean {:?}, std {:?}", self.mean, self.std));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return out_of_range("dropout", self.dropout.to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_survives_json_and_says_what_is_wrong_with_it() {
        let config = ModelConfig::new(Backbone::ResNet34, vec!["a".into(), "b".into()], 224);
        let json = serde_json::to_string(&config).unwrap();
        assert!(json.contains(r#""backbone":"resnet34""#), "{json}");
        assert_eq!(serde_json::from_str::<ModelConfig>(&json).unwrap(), config);
        assert_eq!(config.check(), Ok(()));
        let wrong = |change: fn(&mut ModelConfig)| {
            let mut changed = config.clone();
            change(&mut changed);
            changed.check().unwrap_err().to_string()
        };
        assert!(wrong(|c| c.classes.reverse()).contains("not sorted"));
        assert!(wrong(|c| c.classes.truncate(1)).contains("1 classes"));
        assert!(wrong(|c| c.format = 2).contains("update"));
        assert!(wrong(|c| c.std[1] = 0.0).contains("normalisation"));
        assert!(wrong(|c| c.image_size = 0).contains("image_size"));
    }
}
