//! Provider files: `NAME.toml` in the folder of providers. The operator of the worker writes them, and no user sees the keys.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use sortinghat_proto::Name;
use url::Url;

use super::{
    Described, MediaWiki, Openverse, Provider, Question, SearchError, USUAL_INTERVAL,
    described::{Paging, Places, Request},
};

/// A provider file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error("failed to read {path}: {source}", path = path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It does not say what it should.
    #[error("the provider file {path} cannot be used: {reason}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The content of a file. A provider with the API of Openverse or MediaWiki needs no more than its endpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// Whose API it has; `None` if the file describes it.
    like: Option<Like>,
    endpoint: Option<Url>,
    #[serde(default)]
    terms: String,
    /// The time between two questions.
    interval_ms: Option<u64>,
    key: Option<Key>,
    request: Option<Request>,
    #[serde(default)]
    licence: BTreeMap<String, BTreeMap<String, String>>,
    paging: Option<Paging>,
    answer: Option<Places>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Like {
    Openverse,
    MediaWiki,
}

/// A key that the provider is shown: in a header, or as a parameter of the URL.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    /// The file that holds it, read for every question, so that it can be replaced.
    file: PathBuf,
    header: Option<String>,
    /// What stands before it in the header.
    #[serde(default)]
    prefix: String,
    parameter: Option<String>,
}

impl Key {
    /// Shows the key with a question.
    pub(super) fn show(&self, question: &mut Question) -> Result<(), SearchError> {
        let unusable = |why: &str| SearchError::Unusable(format!("its key cannot be used: {why}"));
        // The path and what the system says are for the operator.
        let key = fs::read_to_string(&self.file).map_err(|error| {
            tracing::error!(file = %self.file.display(), %error, "the key of a provider cannot be read");
            unusable("the worker cannot read it")
        })?;
        let key = key.trim();
        if let Some(parameter) = &self.parameter {
            let mut url = Url::parse(&question.url).map_err(|_| unusable("the endpoint is no URL"))?;
            url.query_pairs_mut().append_pair(parameter, key);
            question.url = url.into();
        }
        if let Some(header) = &self.header {
            let name = HeaderName::try_from(header.as_str()).map_err(|_| unusable("its header has no such name"))?;
            let value = HeaderValue::try_from(format!("{}{key}", self.prefix));
            let mut value = value.map_err(|_| unusable("it holds characters that no header can"))?;
            value.set_sensitive(true);
            question.headers.insert(name, value);
        }
        Ok(())
    }
}

/// A provider, and the name by which a person asks for it.
pub(super) type NamedProvider = (String, Box<dyn Provider>);

/// The providers of all files in a folder. A folder that does not exist has none.
pub(super) fn read_all(folder: &Path) -> Result<Vec<NamedProvider>, FileError> {
    let unreadable = |source| FileError::Unreadable { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let paths = entries.map(|entry| Ok(entry.map_err(unreadable)?.path())).collect::<Result<Vec<_>, _>>()?;
    paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == "toml")).map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<(String, Box<dyn Provider>), FileError> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|source| FileError::Unreadable { path: path.to_owned(), source })?;
    let unusable = |reason: String| FileError::Unusable { path: path.to_owned(), reason };
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let name: Name = name.parse().map_err(|refusal: sortinghat_proto::Refusal| unusable(refusal.message))?;
    let content: Content = toml::from_str(&text).map_err(|error| unusable(error.to_string()))?;
    let provider = provider(content, path.parent().unwrap_or(Path::new(""))).map_err(unusable)?;
    Ok((name.into(), provider))
}

fn provider(content: Content, folder: &Path) -> Result<Box<dyn Provider>, String> {
    let Content { like, endpoint, terms, interval_ms, key, request, licence, paging, answer } = content;
    let interval = interval_ms.map_or(USUAL_INTERVAL, Duration::from_millis);
    let key = key.map(|key| match (&key.header, &key.parameter) {
        (Some(_), None) | (None, Some(_)) => Ok(Key { file: folder.join(&key.file), ..key }),
        _ => Err("[key] names either a header or a parameter".to_owned()),
    });
    let key = key.transpose()?;
    let is_described = request.is_some() || paging.is_some() || answer.is_some() || !licence.is_empty();
    match like {
        Some(_) if is_described || !terms.is_empty() => {
            Err("with like, a file has no more than endpoint, interval_ms and key".to_owned())
        }
        Some(Like::Openverse) => {
            let usual = Openverse::default();
            Ok(Box::new(Openverse { endpoint: endpoint.unwrap_or(usual.endpoint), interval, key }))
        }
        Some(Like::MediaWiki) if key.is_some() => Err("a wiki is asked without a key".to_owned()),
        Some(Like::MediaWiki) => {
            let usual = MediaWiki::default();
            Ok(Box::new(MediaWiki { endpoint: endpoint.unwrap_or(usual.endpoint), interval }))
        }
        None => {
            let lacks = |what: &str| format!("it has no {what}");
            let described = Described {
                endpoint: endpoint.ok_or_else(|| lacks("endpoint"))?,
                interval,
                key,
                terms,
                request: request.ok_or_else(|| lacks("[request]"))?,
                licence,
                paging: paging.ok_or_else(|| lacks("[paging]"))?,
                answer: answer.ok_or_else(|| lacks("[answer]"))?,
            };
            match described.fault() {
                Some(fault) => Err(fault),
                None => Ok(Box::new(described)),
            }
        }
    }
}
