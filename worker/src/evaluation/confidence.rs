//! How often predictions are right, by how sure the model is of them.

use sortinghat_proto::manifest::ConfidenceBin;

use super::findings::{Prediction, Subject};

/// Where the bins begin: every 5%, and once more at 99%, because many photos lie there.
const STARTS: [f64; 21] = [
    0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99,
];

/// The predictions by the probability of the predicted class.
pub(super) fn bins(subjects: &[Subject], predictions: &[Prediction]) -> Vec<ConfidenceBin> {
    let mut bins = STARTS.map(|from| ConfidenceBin { from, photos: 0, correct: 0, mean: 0.0 });
    for (subject, prediction) in subjects.iter().zip(predictions) {
        let confidence = prediction.predicted_probability;
        // The network computes in 32 bits, where 0.9 is a little less than the 0.9 of 64 bits.
        let reaches = |from: &f64| confidence as f32 >= *from as f32;
        // The first bin begins at 0, below which there is no probability.
        let bin = &mut bins[STARTS.iter().rposition(reaches).unwrap_or(0)];
        bin.photos += 1;
        bin.correct += u64::from(prediction.predicted == subject.label);
        bin.mean += confidence;
    }
    for bin in &mut bins {
        bin.mean /= bin.photos.max(1) as f64;
    }
    bins.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sortinghat_proto::Digest;

    #[test]
    fn each_photo_is_in_the_one_bin_that_its_confidence_belongs_to() {
        let subject = Subject { digest: Digest::of(b""), path: String::new(), label: 0 };
        // 0.5 begins a bin, and 1 belongs to the last. The two photos of 0.9 and 0.94 share a bin, and one of them is wrong.
        let rows = [[0.5, 0.5], [1.0, 0.0], [0.9, 0.1], [0.06, 0.94]];
        let predictions = rows.map(|row| Prediction::read(&row, 0));
        let bins = bins(&[subject.clone(), subject.clone(), subject.clone(), subject], &predictions);
        let filled: Vec<(f64, u64, u64)> =
            bins.iter().filter(|bin| bin.photos > 0).map(|bin| (bin.from, bin.photos, bin.correct)).collect();
        assert_eq!(filled, [(0.5, 1, 1), (0.9, 2, 1), (0.99, 1, 1)]);
        assert!((bins[18].mean - 0.92).abs() < 1e-6, "{:?}", bins[18]);
        assert_eq!(bins[0].mean, 0.0, "a bin without photos has no NaN");
    }
}
