//! What predictions say about a model: accuracy with its uncertainty, by class, by pair, by photo, and after a person's
//! decisions. This room is pure: it touches no tensor and no file.

pub mod audit;
mod confidence;
pub mod confident;
mod decisions;
mod findings;
pub mod posterior;
mod words;

pub use decisions::{UnusableDecisions, apply as apply_decisions};
pub use findings::{MAX_REVIEWED_RIGHT, Prediction, Subject, list_doubts, measure};
pub use words::{basis, comparison_sentence, headline, interval, known_photos_sentence, summary, tta_name};
