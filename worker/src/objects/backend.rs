//! Opens the object store that a URL names.

use std::{env, fs, sync::Arc, time::Duration};

use object_store::{BackoffConfig, ObjectStore, RetryConfig, aws::AmazonS3Builder, local::LocalFileSystem, path::Path};
use url::Url;

use super::ObjectError;
use crate::https;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Retries end long before a lease does, so that an attempt fails while it can still report that the store cannot be reached.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the store and returns it with the prefix below which objects lie.
pub(super) fn open(url: &Url) -> Result<(Arc<dyn ObjectStore>, Path), ObjectError> {
    let bad = |reason: String| ObjectError::BadUrl { url: url.to_string(), reason };
    match url.scheme() {
        "file" => {
            let folder = url.to_file_path().map_err(|()| bad("not a path on this machine".into()))?;
            fs::create_dir_all(&folder).map_err(|error| bad(error.to_string()))?;
            let store = LocalFileSystem::new_with_prefix(&folder).map_err(|error| bad(error.to_string()))?;
            Ok((Arc::new(store.with_fsync(true)), Path::default()))
        }
        "s3" => {
            let store = s3(url).map_err(|error| bad(error.to_string()))?;
            let prefix = Path::from_url_path(url.path()).map_err(|error| bad(error.to_string()))?;
            Ok((store, prefix))
        }
        scheme => Err(bad(format!("{scheme}:// is not supported"))),
    }
}

/// Credentials, region and endpoint come from the usual `AWS_*` variables.
fn s3(url: &Url) -> object_store::Result<Arc<dyn ObjectStore>> {
    let endpoint = env::var("AWS_ENDPOINT_URL").or_else(|_| env::var("AWS_ENDPOINT")).unwrap_or_default();
    let store = AmazonS3Builder::from_env()
        .with_bucket_name(url.host_str().unwrap_or_default())
        .with_client_options(https::client_options(&endpoint).with_timeout(REQUEST_TIMEOUT))
        .with_retry(RetryConfig { backoff: BackoffConfig::default(), max_retries: 5, retry_timeout: RETRY_TIMEOUT })
        .build()?;
    Ok(Arc::new(store))
}
