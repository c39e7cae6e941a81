//! Measures predictions against the labels of photos.

use std::collections::BTreeMap;

use sortinghat_proto::limits::{MAX_MATRIX_CLASSES, MAX_REVIEWED_PHOTOS};
use sortinghat_proto::manifest::{ClassMetrics, Confusion, Findings, Interval, LabelDoubt, Mistake, PairedTest, Score};
use sortinghat_proto::{Digest, Tta};

use super::confidence;
use super::confident::{Doubt, Evidence};
use crate::prediction::metrics::{argmax, mcnemar_exact};
use crate::prediction::probabilities::Probabilities;

/// How many rightly predicted photos are listed, those of which the model is least sure, so that a review looks not at errors alone.
pub const MAX_REVIEWED_RIGHT: usize = 24;

/// A labelled photo that was predicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The photo's original.
    pub digest: Digest,
    /// Its path in the upload.
    pub path: String,
    /// The label's index.
    pub label: usize,
}

/// What a model says of one photo whose label is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// The most probable class.
    pub predicted: usize,
    /// Its probability.
    pub predicted_probability: f64,
    /// The label's probability.
    pub label_probability: f64,
    /// Loss in nats: minus the logarithm of the label's probability.
    pub loss: f64,
}

impl Prediction {
    /// Reads one row of class probabilities. A probability too small for a 32-bit float counts as the smallest one, so
    /// that a loss is always finite.
    pub fn read(row: &[f32], label: usize) -> Self {
        let predicted = argmax(row);
        let label_probability = f64::from(row[label]);
        Self {
            predicted,
            predicted_probability: f64::from(row[predicted]),
            label_probability,
            loss: -label_probability.clamp(f64::from(f32::MIN_POSITIVE), 1.0).ln() + 0.0,
        }
    }
}

/// Measures `plain`, and `augmented` where there is one, against the labels of `subjects`, row by row.
///
/// # Panics
/// When there is not one row for each subject, or a label is no class.
pub fn measure(
    classes: Vec<String>,
    subjects: &[Subject],
    plain: &Probabilities,
    augmented: Option<(Tta, &Probabilities)>,
) -> Findings {
    let plain_predictions = read_all(subjects, plain);
    let augmented_predictions = augmented.map(|(_, rows)| read_all(subjects, rows));
    let best = augmented_predictions.as_ref().unwrap_or(&plain_predictions);
    let cells = cells(subjects, best);
    Findings {
        plain: score(subjects, &plain_predictions),
        augmented: augmented_predictions.as_ref().map(|predictions| score(subjects, predictions)),
        tta: augmented.map(|(tta, _)| tta),
        comparison: augmented_predictions.as_ref().map(|second| compare(subjects, &plain_predictions, second)),
        per_class: per_class(classes.len(), &cells),
        most_confused: most_confused(&cells),
        mistakes: reviewed(subjects, best),
        confusion: matrix(classes.len(), &cells),
        classes,
        doubts: None,
        doubted: 0,
        learned_from: None,
        confidence: confidence::bins(subjects, best),
        cleaned: None,
        skipped: 0,
    }
}

/// Lists the photos whose label is probably wrong by out-of-sample probabilities `rows`, the least self-confident first, and counts them.
///
/// # Panics
/// As [`measure`].
pub fn list_doubts(findings: &mut Findings, subjects: &[Subject], rows: &Probabilities) {
    let labels: Vec<usize> = subjects.iter().map(|subject| subject.label).collect();
    let doubts = Evidence::new(&labels, rows, findings.classes.len()).doubts();
    let told = |doubt: &Doubt| {
        let Subject { digest, path, label } = subjects[doubt.photo].clone();
        LabelDoubt {
            digest,
            path,
            label,
            suggested: doubt.suggested,
            label_probability: doubt.self_confidence,
            suggested_probability: f64::from(rows.row(doubt.photo)[doubt.suggested]),
            normalized_margin: doubt.normalized_margin,
            by_class: doubt.by_class,
        }
    };
    findings.doubted = doubts.len() as u64;
    findings.doubts = Some(doubts.iter().take(MAX_REVIEWED_PHOTOS).map(told).collect());
}

/// The prediction of every subject.
pub(super) fn read_all(subjects: &[Subject], rows: &Probabilities) -> Vec<Prediction> {
    assert_eq!(subjects.len(), rows.len(), "one row for each photo");
    subjects.iter().zip(rows.iter()).map(|(subject, row)| Prediction::read(row, subject.label)).collect()
}

/// The score of `predictions` against the subjects' labels.
pub(super) fn score(subjects: &[Subject], predictions: &[Prediction]) -> Score {
    let photos = subjects.len() as u64;
    let right = subjects.iter().zip(predictions).filter(|(subject, prediction)| prediction.predicted == subject.label);
    let correct = right.count() as u64;
    let loss = predictions.iter().map(|prediction| prediction.loss).sum::<f64>() / photos.max(1) as f64;
    Score { photos, correct, interval: Interval::wilson(correct, photos), loss }
}

fn compare(subjects: &[Subject], first: &[Prediction], second: &[Prediction]) -> PairedTest {
    let (mut only_first, mut only_second) = (0, 0);
    for ((subject, first), second) in subjects.iter().zip(first).zip(second) {
        match (first.predicted == subject.label, second.predicted == subject.label) {
            (true, false) => only_first += 1,
            (false, true) => only_second += 1,
            (true, true) | (false, false) => {}
        }
    }
    PairedTest { only_first, only_second, p_value: mcnemar_exact(only_first, only_second) }
}

/// Photos by (label, predicted class), without the zeros.
type Cells = BTreeMap<(usize, usize), u64>;

fn cells(subjects: &[Subject], predictions: &[Prediction]) -> Cells {
    let mut cells = Cells::new();
    for (subject, prediction) in subjects.iter().zip(predictions) {
        *cells.entry((subject.label, prediction.predicted)).or_default() += 1;
    }
    cells
}

fn matrix(classes: usize, cells: &Cells) -> Vec<Vec<u64>> {
    if classes > MAX_MATRIX_CLASSES {
        return Vec::new();
    }
    let mut matrix = vec![vec![0; classes]; classes];
    for (&(label, predicted), &photos) in cells {
        matrix[label][predicted] = photos;
    }
    matrix
}

fn per_class(classes: usize, cells: &Cells) -> Vec<ClassMetrics> {
    let nothing = ClassMetrics { photos: 0, predicted: 0, correct: 0, precision: None, recall: None };
    let mut metrics = vec![nothing; classes];
    for (&(label, predicted), &photos) in cells {
        metrics[label].photos += photos;
        metrics[predicted].predicted += photos;
        if label == predicted {
            metrics[label].correct = photos;
        }
    }
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    for class in &mut metrics {
        class.precision = share(class.correct, class.predicted);
        class.recall = share(class.correct, class.photos);
    }
    metrics
}

/// Sorted by count; equal ones by label, then prediction.
fn most_confused(cells: &Cells) -> Vec<Confusion> {
    let pairs = cells.iter().filter(|((label, predicted), _)| label != predicted);
    let mut pairs: Vec<_> =
        pairs.map(|(&(label, predicted), &photos)| Confusion { label, predicted, photos }).collect();
    pairs.sort_by_key(|pair| (std::cmp::Reverse(pair.photos), pair.label, pair.predicted));
    pairs
}

/// The photos that a person should look at, highest loss first; equal ones in the subjects' order.
fn reviewed(subjects: &[Subject], predictions: &[Prediction]) -> Vec<Mistake> {
    let mut order: Vec<usize> = (0..subjects.len()).collect();
    order.sort_by(|&a, &b| predictions[b].loss.total_cmp(&predictions[a].loss));
    let (mut errors, mut right) = (0, 0);
    order.retain(|&index| {
        let (seen, most) = match predictions[index].predicted == subjects[index].label {
            true => (&mut right, MAX_REVIEWED_RIGHT),
            false => (&mut errors, MAX_REVIEWED_PHOTOS),
        };
        *seen += 1;
        *seen <= most
    });
    order.into_iter().map(|index| mistake(&subjects[index], &predictions[index])).collect()
}

fn mistake(subject: &Subject, prediction: &Prediction) -> Mistake {
    Mistake {
        digest: subject.digest.clone(),
        path: subject.path.clone(),
        label: subject.label,
        predicted: prediction.predicted,
        label_probability: prediction.label_probability,
        predicted_probability: prediction.predicted_probability,
        loss: prediction.loss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sortinghat_proto::TtaRecipe;

    fn subjects(labels: &[usize]) -> Vec<Subject> {
        let subject = |(index, &label): (usize, &usize)| Subject {
            digest: Digest::of(&[index as u8]),
            path: format!("{label}/{index}.png"),
            label,
        };
        labels.iter().enumerate().map(subject).collect()
    }

    fn classes() -> Vec<String> {
        ["cat", "dog", "owl"].map(String::from).to_vec()
    }

    /// Four photos: two cats (one seen as a dog), a dog seen as a dog, an owl seen as a dog.
    fn predictions() -> (Vec<Subject>, Probabilities) {
        let rows = vec![0.7, 0.2, 0.1, 0.3, 0.6, 0.1, 0.0, 1.0, 0.0, 0.1, 0.9, 0.0];
        (subjects(&[0, 0, 1, 2]), Probabilities::new(rows, 3))
    }

    #[test]
    fn every_number_follows_from_the_confusion_matrix() {
        let (subjects, rows) = predictions();
        let findings = measure(classes(), &subjects, &rows, None);
        assert_eq!((findings.plain.photos, findings.plain.correct, findings.errors()), (4, 2, 2));
        assert_eq!(findings.confusion, [[1, 1, 0], [0, 1, 0], [0, 1, 0]]);
        let expected = [
            ClassMetrics { photos: 2, predicted: 1, correct: 1, precision: Some(1.0), recall: Some(0.5) },
            ClassMetrics { photos: 1, predicted: 3, correct: 1, precision: Some(1.0 / 3.0), recall: Some(1.0) },
            ClassMetrics { photos: 1, predicted: 0, correct: 0, precision: None, recall: Some(0.0) },
        ];
        assert_eq!(findings.per_class, expected);
        let pairs: Vec<_> = findings.most_confused.iter().map(|pair| (pair.label, pair.predicted)).collect();
        assert_eq!(pairs, [(0, 1), (2, 1)]);
    }

    #[test]
    fn the_highest_loss_comes_first_and_a_certain_error_has_a_finite_one() {
        let (subjects, rows) = predictions();
        let findings = measure(classes(), &subjects, &rows, None);
        let paths: Vec<_> = findings.mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
        assert_eq!(paths, ["2/3.png", "0/1.png", "0/0.png", "1/2.png"]);
        assert!(findings.mistakes[0].loss > 80.0 && findings.mistakes[0].loss.is_finite());
        assert_eq!(findings.mistakes[3].loss, 0.0);
        assert!((findings.mistakes[1].loss + 0.3f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn plain_and_augmented_are_compared_photo_by_photo() {
        let (subjects, plain) = predictions();
        // The first cat is lost, the second cat and the owl are won.
        let augmented = Probabilities::new(vec![0.1, 0.8, 0.1, 0.6, 0.3, 0.1, 0.0, 1.0, 0.0, 0.1, 0.2, 0.7], 3);
        let tta = Tta { recipe: TtaRecipe::Fastai2, passes: 4 };
        let findings = measure(classes(), &subjects, &plain, Some((tta, &augmented)));
        assert_eq!(findings.comparison, Some(PairedTest { only_first: 1, only_second: 2, p_value: 1.0 }));
        assert_eq!((findings.plain.correct, findings.best().correct), (2, 3));
        assert_eq!(findings.confusion[2], [0, 0, 1], "the matrix is of the best available predictions");
    }

    #[test]
    fn the_list_is_bounded_for_errors_and_for_right_ones_each() {
        let labels: Vec<usize> = (0..700).map(|index| usize::from(index < 600)).collect();
        let rows = Probabilities::new([0.6, 0.4].repeat(700), 2);
        let findings = measure(classes()[..2].to_vec(), &subjects(&labels), &rows, None);
        let right = findings.mistakes.iter().filter(|mistake| mistake.label == mistake.predicted).count();
        assert_eq!((right, findings.mistakes.len()), (MAX_REVIEWED_RIGHT, MAX_REVIEWED_RIGHT + MAX_REVIEWED_PHOTOS));
    }

    #[test]
    fn a_matrix_of_many_classes_is_left_out_and_its_pairs_are_not() {
        let names = (0..=MAX_MATRIX_CLASSES).map(|class| format!("class {class:03}")).collect();
        let mut row = vec![0.0; MAX_MATRIX_CLASSES + 1];
        row[1] = 1.0;
        let findings = measure(names, &subjects(&[0]), &Probabilities::new(row, MAX_MATRIX_CLASSES + 1), None);
        assert!(findings.confusion.is_empty());
        assert_eq!(findings.most_confused, [Confusion { label: 0, predicted: 1, photos: 1 }]);
    }

    #[test]
    fn a_doubted_label_is_listed_with_the_class_that_the_photo_looks_like() {
        let rows = [[0.9, 0.1], [0.95, 0.05], [0.02, 0.98], [0.1, 0.9], [0.03, 0.97], [0.05, 0.95]].concat();
        let (subjects, rows) = (subjects(&[0, 0, 0, 1, 1, 1]), Probabilities::new(rows, 2));
        let mut findings = measure(classes()[..2].to_vec(), &subjects, &rows, None);
        list_doubts(&mut findings, &subjects, &rows);
        let doubts = findings.doubts.expect("they were listed");
        assert_eq!((doubts.len(), findings.doubted), (1, 1));
        assert_eq!((doubts[0].path.as_str(), doubts[0].label, doubts[0].suggested), ("0/2.png", 0, 1));
    }

    #[test]
    fn findings_without_a_photo_are_zeros_and_not_nan() {
        let findings = measure(classes(), &[], &Probabilities::default(), None);
        assert_eq!((findings.plain.accuracy(), findings.plain.loss), (0.0, 0.0));
    }
}
