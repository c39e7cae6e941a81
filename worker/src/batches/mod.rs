//! Makes batches of pixels from stored photos. Photos are decoded ahead of the network, on threads of their own, in bounded memory.
//!
//! A batch depends on the photos and on what was asked for, never on threads or timing.

mod ahead;
mod cut;
mod gallery;
mod stored;
mod training;
mod views;

pub use ahead::Ahead;
pub use gallery::{Gallery, StoredPhotos, Unreadable};
pub use stored::{DatasetPhotos, Selection, UploadedPhotos};
pub use training::TrainingPhotos;
pub(crate) use training::undecodable;
pub use views::{Unseen, ViewPlan, Views, views};
