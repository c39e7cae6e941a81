//! A dataset in lines: its classes, their sizes, the split, and the files that were not used.

use std::collections::BTreeMap;

use sortinghat_proto::{
    manifest::{ClassCount, DatasetManifest, Rejection, RejectionReason, Remark, SplitKind},
    v1::Dataset,
};

use super::{
    numbers::{count, counted},
    paper::Paper,
    table,
};

/// Classes that are shown before "and N more".
const SHOWN_CLASSES: usize = 40;
/// Paths that are shown for each reason of rejection.
const SHOWN_PATHS: usize = 3;

/// A table with a row for each dataset.
pub(crate) fn table(datasets: &[Dataset], paper: Paper) -> Vec<String> {
    let row = |d: &Dataset| table::named_row(&d.name, d.created_unix_ms, &d.summary);
    table::fitted(table::NAMED_HEADER, &datasets.iter().map(row).collect::<Vec<_>>(), paper)
}

/// The dataset called `name`. `show_rejected` is the command that lists every rejection.
pub(crate) fn lines(
    name: &str,
    dataset: &DatasetManifest,
    rejections: &[Rejection],
    show_rejected: &str,
) -> Vec<String> {
    let mut lines = vec![headline(name, dataset)];
    lines.extend(classes(dataset));
    lines.extend(near_duplicates(dataset));
    lines.extend(match (rejections, dataset.uses_everything()) {
        ([], true) => vec!["every file was used".to_owned()],
        ([], false) => vec!["every uploaded file was used".to_owned()],
        _ => not_used(rejections, show_rejected),
    });
    lines
}

/// What the ingest noticed, a line each.
pub(crate) fn remarks(dataset: &DatasetManifest) -> Vec<String> {
    let line = |remark: &Remark| format!("{}: {remark}", if remark.is_warning() { "warning" } else { "note" });
    dataset.remarks.iter().map(line).collect()
}

/// How many groups of near-duplicates there are, and on how many sides they lie.
fn near_duplicates(dataset: &DatasetManifest) -> Option<String> {
    let across = dataset.remarks.iter().find_map(|remark| match remark {
        Remark::NearDuplicatesAcrossSplit { groups, .. } => Some(*groups),
        Remark::OnlyNearDuplicates { classes } => Some(classes.len() as u64),
        _ => None,
    });
    let sides = match (across, dataset.split) {
        (Some(across), _) => format!(", {} of them on both sides of the split", count(across)),
        // An older version kept no remark of it.
        (None, SplitKind::Given) => String::new(),
        (None, SplitKind::ValidPercent(_) | SplitKind::Folds(_)) => ", each kept on one side of the split".to_owned(),
    };
    let groups = counted(dataset.near_duplicate_groups, "group", "groups");
    (dataset.near_duplicate_groups > 0).then(|| format!("{groups} of near-duplicates{sides}"))
}

/// A file that was not used: its path, the reason, and the message.
pub(crate) fn rejection_row(rejection: &Rejection) -> [String; 3] {
    [rejection.path.clone(), rejection.reason.as_str().to_owned(), rejection.message.clone()]
}

fn headline(name: &str, dataset: &DatasetManifest) -> String {
    let photos = counted(dataset.photos(), "photo", "photos");
    let held_out: u64 = dataset.class_counts.iter().map(|class| class.valid).sum();
    let split = match dataset.split {
        SplitKind::Given => format!("{} held out as its folders say", count(held_out)),
        SplitKind::ValidPercent(percent) => format!("{} held out ({percent}% of each class)", count(held_out)),
        SplitKind::Folds(folds) => format!("{folds} folds, of which each training holds out one"),
    };
    let classes = counted(dataset.classes.len() as u64, "class", "classes");
    format!("dataset {name}: {photos} in {classes}, {split}")
}

fn classes(dataset: &DatasetManifest) -> Vec<String> {
    let counted_classes = dataset.classes.iter().zip(&dataset.class_counts).take(SHOWN_CLASSES);
    let mut lines = if matches!(dataset.split, SplitKind::Folds(_)) {
        // What is held out is decided by each training.
        let row = |(class, number): (&String, &ClassCount)| [class.clone(), count(number.train)];
        table::columns(["class", "photos"], &counted_classes.map(row).collect::<Vec<_>>())
    } else {
        let row = |(class, number): (&String, &ClassCount)| [class.clone(), count(number.train), count(number.valid)];
        table::columns(["class", "to learn from", "held out"], &counted_classes.map(row).collect::<Vec<_>>())
    };
    let rest = dataset.classes.len().saturating_sub(SHOWN_CLASSES) as u64;
    lines.extend((rest > 0).then(|| format!("and {}", counted(rest, "more class", "more classes"))));
    lines
}

/// The number of files that were not used for each reason, with the first paths of each.
fn not_used(rejections: &[Rejection], show_rejected: &str) -> Vec<String> {
    let mut by_reason: BTreeMap<RejectionReason, Vec<&Rejection>> = BTreeMap::new();
    for rejection in rejections {
        by_reason.entry(rejection.reason).or_default().push(rejection);
    }
    let mut lines = vec![format!("not used: {}", counted(rejections.len() as u64, "file", "files"))];
    for (reason, all) in by_reason {
        lines.push(format!("  {} {}", count(all.len() as u64), reason.as_str()));
        lines.extend(all.iter().take(SHOWN_PATHS).map(|one| format!("    {}: {}", one.path, one.message)));
    }
    if rejections.len() > SHOWN_PATHS {
        lines.push(format!("  all of them: {show_rejected}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::Digest;

    use super::*;

    fn rejection(n: usize, reason: RejectionReason) -> Rejection {
        Rejection { path: format!("a/{n}.jpg"), digest: Digest::of(b""), reason, message: "ends too early".into() }
    }

    #[test]
    fn rejected_files_are_grouped_by_reason_with_the_first_paths_and_the_way_to_all() {
        let mut all: Vec<Rejection> = (0..5).map(|n| rejection(n, RejectionReason::Truncated)).collect();
        all.push(rejection(9, RejectionReason::Duplicate));
        let text = not_used(&all, "hat datasets show stamps@1 --rejected").join("\n");
        for part in
            ["not used: 6 files", "  5 truncated\n    a/0.jpg: ends too early", "hat datasets show stamps@1 --rejected"]
        {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(!text.contains("a/3.jpg"), "{text}");
    }
}
