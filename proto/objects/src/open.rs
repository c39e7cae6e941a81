//! Opens a store.

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    ObjectStoreUrl,
    profile::{self, ProfileError},
    s3::{self, EndpointError, Environment},
};
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig, local::LocalFileSystem, path::Path};

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
    /// The folder cannot be used.
    #[error("failed to create the folder {folder}: {source}", folder = folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A profile was given for a folder, which knows none.
    #[error(
        "a folder has no keys, so that the profile {profile:?} would be ignored: leave it out, or use s3://BUCKET/PREFIX"
    )]
    Ignored {
        /// The profile.
        profile: String,
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

/// Opens the store at `url`. A folder is created; nothing is asked of a bucket yet.
///
/// # Errors
/// [`OpenError`], for people.
pub fn open(url: &ObjectStoreUrl, patience: Patience, environment: &Environment) -> Result<Opened, OpenError> {
    if let Some(folder) = url.folder() {
        fs::create_dir_all(&folder).map_err(|source| OpenError::Folder { folder: folder.clone(), source })?;
        let store = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true);
        return Ok(Opened { store: Arc::new(store), prefix: Path::default(), address: url.to_string() });
    }
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
    let prefix = Path::from_url_path(url.prefix()).map_err(object_store::Error::from)?;
    Ok(Opened { store: Arc::new(store), prefix, address })
}

/// Opens the same bucket with the keys of a profile of `~/.aws`, whatever keys the environment has.
///
/// # Errors
/// [`OpenError`], for people: also if the profile has no keys, or if the store is a folder.
pub fn open_as(
    profile: &str,
    url: &ObjectStoreUrl,
    patience: Patience,
    environment: &Environment,
) -> Result<Opened, OpenError> {
    if url.folder().is_some() {
        return Err(OpenError::Ignored { profile: profile.to_owned() });
    }
    let environment = environment.as_profile(profile);
    match profile::find(&environment)? {
        Some(found) if found.keys.is_some() => open(url, patience, &environment),
        _ => Err(ProfileError::Keyless { name: profile.to_owned() }.into()),
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
        open(&url.parse().expect("a URL"), PATIENCE, &Environment::of(variables.iter().copied()))
    }

    #[test]
    fn an_operator_is_told_the_url_and_the_endpoint() {
        let endpoint = ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000");
        let opened = open_with("s3://photos/team", &[endpoint, ("AWS_CONFIG_FILE", "/nonexistent")]).expect("it opens");
        assert_eq!(opened.address, "s3://photos/team at http://127.0.0.1:9000");
        assert_eq!(opened.prefix, Path::from("team"));
    }

    #[test]
    fn a_bucket_is_opened_with_the_keys_of_a_profile_that_has_some_whatever_keys_the_environment_has() {
        let home = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(home.path().join(".aws")).expect("writable");
        let profiles = "[team-a]\naws_access_key_id = AKIA\naws_secret_access_key = s\n[bare]\nregion = eu-west-3\n";
        fs::write(home.path().join(".aws/credentials"), profiles).expect("writable");
        let own = [
            ("HOME", home.path().to_str().expect("UTF-8")),
            ("AWS_ACCESS_KEY_ID", "AKIZ"),
            ("AWS_SECRET_ACCESS_KEY", "z"),
        ];
        let open_as = |profile: &str, url: &str| {
            open_as(profile, &url.parse().expect("a URL"), PATIENCE, &Environment::of(own))
                .map_err(|error| error.to_string())
        };
        assert_eq!(open_as("team-a", "s3://photos/all").expect("it has keys").prefix, Path::from("all"));
        for (profile, url, says) in [
            ("bare", "s3://photos", "\"bare\" has no keys"),
            ("nobody", "s3://photos", "\"nobody\", which is neither"),
            ("team-a", "file:///tmp", "\"team-a\" would be ignored"),
        ] {
            let refused = open_as(profile, url).expect_err("it cannot be used");
            assert!(refused.contains(says), "{refused}");
        }
    }
}
