//! The URL of an object store, which is checked once and holds no secret from then on.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use url::Url;

/// An object store: `file:///FOLDER` or `s3://BUCKET/PREFIX`. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectStoreUrl(Url);

/// Why a text names no object store. It does not repeat the text, which may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It has another form.
    #[error("an object store is file:///FOLDER or s3://BUCKET/PREFIX")]
    NoStore,
    /// It has a user or a password.
    #[error("the URL of an object store holds no keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead")]
    Secret,
    /// It has a query or a fragment.
    #[error("the URL of an object store holds no options, which would be ignored: set AWS_* variables instead")]
    Options,
}

impl ObjectStoreUrl {
    /// The store in a local folder, which is given by its absolute path.
    ///
    /// # Errors
    /// [`UrlError::NoStore`] if the path is relative.
    pub fn of_folder(path: &Path) -> Result<Self, UrlError> {
        Url::from_file_path(path).map(Self).map_err(|()| UrlError::NoStore)
    }

    /// The folder of a store that is one; `None` for a bucket.
    pub fn folder(&self) -> Option<PathBuf> {
        self.0.to_file_path().ok().filter(|_| self.0.scheme() == "file")
    }

    /// The bucket's name; empty for a folder.
    pub(crate) fn bucket(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The prefix in the bucket, as a URL writes it.
    pub(crate) fn prefix(&self) -> &str {
        self.0.path()
    }
}

impl FromStr for ObjectStoreUrl {
    type Err = UrlError;
    fn from_str(text: &str) -> Result<Self, UrlError> {
        let url = Url::parse(text).map_err(|_| UrlError::NoStore)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::Secret);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(UrlError::Options);
        }
        match url.scheme() {
            // The parser would read `file:objects` as `file:///objects`.
            "file" if text.starts_with("file:///") && url.to_file_path().is_ok() => Ok(Self(url)),
            "s3" if url.host_str().is_some_and(|bucket| !bucket.is_empty()) => Ok(Self(url)),
            _ => Err(UrlError::NoStore),
        }
    }
}

impl TryFrom<String> for ObjectStoreUrl {
    type Error = UrlError;
    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

impl From<ObjectStoreUrl> for String {
    fn from(url: ObjectStoreUrl) -> Self {
        url.0.into()
    }
}

impl fmt::Display for ObjectStoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_a_place_is_refused_with_what_would_do_and_a_secret_is_not_repeated() {
        for (text, error) in [
            ("file:relative", UrlError::NoStore),
            ("s3://", UrlError::NoStore),
            ("http://example.org/bucket", UrlError::NoStore),
            ("objects", UrlError::NoStore),
            ("s3://bucket?region=hunter2", UrlError::Options),
            ("s3://key:hunter2@bucket", UrlError::Secret),
            ("s3://hunter2@bucket", UrlError::Secret),
        ] {
            let refused = text.parse::<ObjectStoreUrl>().expect_err(text);
            assert_eq!(refused, error, "{text}");
            assert!(!refused.to_string().contains("hunter2"), "{refused}");
        }
        assert!(UrlError::NoStore.to_string().contains("s3://BUCKET/PREFIX"));
    }

    #[test]
    fn a_folder_is_told_from_a_bucket() {
        let parse = |text: &str| text.parse::<ObjectStoreUrl>().expect(text);
        assert_eq!(parse("file:///a/b").folder(), Some("/a/b".into()));
        assert_eq!(ObjectStoreUrl::of_folder(Path::new("/a/b")), Ok(parse("file:///a/b")));
        let bucket = parse("s3://photos/team");
        assert_eq!((bucket.folder(), bucket.bucket(), bucket.prefix()), (None, "photos", "/team"));
    }
}
