//! Who finds photos: services with a public API. Each is a [`Provider`], which writes questions and reads answers; who asks is the
//! [`Fetcher`].

mod described;
mod files;
mod licences;
mod mediawiki;
mod openverse;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path, time::Duration};

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use sortinghat_proto::{Licence, limits::MAX_URL_BYTES, manifest::Credit};
use tokio::time::sleep;

use super::{FetchError, Fetcher, Question};
use described::Described;
pub(crate) use files::FileError;
use mediawiki::MediaWiki;
use openverse::Openverse;

/// Pages of one search that are asked for, whatever a provider would give.
pub(crate) const MAX_PAGES: u32 = 50;
/// How often a provider is asked that answers that it cannot answer now, and for how many intervals it is left alone in between.
const TRIES: u32 = 3;
const STEP_BACK: u32 = 5;
/// The time between two questions to a provider whose file names none.
const USUAL_INTERVAL: Duration = Duration::from_secs(1);

/// A service that finds photos.
pub(crate) trait Provider: Send + Sync {
    /// What it asks to be said of photos that it has found.
    fn terms(&self) -> &str;

    /// The question for a page of what a search finds. `cursor` is what the page before has said.
    ///
    /// # Errors
    /// [`SearchError::Unusable`], if the search cannot be asked for.
    fn question(&self, search: &Search<'_>, cursor: Option<&str>) -> Result<Question, SearchError>;

    /// Reads the answer to such a question.
    ///
    /// # Errors
    /// [`SearchError`], if it is none.
    fn read(&self, search: &Search<'_>, cursor: Option<&str>, answer: &[u8]) -> Result<Page, SearchError>;
}

/// What is searched for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search<'a> {
    pub(crate) query: &'a str,
    pub(crate) licence: Licence,
}

/// A page of what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Page {
    /// The photos, in the order of the provider.
    pub(crate) found: Vec<Found>,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<String>,
    /// What the provider asks to be said.
    pub(crate) terms: String,
}

/// A photo that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Where the photo is.
    pub(crate) url: String,
    /// What the provider says of it.
    #[serde(flatten)]
    pub(crate) credit: Credit,
}

/// Why a search has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SearchError {
    /// Another try does not help.
    #[error("{0}")]
    Unusable(String),
    /// Another try, later, may help.
    #[error("{0}")]
    Unavailable(String),
}

impl From<FetchError> for SearchError {
    fn from(error: FetchError) -> Self {
        match error.is_transient() {
            true => Self::Unavailable(error.to_string()),
            false => Self::Unusable(error.to_string()),
        }
    }
}

/// The providers that this worker knows.
pub(crate) struct Providers(BTreeMap<String, Box<dyn Provider>>);

impl Providers {
    /// Openverse, Wikimedia Commons, and those whose files are in this folder, if there is one. A file replaces what is built in.
    ///
    /// # Errors
    /// [`FileError`] with the file that cannot be used.
    pub(crate) fn open(folder: &Path) -> Result<Self, FileError> {
        let mut all: BTreeMap<String, Box<dyn Provider>> = BTreeMap::new();
        all.insert("openverse".to_owned(), Box::new(Openverse::default()));
        all.insert("commons".to_owned(), Box::new(MediaWiki::default()));
        all.extend(files::read_all(folder)?);
        Ok(Self(all))
    }

    /// Asks a provider for a page.
    ///
    /// # Errors
    /// [`SearchError`].
    pub(crate) async fn search(
        &self,
        fetcher: &Fetcher,
        name: &str,
        search: &Search<'_>,
        cursor: Option<&str>,
    ) -> Result<Page, SearchError> {
        let provider = self.0.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            SearchError::Unusable(format!("this worker knows no provider {name}, only {}", known.join(", ")))
        })?;
        let said = |error| match error {
            SearchError::Unusable(why) => SearchError::Unusable(format!("{name}: {why}")),
            SearchError::Unavailable(why) => SearchError::Unavailable(format!("{name}: {why}")),
        };
        let question = provider.question(search, cursor).map_err(said)?;
        let mut tries = 1..TRIES;
        let mut page = loop {
            let answer = fetcher.ask(&question).await.map_err(|error| said(error.into()))?;
            match provider.read(search, cursor, &answer) {
                // A provider may also say in its answer that it is asked too much.
                Err(SearchError::Unavailable(_)) if tries.next().is_some() => {
                    sleep(question.interval * STEP_BACK).await
                }
                page => break page.map_err(said)?,
            }
        };
        page.terms = provider.terms().to_owned();
        page.found.retain(|found| (1..=MAX_URL_BYTES).contains(&found.url.len()));
        Ok(page)
    }
}

/// Reads an answer that should be JSON.
fn json<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> Result<T, SearchError> {
    serde_json::from_slice(answer).map_err(|error| {
        let is_page = answer.trim_ascii_start().starts_with(b"<");
        let what = if is_page { "a web page".to_owned() } else { format!("something else ({error})") };
        SearchError::Unusable(format!("its answer should be the JSON of its API and is {what}"))
    })
}

/// The number of a page, as a cursor says.
fn page_number(cursor: Option<&str>) -> Result<u32, SearchError> {
    cursor.map_or(Ok(1), str::parse).map_err(|_| SearchError::Unusable("the page asked for is no number".to_owned()))
}

/// A text that says something.
fn filled(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// A question without headers.
fn plain(url: impl Into<String>, interval: Duration) -> Question {
    Question { url: url.into(), headers: HeaderMap::new(), interval }
}
