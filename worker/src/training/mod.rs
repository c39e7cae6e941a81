//! fastai's `fine_tune`, reproduced number by number.

pub mod checkpoint;
pub mod loss;
pub mod mixing;
pub mod optimiser;
pub mod progress;
pub mod rate_search;
pub mod recipe;
pub mod schedule;
pub mod source;
pub mod trainer;
mod validation;
