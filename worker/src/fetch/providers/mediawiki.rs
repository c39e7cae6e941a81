//! Wikimedia Commons, and every other wiki with the API of MediaWiki: <https://commons.wikimedia.org/w/api.php>.
//!
//! As its etiquette asks, questions come at intervals, name who asks and how to reach them (the user agent), and step back when the
//! servers are behind (`maxlag`). Photos are fetched in a width of 1,280 pixels, which its servers keep ready, and not as originals.

use std::time::Duration;

use serde::Deserialize;
use sortinghat_proto::{Licence, manifest::Credit};
use url::Url;

use super::{Found, Page, Provider, Question, Search, SearchError, USUAL_INTERVAL, filled, json, licences, plain};

const ENDPOINT: &str = "https://commons.wikimedia.org/w/api.php";
const TERMS: &str = "found on Wikimedia Commons (https://commons.wikimedia.org): who publishes a photo names its author and licence as its \
                     page asks";
/// Seconds that its servers may be behind.
const MAX_LAG: &str = "5";
/// Photos of a page: as many as who is not registered may ask for.
const PAGE_SIZE: &str = "50";
const WIDTH: &str = "1280";
/// Errors after which another try may help.
const PASSING: [&str; 4] = ["maxlag", "ratelimited", "readonly", "internal_api_error_DBQueryTimeoutError"];

/// Wikimedia Commons, or another wiki.
#[derive(Debug)]
pub(super) struct MediaWiki {
    pub(super) endpoint: Url,
    pub(super) interval: Duration,
}

impl Default for MediaWiki {
    fn default() -> Self {
        Self { endpoint: Url::parse(ENDPOINT).expect("a constant, which a test reads"), interval: USUAL_INTERVAL }
    }
}

#[derive(Deserialize)]
struct Answer {
    error: Option<Fault>,
    query: Option<Query>,
    #[serde(rename = "continue")]
    next: Option<Next>,
}

#[derive(Deserialize)]
struct Fault {
    code: String,
    #[serde(default)]
    info: String,
}

#[derive(Deserialize)]
struct Next {
    gsroffset: Option<u64>,
}

#[derive(Deserialize)]
struct Query {
    #[serde(default)]
    pages: Vec<WikiPage>,
}

#[derive(Deserialize)]
struct WikiPage {
    title: Option<String>,
    #[serde(default)]
    index: u64,
    #[serde(default)]
    imageinfo: Vec<ImageInfo>,
}

#[derive(Deserialize)]
struct ImageInfo {
    url: Option<String>,
    thumburl: Option<String>,
    descriptionurl: Option<String>,
    #[serde(default)]
    extmetadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Metadata {
    artist: Option<Text>,
    license: Option<Text>,
    license_short_name: Option<Text>,
    license_url: Option<Text>,
}

#[derive(Deserialize)]
struct Text {
    #[serde(default)]
    value: serde_json::Value,
}

impl Provider for MediaWiki {
    fn terms(&self) -> &str {
        TERMS
    }

    fn question(&self, search: &Search<'_>, cursor: Option<&str>) -> Result<Question, SearchError> {
        let mut url = self.endpoint.clone();
        {
            let mut parameters = url.query_pairs_mut();
            for (name, value) in [
                ("action", "query"),
                ("format", "json"),
                ("formatversion", "2"),
                ("maxlag", MAX_LAG),
                ("generator", "search"),
                ("gsrnamespace", "6"),
                ("gsrlimit", PAGE_SIZE),
                ("prop", "imageinfo"),
                ("iiprop", "url|extmetadata"),
                ("iiextmetadatafilter", "Artist|License|LicenseShortName|LicenseUrl"),
                ("iiurlwidth", WIDTH),
            ] {
                parameters.append_pair(name, value);
            }
            parameters.append_pair("gsrsearch", &format!("filetype:bitmap {}", search.query));
            if let Some(offset) = cursor {
                parameters.append_pair("gsroffset", offset);
            }
        }
        Ok(plain(url, self.interval))
    }

    fn read(&self, search: &Search<'_>, _: Option<&str>, answer: &[u8]) -> Result<Page, SearchError> {
        let Answer { error, query, next } = json(answer)?;
        if let Some(Fault { code, info }) = error {
            let why = format!("its API answers {code}: {info}");
            return Err(match PASSING.contains(&code.as_str()) {
                true => SearchError::Unavailable(why),
                false => SearchError::Unusable(why),
            });
        }
        let mut pages = query.map(|query| query.pages).unwrap_or_default();
        pages.sort_by_key(|page| page.index);
        let found = pages.into_iter().filter_map(|page| found(page, search.licence)).collect();
        let next = next.and_then(|next| next.gsroffset).map(|offset| offset.to_string());
        Ok(Page { found, next, ..Page::default() })
    }
}

/// A photo of the page, if its licence is one of those that are asked for. Commons has none that may not be used commercially.
fn found(page: WikiPage, wanted: Licence) -> Option<Found> {
    let image = page.imageinfo.into_iter().next()?;
    let text = |text: Option<Text>| filled(text.and_then(|text| text.value.as_str().map(without_tags)));
    let Metadata { artist, license, license_short_name, license_url } = image.extmetadata;
    let (code, name) = (text(license), text(license_short_name));
    if wanted == Licence::By && !licences::asks_for_the_name_at_most(code.as_deref().or(name.as_deref())) {
        return None;
    }
    let title = page.title.map(|title| title.split_once(':').map_or(title.clone(), |(_, name)| name.to_owned()));
    let credit = Credit {
        source_page: filled(image.descriptionurl),
        title: filled(title),
        author: text(artist),
        licence: name.or(code),
        licence_url: text(license_url),
    };
    Some(Found { url: image.thumburl.or(image.url)?, credit })
}

/// The text of a piece of HTML, as which a wiki gives what people have written.
fn without_tags(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut is_tag = false;
    for letter in html.chars() {
        match letter {
            '<' => is_tag = true,
            '>' if is_tag => is_tag = false,
            letter if !is_tag => text.push(letter),
            _ => {}
        }
    }
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#039;", "'"), ("&nbsp;", " "), ("&amp;", "&")];
    let text = entities.iter().fold(text, |text, (entity, letter)| text.replace(entity, letter));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_is_told_without_the_tags_of_a_wiki() {
        let html = "<a href=\"//c/wiki/User:Ann\" title=\"x\">Ann\n &amp; Bob</a> <b>Lee</b>&nbsp;";
        assert_eq!(without_tags(html), "Ann & Bob Lee");
    }
}
