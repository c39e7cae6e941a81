//! Opens the object store that a URL names.

use std::{fs, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, local::LocalFileSystem, path::Path,
};
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// One request may take this long, as an upload may go over a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Opens the store. Returns it with the prefix of all objects. The error is a reason for people to read.
pub(super) fn open(url: &Url, patience: Duration) -> Result<(Arc<dyn ObjectStore>, Path), String> {
    match url.scheme() {
        "file" => Ok((folder(url)?, Path::default())),
        "s3" => {
            let store = s3(url, patience).map_err(|error| error.to_string())?;
            Ok((store, Path::from_url_path(url.path()).map_err(|error| error.to_string())?))
        }
        scheme => Err(format!("{scheme}:// is not supported")),
    }
}

fn folder(url: &Url) -> Result<Arc<dyn ObjectStore>, String> {
    let folder = url.to_file_path().map_err(|()| "not a path on this machine".to_owned())?;
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let store = LocalFileSystem::new_with_prefix(&folder).map_err(|error| error.to_string())?;
    Ok(Arc::new(store.with_fsync(true)))
}

/// Opens a bucket. Credentials, region and endpoint come from the usual `AWS_*` variables.
fn s3(url: &Url, patience: Duration) -> object_store::Result<Arc<dyn ObjectStore>> {
    // The HTTP client uses the process's ciphers. An error means that they have been chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let endpoint = std::env::var("AWS_ENDPOINT_URL").or_else(|_| std::env::var("AWS_ENDPOINT"));
    let client = ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
        // TLS is left out only for an endpoint that is given as http://.
        .with_allow_http(endpoint.is_ok_and(|endpoint| endpoint.starts_with("http://")));
    // By default, retries would go on for minutes, after a caller has given up.
    let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: 5, retry_timeout: patience };
    let store = AmazonS3Builder::from_env()
        .with_bucket_name(url.host_str().unwrap_or_default())
        .with_client_options(client)
        .with_retry(retry)
        .build()?;
    Ok(Arc::new(store))
}
