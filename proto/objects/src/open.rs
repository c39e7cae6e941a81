//! Opens a store.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig, local::LocalFileSystem, path::Path};
use url::Url;

use crate::{
    profile::ProfileError,
    s3::{self, EndpointError, Environment},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long to wait for a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long one request may take.
    pub request: Duration,
    /// How often a request is tried again.
    pub retries: usize,
    /// For how long requests are tried again, counted from the first one.
    pub retry_for: Duration,
}

/// An open store.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The prefix below which all objects lie.
    pub prefix: Path,
    /// The store's URL and, if it is not the usual one, its endpoint: for operators. It holds no secret.
    pub address: String,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL has another scheme.
    #[error("{scheme}:// is not supported; use file:///FOLDER or s3://BUCKET/PREFIX")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// The URL names no path.
    #[error("the URL names no folder of this machine; use file:///FOLDER")]
    NoPath,
    /// The folder cannot be used.
    #[error("failed to create the folder {folder}: {source}", folder = folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The endpoint of the bucket cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The profile of `~/.aws` cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The library refuses the settings.
    #[error("{0}")]
    Settings(#[from] object_store::Error),
}

/// Opens the store at `url`: `file:///FOLDER`, whose folder is created, or `s3://BUCKET/PREFIX`. Nothing is asked of a bucket yet.
///
/// # Errors
/// [`OpenError`], for people.
pub fn open(url: &Url, patience: Patience, environment: &Environment) -> Result<Opened, OpenError> {
    match url.scheme() {
        "file" => {
            let folder = url.to_file_path().map_err(|()| OpenError::NoPath)?;
            fs::create_dir_all(&folder).map_err(|source| OpenError::Folder { folder: folder.clone(), source })?;
            let store = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true);
            Ok(Opened { store: Arc::new(store), prefix: Path::default(), address: url.to_string() })
        }
        "s3" => {
            let bucket = s3::bucket(url, environment)?;
            let address = match &bucket.endpoint {
                Some(endpoint) => format!("{url} at {endpoint}"),
                None => url.to_string(),
            };
            let client = client_options(bucket.is_plain_http).with_timeout(patience.request);
            let retry = RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: patience.retries,
                retry_timeout: patience.retry_for,
            };
            let store = bucket.builder.with_client_options(client).with_retry(retry).build()?;
            let prefix = Path::from_url_path(url.path()).map_err(object_store::Error::from)?;
            Ok(Opened { store: Arc::new(store), prefix, address })
        }
        scheme => Err(OpenError::Scheme { scheme: scheme.to_owned() }),
    }
}

/// Options of an HTTP client, which speaks without TLS only if `is_plain_http`.
pub fn client_options(is_plain_http: bool) -> ClientOptions {
    // The client brings no ciphers of its own. An error says that they have been chosen before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_allow_http(is_plain_http)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { request: Duration::from_secs(1), retries: 0, retry_for: Duration::from_secs(1) };

    fn open_with(url: &str, variables: &[(&str, &str)]) -> Result<Opened, OpenError> {
        open(&Url::parse(url).expect("a URL"), PATIENCE, &Environment::of(variables.iter().copied()))
    }

    #[test]
    fn a_url_that_names_no_store_is_refused_with_what_would_do() {
        let refused = open_with("http://example.org/bucket", &[]).expect_err("no store").to_string();
        assert!(refused.contains("s3://BUCKET/PREFIX"), "{refused}");
    }

    #[test]
    fn an_operator_is_told_the_url_and_the_endpoint() {
        let endpoint = ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000");
        let opened = open_with("s3://photos/team", &[endpoint, ("AWS_CONFIG_FILE", "/nonexistent")]).expect("it opens");
        assert_eq!(opened.address, "s3://photos/team at http://127.0.0.1:9000");
        assert_eq!(opened.prefix, Path::from("team"));
    }
}
