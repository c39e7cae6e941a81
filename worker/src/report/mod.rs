//! Writes an evaluation, or an audit, as one self-contained HTML page. The page needs no network and no other file, and it is safe
//! whatever classes and files are called.
//!
//! The templates, the style and the script lie in `worker/templates/report`; `base.html` is what both pages have in common. Each section
//! of a page has a file there and a module here, which makes texts and lengths that the template only places.
//!
//! Every name goes through the template's escaping. What the script needs is JSON in which no markup can end. A content security policy
//! lets no other script run, should both fail.

mod accuracy;
mod audit;
mod classes;
mod confidence;
mod lengths;
mod origin;
mod page;
mod photos;
mod pictures;

pub use audit::AuditReport;
pub use origin::Noticed;
pub use page::{Report, ReportError};
pub use pictures::Pictures;
