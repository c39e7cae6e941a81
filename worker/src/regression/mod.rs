//! A logistic regression on the features of a pretrained network: the recipes `fast` and `best`.
//!
//! Nothing here is random but how the photos are dealt into inner folds. All arithmetic is f64 on one thread for each fit, so that
//! the number of threads changes no bit of the result.

mod calibration;
mod choice;
mod descent;
mod features;
mod fit;
mod unlike;

pub use choice::{Choice, Measure, Policy, choose};
pub use features::{Examples, Features};
pub use fit::{FitError, Regression};
pub use unlike::Unlike;
