//! What predictions say about a model: accuracy with its uncertainty, by class, by pair, by photo, and after a person's
//! decisions. Pure: no tensor, no file.

mod decisions;
mod findings;
mod words;

pub use decisions::{UnusableDecisions, apply as apply_decisions};
pub use findings::{Findings, MAX_REVIEWED_ERRORS, MAX_REVIEWED_RIGHT, Prediction, Subject};
pub use words::{comparison_sentence, count, headline, interval, percent, summary, tta_name};
