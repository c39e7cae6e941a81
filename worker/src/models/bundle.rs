//! What is needed besides the weights to build a network.

use sortinghat_proto::{Backbone, TrainingCrop, manifest::UnlikeScale};

use super::{
    backbone::Architecture,
    square::{Framing, Square},
};

/// Everything needed to rebuild a network around its weights, and to feed it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The network without its head.
    pub backbone: Backbone,
    /// Class names, sorted; logit i belongs to class i.
    pub classes: Vec<String>,
    /// What the network sees of each photo. A prediction is the mean of the probabilities over all squares.
    pub squares: Vec<Square>,
    /// Subtracted from R, G, B in 0..1.
    pub mean: [f32; 3],
    /// Divides R, G, B afterwards.
    pub std: [f32; 3],
    /// What turns the last feature map into logits.
    pub head: HeadConfig,
}

/// The head of a network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HeadConfig {
    /// fastai's.
    Fastai {
        /// Dropout before the last layer; half of it before the first.
        dropout: f64,
    },
    /// A regression on pooled features.
    Regression {
        /// What its logits are divided by.
        temperature: f64,
        /// What tells photos that resemble none of the classes, if the model can tell them.
        unlike: Option<UnlikeScale>,
    },
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
        let squares = vec![Square { size: image_size as usize, framing: Framing::Crop(TrainingCrop::Resize) }];
        Self { backbone, classes, squares, mean, std, head: HeadConfig::Fastai { dropout: 0.5 } }
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
        if self.squares.is_empty() {
            return out_of_range("squares", "none".to_owned());
        }
        if let Some(square) = self.squares.iter().find(|square| !(32..=1024).contains(&square.size)) {
            return out_of_range("image_size", format!("{} (32 to 1024)", square.size));
        }
        if !self.std.iter().all(|std| std.is_finite() && *std > 0.0) || !self.mean.iter().all(|mean| mean.is_finite()) {
            return out_of_range("normalisation", format!("mean {:?}, std {:?}", self.mean, self.std));
        }
        match self.head {
            HeadConfig::Fastai { dropout } if !(0.0..1.0).contains(&dropout) => {
                out_of_range("dropout", dropout.to_string())
            }
            HeadConfig::Regression { temperature, .. } if !(temperature.is_finite() && temperature > 0.0) => {
                out_of_range("temperature", temperature.to_string())
            }
            HeadConfig::Fastai { .. } | HeadConfig::Regression { .. } => Ok(()),
        }
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
        assert!(wrong(|c| c.squares[0].size = 0).contains("image_size"));
        assert!(wrong(|c| c.squares.clear()).contains("squares"));
        assert!(wrong(|c| c.head = HeadConfig::Fastai { dropout: 1.0 }).contains("dropout"));
        assert!(
            wrong(|c| c.head = HeadConfig::Regression { temperature: f64::NAN, unlike: None }).contains("temperature")
        );
    }
}
