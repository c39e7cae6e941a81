//! The connection to a coordinator, as a client and a worker make it: the address, what is shown to the coordinator, and whose certificates
//! are trusted. Tokens and certificates that lie in files may be replaced at any time.
//!
//! What certificates say is read here for the coordinator, too.

mod certificate;
mod endpoint;
mod error;
mod fresh;

pub use certificate::{Certificate, CertificateError, expiry, expiry_warning, first_expiry, pem_trouble};
pub use endpoint::{CertificateFiles, Endpoint, Pace, Prepared, Source, is_loopback};
pub use error::{LinkError, root_cause};
pub use fresh::{Bearer, Connection, Link};
