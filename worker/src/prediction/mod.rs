//! From pixels to class probabilities: batches, the random views of test-time augmentation, and what is computed of predictions.
//!
//! Training uses the batches and the transforms; evaluation and classification need nothing of training.

pub mod augment;
pub mod batch;
pub mod metrics;
pub mod precision;
pub mod predict;
pub mod probabilities;
pub mod tta;
