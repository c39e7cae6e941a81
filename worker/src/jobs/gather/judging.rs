//! After photos were decoded: what became of each, and which look alike.

use std::collections::{BTreeMap, HashMap};

use sortinghat_proto::manifest::{PhotoSource, Remark, SourceOutcome};

use super::progress::Gathering;
use crate::jobs::ingest::Made;

/// Groups of photos that look alike that a dataset names.
const EXAMPLES: usize = 20;

/// Enters into the rows what the decoding has shown.
pub(super) fn judge<P>(rows: &mut [PhotoSource], made: &Made<P>) {
    let rejected: HashMap<&str, String> = (made.intake.rejections.iter())
        .map(|rejection| (rejection.path.as_str(), format!("{}: {}", rejection.reason.as_str(), rejection.message)))
        .collect();
    for row in rows {
        let Some(path) = &row.path else { continue };
        (row.outcome, row.reason) = match rejected.get(path.as_str()) {
            Some(reason) => (SourceOutcome::Rejected, Some(reason.clone())),
            None => (SourceOutcome::Kept, None),
        };
    }
}

/// What a person should know of photos from the web.
pub(super) fn remarks<P>(gathering: &Gathering, made: &Made<P>) -> Vec<Remark> {
    let photos = gathering.rows.iter().filter(|row| row.outcome == SourceOutcome::Kept).count() as u64;
    let from_the_web = Remark::FromTheWeb { photos, terms: gathering.terms.clone() };
    std::iter::once(from_the_web).chain(alike(made)).collect()
}

/// The groups of photos that look alike and lie in more than one class, if there are any.
fn alike<P>(made: &Made<P>) -> Option<Remark> {
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (photo, group) in made.plan.groups.iter().enumerate() {
        groups.entry(*group).or_default().push(photo);
    }
    let path = |photo: usize| made.intake.accepted[photo].path.clone();
    let pair = |group: Vec<usize>| {
        let first = *group.first()?;
        let other = group.into_iter().find(|photo| made.plan.labels[*photo] != made.plan.labels[first])?;
        Some([path(first), path(other)])
    };
    let mut examples: Vec<[String; 2]> = groups.into_values().filter_map(pair).collect();
    let groups = examples.len() as u64;
    examples.truncate(EXAMPLES);
    (groups > 0).then_some(Remark::AlikeInSeveralClasses { groups, examples })
}

/// The rows as JSON, one a line.
pub(super) fn lines(rows: &[PhotoSource]) -> Vec<u8> {
    let mut lines = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut lines, row).expect("a row is text, and memory takes every write");
        lines.push(b'\n');
    }
    lines
}
