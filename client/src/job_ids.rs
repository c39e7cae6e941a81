//! Finds jobs by a part of their id.
//!
//! An id begins with the time of submission and ends with random characters. So the ids of one afternoon begin alike, and the ends tell
//! them apart: they are the short ids. The server looks for a part, because it has all ids in an index and so need neither read nor send
//! the jobs that do not match. A server that is too old to look returns all jobs, and then the matches are picked here.

use sortinghat_proto::{
    Refusal, limits,
    v1::{Job, ListJobsResponse},
};

use crate::{Client, ClientError, JobFilter};

/// Length of a complete job id in characters.
const JOB_ID_CHARACTERS: usize = 26;
/// How many characters a short id has at least. Among a hundred thousand jobs, one in ten thousand shares its last six characters.
pub const SHORT_ID_CHARACTERS: usize = 6;
/// How many jobs an error about an ambiguous id names.
const NAMED: usize = 5;

/// The last `characters` of an id.
pub fn short_id(id: &str, characters: usize) -> &str {
    id.get(id.len().saturating_sub(characters)..).unwrap_or(id)
}

/// How many characters at the end of these ids tell all of them apart; at least [`SHORT_ID_CHARACTERS`].
pub fn short_id_characters<'a>(ids: impl Iterator<Item = &'a str>) -> usize {
    let mut reversed: Vec<Vec<u8>> = ids.map(|id| id.bytes().rev().collect()).collect();
    reversed.sort_unstable();
    reversed.dedup();
    let alike = |pair: &[Vec<u8>]| pair[0].iter().zip(&pair[1]).take_while(|(one, other)| one == other).count();
    let most = reversed.windows(2).map(alike).max().map_or(0, |alike| alike + 1);
    most.max(SHORT_ID_CHARACTERS)
}

impl Client {
    /// The only job whose id begins or ends with `part`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is none, or if there are several; then the message names some of them.
    pub async fn find_job(&self, part: &str) -> Result<Job, ClientError> {
        let part = part.to_ascii_lowercase();
        if part.len() >= JOB_ID_CHARACTERS {
            return self.get_job(&part).await;
        }
        let filter = JobFilter { id_part: part.clone(), ..JobFilter::default() };
        let is_named = |id: &str| id.starts_with(&part) || id.ends_with(&part);
        let (mut matches, mut token) = (Vec::new(), String::new());
        loop {
            let page = self.list_jobs(&filter, limits::MAX_PAGE_SIZE, &token).await?;
            matches.extend(page.jobs.into_iter().map(|job| (word(&job), job.id)).filter(|(_, id)| is_named(id)));
            let unreadable = page.unreadable_job_ids.into_iter().filter(|id| is_named(id));
            matches.extend(unreadable.map(|id| ("unreadable", id)));
            token = page.next_page_token;
            if token.is_empty() || matches.len() > NAMED {
                break;
            }
        }
        match matches.as_slice() {
            [(_, id)] => self.get_job(id).await,
            [] => Err(ClientError::Refused(Refusal::not_found(format!("there is no job {part:?}")).at("job_id"))),
            several => Err(ClientError::Refused(Refusal::invalid("job_id", ambiguous(&part, several)))),
        }
    }

    /// The newest job.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is none, or if the server cannot read its record.
    pub async fn newest_job(&self) -> Result<Job, ClientError> {
        let mut token = String::new();
        loop {
            let page = self.list_jobs(&JobFilter::default(), 1, &token).await?;
            if let Some(id) = newest_of(&page) {
                return self.get_job(id).await;
            }
            token = page.next_page_token;
            if token.is_empty() {
                return Err(ClientError::Refused(Refusal::not_found("there are no jobs yet")));
            }
        }
    }
}

/// The id of the newest job of a page. The job may be one whose record the server cannot read; an older job is not taken for it.
fn newest_of(page: &ListJobsResponse) -> Option<&str> {
    let readable = page.jobs.iter().map(|job| job.id.as_str());
    // Ids begin with the time of submission.
    readable.chain(page.unreadable_job_ids.iter().map(String::as_str)).max()
}

fn word(job: &Job) -> &'static str {
    job.spec.as_ref().and_then(|spec| spec.job_kind()).map_or("unknown", |kind| kind.as_str())
}

fn ambiguous(part: &str, jobs: &[(&str, String)]) -> String {
    let shown: Vec<String> = jobs.iter().take(NAMED).map(|(kind, id)| format!("{id} ({kind})")).collect();
    let (number, more) = match jobs.len() {
        several if several > NAMED => (format!("more than {NAMED}"), ", ..."),
        several => (several.to_string(), ""),
    };
    format!("the ids of {number} jobs begin or end with {part:?}: {}{more}; type more of the id", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_are_as_long_as_it_takes_to_tell_jobs_apart() {
        let of = |ids: &[&str]| {
            let characters = short_id_characters(ids.iter().copied());
            ids.iter().map(|id| short_id(id, characters).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of(&["01kd0000000000000000abcdef", "01kd0000000000000000abcdeg"]), ["abcdef", "abcdeg"]);
        assert_eq!(of(&["01kd00000000000000x1abcdef", "01kd00000000000000x2abcdef"]), ["1abcdef", "2abcdef"]);
        assert_eq!(of(&["01", "01kd0000000000000000abcdef"]), ["01", "abcdef"]);
        assert_eq!(of(&["01kd0000000000000000abcdef", "01kd0000000000000000abcdef"]), ["abcdef"; 2]);
        assert!(of(&[]).is_empty());
    }

    #[test]
    fn the_newest_job_may_be_one_that_cannot_be_read() {
        let job = |id: &str| Job { id: id.to_owned(), ..Job::default() };
        let page = ListJobsResponse {
            jobs: vec![job("02")],
            unreadable_job_ids: vec!["03".to_owned(), "01".to_owned()],
            ..Default::default()
        };
        assert_eq!(newest_of(&page), Some("03"));
        assert_eq!(newest_of(&ListJobsResponse { jobs: vec![job("04")], ..page }), Some("04"));
        assert_eq!(newest_of(&ListJobsResponse::default()), None);
    }

    #[test]
    fn an_ambiguous_id_names_some_of_the_jobs() {
        let jobs: Vec<(&str, String)> = (0..6).map(|n| ("ingest", format!("0{n}"))).collect();
        assert_eq!(
            ambiguous("0", &jobs[..2]),
            "the ids of 2 jobs begin or end with \"0\": 00 (ingest), 01 (ingest); type more of the id"
        );
        assert!(ambiguous("0", &jobs).starts_with("the ids of more than 5 jobs"));
        assert!(ambiguous("0", &jobs).contains("04 (ingest), ...; type"));
    }
}
