//! Openverse, which searches openly licensed photos: <https://api.openverse.org/v1/>.
//!
//! Its terms ask not to search deeper than it publishes, 20 pages, and for at most 20 photos a page from who has no token. A token of a
//! registered application raises its limits; a provider file names the file that holds it.

use std::time::Duration;

use serde::Deserialize;
use sortinghat_proto::{Licence, manifest::Credit};
use url::Url;

use super::{
    Found, Page, Provider, Question, Search, SearchError, USUAL_INTERVAL, files::Key, filled, json, page_number, plain,
};

const ENDPOINT: &str = "https://api.openverse.org/v1/images/";
const TERMS: &str = "found by Openverse (https://openverse.org), which does not warrant that the licences are right: check the page of a \
                     photo before you publish it";
/// Photos of a page.
const PAGE_SIZE: &str = "20";
/// Pages of one search.
const LAST_PAGE: u32 = 20;

/// Openverse, or another server that has its API.
#[derive(Debug)]
pub(super) struct Openverse {
    pub(super) endpoint: Url,
    pub(super) interval: Duration,
    pub(super) key: Option<Key>,
}

impl Default for Openverse {
    fn default() -> Self {
        let endpoint = Url::parse(ENDPOINT).expect("a constant, which a test reads");
        Self { endpoint, interval: USUAL_INTERVAL, key: None }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    page_count: u32,
    results: Vec<Photo>,
}

#[derive(Deserialize)]
struct Photo {
    url: Option<String>,
    title: Option<String>,
    creator: Option<String>,
    license: Option<String>,
    license_version: Option<String>,
    license_url: Option<String>,
    foreign_landing_url: Option<String>,
}

impl Provider for Openverse {
    fn terms(&self) -> &str {
        TERMS
    }

    fn question(&self, search: &Search<'_>, cursor: Option<&str>) -> Result<Question, SearchError> {
        let mut url = self.endpoint.clone();
        {
            let mut parameters = url.query_pairs_mut();
            parameters.append_pair("q", search.query).append_pair("page_size", PAGE_SIZE);
            parameters.append_pair("page", &page_number(cursor)?.to_string());
            match search.licence {
                Licence::Any => {}
                Licence::Free => drop(parameters.append_pair("license_type", "commercial,modification")),
                Licence::By => drop(parameters.append_pair("license", "by,cc0,pdm")),
            }
        }
        let mut question = plain(url, self.interval);
        if let Some(key) = &self.key {
            key.show(&mut question)?;
        }
        Ok(question)
    }

    fn read(&self, _: &Search<'_>, cursor: Option<&str>, answer: &[u8]) -> Result<Page, SearchError> {
        let Answer { page_count, results } = json(answer)?;
        let page = page_number(cursor)?;
        let is_last = results.is_empty() || page >= page_count.min(LAST_PAGE);
        let found = results.into_iter().map(Found::from).collect();
        Ok(Page { found, next: (!is_last).then(|| (page + 1).to_string()), ..Page::default() })
    }
}

impl From<Photo> for Found {
    fn from(photo: Photo) -> Self {
        let licence = filled(photo.license).map(|licence| {
            let version = filled(photo.license_version).map(|version| format!(" {version}")).unwrap_or_default();
            match licence.as_str() {
                "pdm" => "Public Domain Mark".to_owned(),
                "cc0" => format!("CC0{version}"),
                other => format!("CC {}{version}", other.to_uppercase()),
            }
        });
        let credit = Credit {
            source_page: filled(photo.foreign_landing_url),
            title: filled(photo.title),
            author: filled(photo.creator),
            licence,
            licence_url: filled(photo.license_url),
        };
        Self { url: photo.url.unwrap_or_default(), credit }
    }
}
