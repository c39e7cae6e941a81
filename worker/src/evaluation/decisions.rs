//! The accuracy after a person has decided about some photos.

use std::collections::{HashMap, HashSet};

use sortinghat_proto::Digest;
use sortinghat_proto::manifest::{CleanedAccuracy, Decision, Decisions, Verdict};

use super::findings::{Prediction, Subject, read_all, score};
use crate::prediction::probabilities::Probabilities;

/// A decisions file that cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableDecisions {
    /// The file decides twice about one photo.
    #[error("the decisions name the photo {photo} twice: keep one of the two")]
    Twice {
        /// The photo, as people find it.
        photo: String,
    },
    /// The file relabels a photo to a class that the model does not have.
    #[error(
        "the decisions relabel the photo {photo} to {class:?}, which is no class of the model; its classes are {known}"
    )]
    UnknownClass {
        /// The photo, as people find it.
        photo: String,
        /// The class.
        class: String,
        /// The model's classes.
        known: String,
    },
}

/// The accuracy of `rows` after a person's decisions: excluded photos are left out, relabelled ones count with their new label.
///
/// A photo that is relabelled to the label it has counts as kept.
///
/// # Errors
/// [`UnusableDecisions`] for two decisions about one photo and for a class that is not in `classes`.
pub fn apply(
    decisions: &Decisions,
    classes: &[String],
    subjects: &[Subject],
    rows: &Probabilities,
) -> Result<CleanedAccuracy, UnusableDecisions> {
    let verdicts = by_photo(decisions, classes)?;
    let mut used = HashSet::new();
    let (mut left, mut left_predictions) = (Vec::new(), Vec::new());
    let mut cleaned = CleanedAccuracy {
        score: score(&[], &[]),
        excluded: 0,
        relabelled: 0,
        kept: 0,
        changed_errors: 0,
        unknown: 0,
        changes: Vec::new(),
    };
    for (index, before) in read_all(subjects, rows).into_iter().enumerate() {
        let subject = &subjects[index];
        let label = match verdicts.get(&subject.digest) {
            None => Some(subject.label),
            Some(verdict) => {
                used.insert(&subject.digest);
                decide(&mut cleaned, subject, &before, verdict, classes)
            }
        };
        if let Some(label) = label {
            left.push(Subject { label, ..subject.clone() });
            left_predictions.push(Prediction::read(rows.row(index), label));
        }
    }
    cleaned.unknown = (verdicts.len() - used.len()) as u64;
    cleaned.score = score(&left, &left_predictions);
    Ok(cleaned)
}

fn by_photo<'a>(
    decisions: &'a Decisions,
    classes: &[String],
) -> Result<HashMap<&'a Digest, &'a Verdict>, UnusableDecisions> {
    let mut by_photo = HashMap::with_capacity(decisions.decisions.len());
    for decision in &decisions.decisions {
        if let Verdict::Relabel { class } = &decision.verdict
            && !classes.contains(class)
        {
            let (photo, class, known) = (photo_of(decision), class.clone(), classes.join(", "));
            return Err(UnusableDecisions::UnknownClass { photo, class, known });
        }
        if by_photo.insert(&decision.digest, &decision.verdict).is_some() {
            return Err(UnusableDecisions::Twice { photo: photo_of(decision) });
        }
    }
    Ok(by_photo)
}

/// The path of the photo, or its digest where a file says no paths.
fn photo_of(decision: &Decision) -> String {
    decision.path.clone().unwrap_or_else(|| decision.digest.to_string())
}

/// Counts one decision; returns the label that the photo has from now on, `None` if it is left out.
fn decide(
    cleaned: &mut CleanedAccuracy,
    subject: &Subject,
    before: &Prediction,
    verdict: &Verdict,
    classes: &[String],
) -> Option<usize> {
    let label = match verdict {
        Verdict::Keep => Some(subject.label),
        Verdict::Exclude => None,
        Verdict::Relabel { class } => classes.iter().position(|known| known == class),
    };
    if label == Some(subject.label) {
        cleaned.kept += 1;
        return label;
    }
    match label {
        None => cleaned.excluded += 1,
        Some(_) => cleaned.relabelled += 1,
    }
    cleaned.changed_errors += u64::from(before.predicted != subject.label);
    cleaned.changes.push((subject.path.clone(), verdict.clone()));
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Vec<String> {
        ["cat", "dog"].map(String::from).to_vec()
    }

    fn digest(index: u8) -> Digest {
        Digest::of(&[index])
    }

    /// Photos 0 to 4 are labelled cat, cat, cat, dog, dog and predicted cat, dog, dog, dog, cat: 2 of 5 right.
    fn measured() -> (Vec<Subject>, Probabilities) {
        let subject =
            |index: u8| Subject { digest: digest(index), path: format!("{index}.png"), label: usize::from(index > 2) };
        let rows = vec![0.9, 0.1, 0.2, 0.8, 0.4, 0.6, 0.3, 0.7, 0.8, 0.2];
        ((0..5).map(subject).collect(), Probabilities::new(rows, 2))
    }

    fn cleaned(verdicts: Vec<(u8, Verdict)>) -> Result<CleanedAccuracy, UnusableDecisions> {
        let path = |index| (index > 0).then(|| format!("{index}.png"));
        let decision = |(index, verdict)| Decision { digest: digest(index), path: path(index), verdict };
        let (subjects, rows) = measured();
        apply(&Decisions { decisions: verdicts.into_iter().map(decision).collect() }, &classes(), &subjects, &rows)
    }

    fn relabel(class: &str) -> Verdict {
        Verdict::Relabel { class: class.into() }
    }

    #[test]
    fn an_excluded_photo_is_left_out_and_a_relabelled_one_counts_with_its_new_label() {
        let verdicts = vec![(1, relabel("dog")), (2, Verdict::Exclude), (0, Verdict::Keep), (9, Verdict::Exclude)];
        let cleaned = cleaned(verdicts).expect("valid");
        assert_eq!((cleaned.score.photos, cleaned.score.correct), (4, 3));
        let counts = (cleaned.excluded, cleaned.relabelled, cleaned.kept, cleaned.unknown, cleaned.changed_errors);
        assert_eq!(counts, (1, 1, 1, 1, 2));
        assert_eq!(cleaned.changes, [("1.png".into(), relabel("dog")), ("2.png".into(), Verdict::Exclude)]);
    }

    #[test]
    fn a_right_prediction_can_become_wrong_and_is_no_changed_error() {
        let cleaned = cleaned(vec![(0, relabel("dog")), (3, Verdict::Exclude)]).expect("valid");
        assert_eq!((cleaned.score.photos, cleaned.score.correct, cleaned.changed_errors), (4, 0, 0));
    }

    #[test]
    fn relabelling_to_the_same_label_keeps_the_photo() {
        let cleaned = cleaned(vec![(0, relabel("cat"))]).expect("valid");
        assert_eq!((cleaned.kept, cleaned.relabelled, cleaned.score.correct), (1, 0, 2));
    }

    #[test]
    fn no_decision_leaves_the_raw_accuracy() {
        let cleaned = cleaned(vec![]).expect("valid");
        assert_eq!((cleaned.score.photos, cleaned.score.correct), (5, 2));
    }

    #[test]
    fn two_decisions_about_a_photo_and_unknown_classes_are_refused() {
        let twice = cleaned(vec![(0, Verdict::Keep), (0, Verdict::Exclude)]).expect_err("ambiguous");
        assert_eq!(twice, UnusableDecisions::Twice { photo: digest(0).to_string() });
        let unknown = cleaned(vec![(1, relabel("bird"))]).expect_err("no such class").to_string();
        assert!(unknown.contains("photo 1.png to \"bird\"") && unknown.contains("cat, dog"), "{unknown}");
    }
}
