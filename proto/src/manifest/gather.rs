//! What is known of photos from the web: which were asked for, where each was found, and what became of it.

use serde::{Deserialize, Serialize};

use super::{Document, Faults};
use crate::{ObjectRef, class_name_fault, limits, words};

/// URLs of photos, each with its class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UrlList {
    /// The URLs, in the order in which they are fetched.
    pub urls: Vec<ListedUrl>,
}

impl Document for UrlList {
    const FORMAT: &'static str = "sortinghat.url-list/1";
}

/// One URL of a list, and what the list says of the photo.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListedUrl {
    /// The class of the photo.
    pub class: String,
    /// Where the photo is.
    pub url: String,
    /// What is known of the photo.
    #[serde(flatten)]
    pub credit: Credit,
}

impl UrlList {
    /// What is wrong with the list. `field` names it in the request.
    pub fn faults(&self, field: &str) -> Faults {
        let mut faults = Faults::of(field, "the list of URLs");
        match self.urls.len() {
            0 => faults.add("urls", "lists no URL"),
            1..=limits::MAX_GATHERED_URLS => {}
            many => faults.add("urls", format!("lists {many} URLs, more than {}", limits::MAX_GATHERED_URLS)),
        }
        for (place, listed) in self.urls.iter().enumerate() {
            if let Some(why) = class_name_fault(listed.class.trim()) {
                faults.add(format!("urls[{place}].class"), format!("{} {why}", words::quoted(&listed.class)));
            }
            if listed.url.is_empty() || listed.url.len() > limits::MAX_URL_BYTES {
                let most = limits::MAX_URL_BYTES;
                faults.add(format!("urls[{place}].url"), format!("has {} bytes: use 1 to {most}", listed.url.len()));
            }
        }
        faults
    }
}

/// What its source says of a photo, each as the source writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Credit {
    /// The page that shows the photo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_page: Option<String>,
    /// The title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Where the text of the licence is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence_url: Option<String>,
}

/// How the photos of a dataset were gathered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Gathered {
    /// Every photo that was found, and what became of it: JSON, one [`PhotoSource`] a line.
    pub sources: ObjectRef,
    /// How many there were of each class.
    pub classes: Vec<GatheredClass>,
    /// The name of the dataset whose photos were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added_to: Option<String>,
    /// Its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added_to_manifest: Option<ObjectRef>,
}

/// How many photos of a class there were at each step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GatheredClass {
    /// The name of the class.
    pub class: String,
    /// What was searched for; `None` for a list of URLs, and for photos that were there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// How many were asked for.
    pub asked: u64,
    /// How many were found.
    pub found: u64,
    /// How many were fetched.
    pub fetched: u64,
    /// How many are in the dataset.
    pub kept: u64,
}

/// A photo that was found, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PhotoSource {
    /// The class that it was found for.
    pub class: String,
    /// Who found it; `list` for a list of URLs.
    pub provider: String,
    /// What was searched for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Its place among all that was found for the query, counted from 1, or its place in the list.
    pub rank: u64,
    /// Where it is.
    pub url: String,
    /// What its source says of it.
    #[serde(flatten)]
    pub credit: Credit,
    /// What became of it.
    pub outcome: SourceOutcome,
    /// Why it is not in the dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its path in the dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The file that was fetched.
    #[serde(flatten)]
    pub object: Option<ObjectRef>,
}

/// What became of a photo that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SourceOutcome {
    /// It is in the dataset.
    Kept,
    /// It was fetched and is not in the dataset: it cannot be decoded, or the same file was found before or in two classes.
    Rejected,
    /// It could not be fetched.
    Failed,
    /// An outcome that only a newer version knows.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_urls_is_refused_by_the_place_of_its_first_fault() {
        let listed = |class: &str, url: &str| ListedUrl { class: class.into(), url: url.into(), ..Default::default() };
        let refusal = |urls: Vec<ListedUrl>| UrlList { urls }.faults("gather.urls").into_result().err();
        assert_eq!(refusal(vec![listed("cats", "https://example.org/a.jpg")]), None);
        for (bad, field) in [
            (listed("", "https://a"), "urls[1].class"),
            (listed(" ", "https://a"), "urls[1].class"),
            (listed(" ..", "https://a"), "urls[1].class"),
            (listed("a/b", "https://a"), "urls[1].class"),
            (listed("cats", ""), "urls[1].url"),
            (listed("cats", &"a".repeat(limits::MAX_URL_BYTES + 1)), "urls[1].url"),
        ] {
            let refusal = refusal(vec![listed("cats", "https://a"), bad]).expect(field);
            assert!(refusal.message.contains(field), "{}", refusal.message);
        }
        assert!(refusal(vec![]).expect("it is empty").message.contains("lists no URL"));
    }
}
