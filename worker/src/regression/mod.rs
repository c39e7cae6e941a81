//! A logistic regression on the features of a pretrained network: the recipes `fast` and `best`.
//!
//! Nothing here is random but how the photos are dealt into inner folds. All arithmetic is f64 on one thread for each fit, so that
//! the number of threads changes no bit of the result.

mod calibration;
mod choice;
mod comparison;
mod descent;
mod features;
mod fit;
mod folds;
mod penalties;
mod unlike;

pub use calibration::Logits;
pub use choice::{Choice, Measure, Policy, choose, fit, fit_without_choice};
pub use comparison::{Compared, compare};
pub use features::{Examples, Features};
pub use fit::{FitError, Regression};
pub use folds::InnerFolds;
pub use penalties::{Penalty, Searched, fits, predict_held_out, search};
pub use unlike::Unlike;
