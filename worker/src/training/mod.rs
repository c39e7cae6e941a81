//! fastai's `fine_tune`, its augmentation and test-time augmentation, reproduced number by number.

pub mod augment;
pub mod batch;
pub mod checkpoint;
pub mod loss;
pub mod metrics;
pub mod mixing;
pub mod optimiser;
pub mod predict;
pub mod progress;
pub mod randomness;
pub mod rate_search;
pub mod recipe;
pub mod schedule;
pub mod trainer;
pub mod tta;
mod validation;
