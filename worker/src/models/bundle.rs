//! What is needed besides the weights to build a network.

use sortinghat_proto::{Backbone, TrainingCrop};

use super::backbone::Architecture;

/// Everything needed to rebuild a network around its weights, and to feed it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The network without its head.
    pub backbone: Backbone,
    /// Class names, sorted; logit i belongs to class i.
    pub classes: Vec<String>,
    /// Side of the square input in pixels.
    pub image_size: u32,
    /// How that square is cut from a photo.
    pub crop: TrainingCrop,
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
    /// A classifier needs at least two classes.
    #[error("the model has {count} classes, but at least two are needed")]
    TooFewClasses {
        /// How many it has.
        count: usize,
    },
    /// The class names are not in order. The position of a name says which output belongs to the class.
    #[error("the model's class names are not sorted and distinct: {first:?} stands before {second:?}")]
    Unsorted {
        /// The earlier one.
        first: String,
        /// The one that should not follow it.
        second: String,
    },
    /// A number outside its range.
    #[error("the model's {field} is out of range: {found}")]
    OutOfRange {
        /// Which.
        field: &'static str,
        /// Its value.
        found: String,
    },
}

impl ModelConfig {
    /// The description of a model to be trained from `backbone`, with fastai's dropout of 0.5 and `Resize`.
    #[must_use]
    pub fn new(backbone: Backbone, classes: Vec<String>, image_size: u32) -> Self {
        let (mean, std) = (backbone.mean(), backbone.std());
        Self { backbone, classes, image_size, crop: TrainingCrop::Resize, mean, std, dropout: 0.5 }
    }

    /// Refuses what cannot be built.
    ///
    /// # Errors
    /// The first field that makes no sense.
    pub fn check(&self) -> Result<(), BundleError> {
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
    fn a_description_says_what_is_wrong_with_it() {
        let config = ModelConfig::new(Backbone::Resnet34, vec!["a".into(), "b".into()], 224);
        assert_eq!(config.check(), Ok(()));
        let wrong = |change: fn(&mut ModelConfig)| {
            let mut changed = config.clone();
            change(&mut changed);
            changed.check().unwrap_err().to_string()
        };
        assert!(wrong(|c| c.classes.reverse()).contains("not sorted"));
        assert!(wrong(|c| c.classes.truncate(1)).contains("1 classes"));
        assert!(wrong(|c| c.std[1] = 0.0).contains("normalisation"));
        assert!(wrong(|c| c.image_size = 0).contains("image_size"));
    }
}
