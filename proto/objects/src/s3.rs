//! The settings of a bucket, from the variables and files that the tools of AWS use.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use url::{Host, Url};

use crate::{
    ObjectStoreUrl,
    open::OpenError,
    profile::{self, Profile},
};

/// The variables of the environment that matter here. Some hold keys, so that their values are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let relevant = variables.filter(|(name, _)| name.starts_with("AWS_") || name == "HOME");
        Self { variables: relevant.map(|(name, value)| (name, value.to_string_lossy().into_owned())).collect() }
    }

    /// An environment of these variables.
    pub fn of<'v>(variables: impl IntoIterator<Item = (&'v str, &'v str)>) -> Self {
        Self { variables: variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect() }
    }

    /// This environment with the keys of a profile instead of its own.
    pub(crate) fn as_profile(&self, name: &str) -> Self {
        let mut variables = self.variables.clone();
        variables
            .retain(|variable, _| !profile::OTHER_SOURCES.contains(&&**variable) && variable != "AWS_SESSION_TOKEN");
        variables.insert("AWS_PROFILE".to_owned(), name.to_owned());
        Self { variables }
    }

    /// The value of a variable, unless it is not set or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A file of `~/.aws`, which a variable may name.
    pub(crate) fn aws_file(&self, variable: &str, usual: &str) -> Option<PathBuf> {
        let usual = || Some(PathBuf::from(self.get("HOME")?).join(".aws").join(usual));
        self.get(variable).map(PathBuf::from).or_else(usual)
    }

    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

/// Why an endpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It has a user or a password, or options, which would be shown wherever the endpoint is.
    #[error(
        "{setting} has a user, a password or options in it: write https://HOST[:PORT], and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    Secret {
        /// The variable, or the file that holds it.
        setting: String,
    },
    /// It does not begin with `https://` or `http://`.
    #[error(
        "{setting} is {value:?}, which is no URL: write https://HOST[:PORT], or http://HOST[:PORT] for a server without TLS"
    )]
    NoUrl {
        /// The variable, or the file that holds it.
        setting: String,
        /// As it was given.
        value: String,
    },
    /// Everybody on the way could read the photos.
    #[error(
        "{setting} is {value:?}: without TLS everybody on the way can read the objects; use https://, or set AWS_ALLOW_HTTP=true to \
         allow this"
    )]
    PlainHttp {
        /// The variable, or the file that holds it.
        setting: String,
        /// As it was given.
        value: String,
    },
}

/// A bucket that is not opened yet.
pub(crate) struct Bucket {
    pub(crate) builder: AmazonS3Builder,
    /// The endpoint, unless it is the usual one of AWS.
    pub(crate) endpoint: Option<String>,
    pub(crate) is_plain_http: bool,
}

/// The bucket that a URL names.
pub(crate) fn bucket(url: &ObjectStoreUrl, environment: &Environment) -> Result<Bucket, OpenError> {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in environment.variables.iter().filter(|(_, value)| !value.is_empty()) {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let profile = profile::find(environment)?.unwrap_or_default();
    let endpoint = endpoint(environment, &profile)?;
    let is_plain_http = endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme() == "http");
    if let Some(endpoint) = &endpoint {
        let endpoint = endpoint.as_str().trim_end_matches('/');
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    if let Some(keys) = &profile.keys {
        builder = builder.with_access_key_id(&keys.id).with_secret_access_key(&keys.secret);
        if let Some(token) = &keys.session_token {
            builder = builder.with_token(token);
        }
    }
    let has_region = ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().any(|name| environment.get(name).is_some());
    if let Some(region) = profile.region.filter(|_| !has_region) {
        builder = builder.with_region(region);
    }
    let endpoint = endpoint.map(|endpoint| endpoint.as_str().trim_end_matches('/').to_owned());
    Ok(Bucket { builder: builder.with_bucket_name(url.bucket()), endpoint, is_plain_http })
}

/// The endpoint that was set first, in this order; `None` for the usual one of AWS.
fn endpoint(environment: &Environment, profile: &Profile) -> Result<Option<Url>, EndpointError> {
    let variables = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let set = variables.iter().find_map(|name| Some(((*name).to_owned(), environment.get(name)?.to_owned())));
    let Some((setting, value)) = set.or_else(|| profile.endpoint.clone()) else { return Ok(None) };
    if value.contains(['@', '?', '#']) {
        return Err(EndpointError::Secret { setting });
    }
    let url = Url::parse(&value).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let Some(url) = url else { return Err(EndpointError::NoUrl { setting, value }) };
    if url.scheme() == "http" && !is_loopback(&url) && !environment.is_true("AWS_ALLOW_HTTP") {
        return Err(EndpointError::PlainHttp { setting, value });
    }
    Ok(Some(url))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint_of(variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let found = endpoint(&Environment::of(variables.iter().copied()), &Profile::default());
        found.map(|url| url.map(|url| url.to_string())).map_err(|error| error.to_string())
    }

    #[test]
    fn the_endpoint_of_s3_goes_before_the_endpoint_of_all_services() {
        let all = ("AWS_ENDPOINT_URL", "https://all.example.org");
        let s3 = ("AWS_ENDPOINT_URL_S3", "https://s3.example.org");
        assert_eq!(endpoint_of(&[]), Ok(None));
        assert_eq!(endpoint_of(&[all]), Ok(Some("https://all.example.org/".into())));
        assert_eq!(endpoint_of(&[all, s3]), Ok(Some("https://s3.example.org/".into())));
    }

    #[test]
    fn an_endpoint_without_a_scheme_is_refused_with_what_to_write() {
        for value in ["localhost:9000", "minio.example.org", "ftp://minio", "https://"] {
            let refused = endpoint_of(&[("AWS_ENDPOINT_URL", value)]).expect_err("no URL");
            assert!(refused.contains("AWS_ENDPOINT_URL") && refused.contains("http://HOST"), "{refused}");
        }
    }

    #[test]
    fn a_password_in_an_endpoint_is_refused_without_showing_it_and_no_variable_is_shown() {
        for value in ["https://key:hunter2@minio.example.org", "key:hunter2@minio", "https://minio?key=hunter2"] {
            let refused = endpoint_of(&[("AWS_ENDPOINT_URL", value)]).expect_err("a secret");
            assert!(refused.contains("AWS_ENDPOINT_URL") && !refused.contains("hunter2"), "{refused}");
        }
        let environment = Environment::of([("AWS_SECRET_ACCESS_KEY", "hunter2")]);
        assert_eq!(format!("{environment:?}"), r#"{"AWS_SECRET_ACCESS_KEY"}"#);
    }

    #[test]
    fn without_tls_another_machine_is_asked_only_if_that_is_allowed() {
        let elsewhere = ("AWS_ENDPOINT_URL", "http://10.0.0.7:9000");
        let refused = endpoint_of(&[elsewhere]).expect_err("everybody could read along");
        assert!(refused.contains("AWS_ALLOW_HTTP=true"), "{refused}");
        endpoint_of(&[elsewhere, ("AWS_ALLOW_HTTP", "true")]).expect("it is allowed");
        for here in ["http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]:9000"] {
            endpoint_of(&[("AWS_ENDPOINT_URL", here)]).expect("it stays on this machine");
        }
    }
}
