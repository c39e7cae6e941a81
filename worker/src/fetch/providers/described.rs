//! A provider that a file describes: what it is asked, and where in its answers the photos are.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::Value;
use sortinghat_proto::{Licence, manifest::Credit};
use url::Url;

use super::{Found, MAX_PAGES, Page, Provider, Question, Search, SearchError, files::Key, filled, json, plain};

/// A provider as its file describes it.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) endpoint: Url,
    pub(super) interval: Duration,
    pub(super) key: Option<Key>,
    pub(super) terms: String,
    pub(super) request: Request,
    pub(super) licence: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) paging: Paging,
    pub(super) answer: Places,
}

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// The parameter that holds the words.
    query: String,
    /// Further parameters.
    #[serde(default)]
    parameters: BTreeMap<String, String>,
}

/// How the pages of an answer are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    /// The parameter that holds the number of a page, or of the first photo.
    parameter: String,
    /// The number of the first page, or of the first photo.
    #[serde(default = "one")]
    first: u32,
    /// How much the number grows from page to page.
    #[serde(default = "one")]
    step: u32,
    /// How many pages the provider allows.
    #[serde(default = "one")]
    pages: u32,
}

fn one() -> u32 {
    1
}

/// Where things are in an answer: JSON pointers (RFC 6901). All but `photos` begin at a photo.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Places {
    photos: String,
    url: String,
    title: Option<String>,
    author: Option<String>,
    licence: Option<String>,
    licence_url: Option<String>,
    source_page: Option<String>,
    /// The licence of every photo, if the answers do not say.
    every_licence: Option<String>,
}

impl Described {
    /// What is wrong with the file; `None` if it can be used.
    pub(super) fn fault(&self) -> Option<String> {
        let Places { photos, url, title, author, licence, licence_url, source_page, .. } = &self.answer;
        let optional = [title, author, licence, licence_url, source_page].into_iter().flatten();
        let pointer = [photos, url].into_iter().chain(optional).find(|text| !text.is_empty() && !text.starts_with('/'));
        if let Some(pointer) = pointer {
            return Some(format!("{pointer:?} is no JSON pointer, which begins with a slash, as in /results"));
        }
        let unknown = self.licence.keys().find(|name| name.parse::<Licence>().is_err());
        unknown.map(|name| format!("[licence] has {name}, and knows any, free and by"))
    }

    /// The number that a page is asked for by.
    fn place(&self, cursor: Option<&str>) -> Result<u32, SearchError> {
        let page = super::page_number(cursor)? - 1;
        Ok(self.paging.first.saturating_add(page.saturating_mul(self.paging.step)))
    }
}

impl Provider for Described {
    fn terms(&self) -> &str {
        &self.terms
    }

    fn question(&self, search: &Search<'_>, cursor: Option<&str>) -> Result<Question, SearchError> {
        let licence = self.licence.get(search.licence.as_str());
        if licence.is_none() && search.licence != Licence::Any {
            let wanted = search.licence.as_str();
            let why = format!("its file does not say how to ask for the licence {wanted}: ask for any");
            return Err(SearchError::Unusable(why));
        }
        let mut url = self.endpoint.clone();
        {
            let mut parameters = url.query_pairs_mut();
            parameters.append_pair(&self.request.query, search.query);
            parameters.extend_pairs(self.request.parameters.iter().chain(licence.into_iter().flatten()));
            parameters.append_pair(&self.paging.parameter, &self.place(cursor)?.to_string());
        }
        let mut question = plain(url, self.interval);
        if let Some(key) = &self.key {
            key.show(&mut question)?;
        }
        Ok(question)
    }

    fn read(&self, _: &Search<'_>, cursor: Option<&str>, answer: &[u8]) -> Result<Page, SearchError> {
        let answer: Value = json(answer)?;
        let photos = answer.pointer(&self.answer.photos).and_then(Value::as_array);
        let photos = photos.ok_or_else(|| {
            SearchError::Unusable(format!(
                "its answer has no list at {}, where its file says it is",
                self.answer.photos
            ))
        })?;
        let page = super::page_number(cursor)?;
        let is_last = photos.is_empty() || page >= self.paging.pages.min(MAX_PAGES);
        let text = |photo: &Value, place: &Option<String>| {
            let text = photo.pointer(place.as_ref()?)?.as_str()?;
            filled(Some(text.to_owned()))
        };
        let found = photos.iter().map(|photo| Found {
            url: text(photo, &Some(self.answer.url.clone())).unwrap_or_default(),
            credit: Credit {
                source_page: text(photo, &self.answer.source_page),
                title: text(photo, &self.answer.title),
                author: text(photo, &self.answer.author),
                licence: text(photo, &self.answer.licence).or_else(|| self.answer.every_licence.clone()),
                licence_url: text(photo, &self.answer.licence_url),
            },
        });
        Ok(Page { found: found.collect(), next: (!is_last).then(|| (page + 1).to_string()), ..Page::default() })
    }
}
