//! The object store that a URL names, as the coordinator and the workers open it: a folder, or a bucket of S3 or of a server that speaks
//! its protocol. What an object is, its users know.
//!
//! - [`open()`] opens a store. Region, endpoint and credentials of a bucket come from the environment and from `~/.aws`, as for the tools of
//!   AWS.
//! - [`Trouble`] says what an error of a store means: whether it helps to try again, and what to say to a tenant and to an operator.

mod open;
mod profile;
mod proof;
mod s3;
mod trouble;
mod url;

pub use open::{OpenError, Opened, Patience, client_options, open, open_as};
pub use profile::ProfileError;
pub use proof::QUEUE_ID;
pub use s3::{EndpointError, Environment};
pub use trouble::{Trouble, in_short, is_missing};
pub use url::{ObjectStoreUrl, UrlError};
