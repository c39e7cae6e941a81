//! Writes an evaluation as one self-contained HTML page. The page needs no network and no other file, and it is safe whatever classes
//! and files are called.
//!
//! Every name goes through the template's escaping; the class list, which the script needs, is JSON in which no markup can
//! end; a content security policy lets no other script run, should both fail.

mod page;
mod pictures;
mod sections;

pub use page::{Report, ReportError};
pub use pictures::Pictures;
