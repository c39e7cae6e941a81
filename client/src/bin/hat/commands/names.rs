//! The names of datasets, models and jobs that exist: for the completion of a shell, and to answer a name that does not exist.

use sortinghat_client::{Client, JobFilter, SHORT_ID_CHARACTERS, short_id};
use sortinghat_proto::words::any_of;

use crate::{
    args::{Named, TypedName},
    failure::Failure,
    session::Session,
    show::job::title,
};

/// The newest jobs that are offered.
const JOBS: u32 = 100;
/// Similar names that are shown.
const SHOWN: usize = 3;
/// Names with a Jaro-Winkler similarity above this are taken for each other.
const SIMILAR: f64 = 0.85;
/// A part of an id with at least so many characters may be mistyped in one of them.
const MISTYPED_ID_CHARACTERS: usize = 4;

/// A name that exists.
pub(super) struct Name {
    pub(super) text: String,
    /// What bears it, in some words.
    pub(super) about: String,
}

/// Every name of this kind, the newest first for jobs. A dataset or a model is named with each version, and without for the newest.
pub(super) async fn existing(client: &Client, named: Named) -> Result<Vec<Name>, Failure> {
    let name = |(text, about): (String, String)| Name { text, about };
    Ok(match named {
        Named::Dataset | Named::DatasetOrFolder => {
            let all = client.list_datasets().await?.into_iter().map(|dataset| (dataset.name, dataset.summary));
            with_newest(all.collect(), '@').into_iter().map(name).collect()
        }
        Named::Model | Named::ModelOrFolder => {
            let all = client.list_models().await?.into_iter().map(|model| (model.name, model.summary));
            with_newest(all.collect(), '/').into_iter().map(name).collect()
        }
        Named::Job => {
            let jobs = client.list_jobs(&JobFilter::default(), JOBS, "").await?.jobs;
            jobs.iter().map(|job| name((job.id.clone(), title(job)))).collect()
        }
    })
}

/// The names with their versions, and before the newest version of each name the name alone.
fn with_newest(versions: Vec<(String, String)>, separator: char) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut last = String::new();
    for (version, about) in versions {
        let name = version.split(separator).next().unwrap_or_default();
        if name != last {
            last = name.to_owned();
            all.push((last.clone(), format!("the newest: {version}")));
        }
        all.push((version, about));
    }
    all
}

/// "did you mean stamps?", if one of the names does not exist and another is like it.
pub(super) async fn similar(session: &Session, typed: &[TypedName]) -> Option<String> {
    let client = session.connect().await.ok()?;
    for TypedName { named, text } in typed {
        let names = existing(&client, *named).await.ok()?;
        let similar = match named {
            Named::Job => similar_jobs(text, &names),
            Named::Dataset | Named::DatasetOrFolder | Named::Model | Named::ModelOrFolder => {
                similar_names(text, &names)
            }
        };
        if !similar.is_empty() {
            let similar: Vec<&str> = similar.iter().map(String::as_str).collect();
            return Some(format!("did you mean {}?", any_of(&similar)));
        }
    }
    None
}

/// The names that are most like `text`, with a version if it has one; none if there is a name `text`.
fn similar_names(text: &str, names: &[Name]) -> Vec<String> {
    let has_version = |name: &str| name.contains(['@', '/']);
    let mut similar: Vec<(f64, &str)> = names
        .iter()
        .map(|name| name.text.as_str())
        .filter(|name| has_version(name) == has_version(text))
        .map(|name| (strsim::jaro_winkler(name, text), name))
        .filter(|(likeness, _)| *likeness > SIMILAR)
        .collect();
    similar.sort_by(|one, other| other.0.total_cmp(&one.0));
    match similar.first() {
        Some((_, name)) if *name == text => Vec::new(),
        _ => similar.into_iter().take(SHOWN).map(|(_, name)| name.to_owned()).collect(),
    }
}

/// The jobs whose id begins or ends with something that differs from `text` in one character or in two that are swapped.
fn similar_jobs(text: &str, names: &[Name]) -> Vec<String> {
    let text = text.to_ascii_lowercase();
    let is_close = |part: Option<&str>| part.is_some_and(|part| strsim::osa_distance(part, &text) == 1);
    if text.len() < MISTYPED_ID_CHARACTERS {
        return Vec::new();
    }
    let close = names.iter().filter(|job| {
        let begin = job.text.get(..text.len());
        let end = job.text.len().checked_sub(text.len()).and_then(|start| job.text.get(start..));
        is_close(begin) || is_close(end)
    });
    close.take(SHOWN).map(|job| format!("{} ({})", short_id(&job.text, SHORT_ID_CHARACTERS), job.about)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<Name> {
        all.iter().map(|text| Name { text: (*text).to_owned(), about: "ingest of a".to_owned() }).collect()
    }

    #[test]
    fn a_name_that_does_not_exist_is_answered_with_the_names_that_are_like_it() {
        let existing = names(&["pets", "pets@1", "stamps", "stamps@2", "stamps@1"]);
        assert_eq!(similar_names("stmaps", &existing), ["stamps"]);
        assert_eq!(similar_names("stamps@3", &existing), ["stamps@2", "stamps@1"]);
        assert!(similar_names("stamps", &existing).is_empty(), "it exists");
        assert!(similar_names("cars", &existing).is_empty(), "nothing is like it");
    }

    #[test]
    fn an_id_with_one_wrong_character_is_answered_with_the_short_id() {
        let existing = names(&["01kd0000000000000000x7k2qp", "01kd00000000000000009m4tza"]);
        assert_eq!(similar_jobs("x7k2qq", &existing), ["x7k2qp (ingest of a)"]);
        assert_eq!(similar_jobs("X7KQ2P", &existing), ["x7k2qp (ingest of a)"], "two characters are swapped");
        assert!(similar_jobs("aaaaaa", &existing).is_empty());
        assert!(similar_jobs("x7", &existing).is_empty(), "too short to be mistyped");
    }

    #[test]
    fn the_newest_version_is_also_offered_by_the_name_alone() {
        let versions = ["a@2", "a@1", "b@1"].map(|version| (version.to_owned(), "2 photos".to_owned()));
        let all = with_newest(versions.to_vec(), '@');
        let shown: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(shown, ["a", "a@2", "a@1", "b", "b@1"]);
        assert_eq!(all[0].1, "the newest: a@2");
    }
}
