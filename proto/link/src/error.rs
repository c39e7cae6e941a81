//! Why a connection cannot even be tried, and why one has failed.

use std::{error::Error, io, iter, path::PathBuf};

use crate::CertificateError;

/// Why a connection cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The address cannot be used, by itself or beside what is shown to it.
    #[error("{reason}")]
    Address {
        /// What is wrong, and what to write instead.
        reason: String,
    },
    /// The token cannot be sent.
    #[error("the token{} {reason}", .file.as_ref().map(|file| format!(" in {}", file.display())).unwrap_or_default())]
    Token {
        /// The file that holds the token, if one does.
        file: Option<PathBuf>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file cannot be read.
    #[error("failed to read {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file holds no certificates that can be used.
    #[error("{path} cannot be used: {source}", path = path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        source: CertificateError,
    },
    /// The certificates and the key cannot be used together.
    #[error("the certificates to trust, or the certificate to show and its key, cannot be used: {reason}")]
    Tls {
        /// What TLS has to say.
        reason: String,
    },
}

/// The first cause of an error. The text of tonic's own error is only "transport error".
pub fn root_cause(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |cause| (**cause).source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}
