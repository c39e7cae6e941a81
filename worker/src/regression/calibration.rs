//! How good probabilities are, and the temperature that makes them as often right as they say.

/// Logits of photos, for each of their views.
#[derive(Debug, Clone, Default)]
pub struct Logits {
    /// For each photo, view by view, one value for each class.
    values: Vec<f32>,
    /// The index of each photo's class.
    labels: Vec<usize>,
    views: usize,
    classes: usize,
}

impl Logits {
    pub(super) fn new(views: usize, classes: usize) -> Self {
        Self { views, classes, ..Self::default() }
    }

    /// Adds photos of these classes, from the logits of each view, photo by photo.
    pub(super) fn extend(&mut self, labels: &[usize], views: &[Vec<f64>]) {
        for (photo, &label) in labels.iter().enumerate() {
            for view in views {
                self.values.extend(view[photo * self.classes..][..self.classes].iter().map(|logit| *logit as f32));
            }
            self.labels.push(label);
        }
    }

    /// Adds the photos of `other`.
    pub(super) fn append(&mut self, other: &Self) {
        self.values.extend_from_slice(&other.values);
        self.labels.extend_from_slice(&other.labels);
    }

    /// The mean negative log likelihood of the true classes in nats, if a prediction is the mean over the views of
    /// `softmax(logits / temperature)`.
    #[must_use]
    pub fn nll(&self, temperature: f64) -> f64 {
        self.losses(temperature).sum::<f64>() / self.labels.len() as f64
    }

    /// The negative log likelihood of each photo's true class in nats.
    pub fn losses(&self, temperature: f64) -> impl Iterator<Item = f64> {
        // A probability that is no number above 0 any more would make the mean infinite, and every temperature equally bad.
        let loss = move |(photo, &label): (&[f32], &usize)| {
            // The logarithm of the inverse, as the negative logarithm of 1 is -0.
            self.probabilities(photo, temperature)[label].max(f64::MIN_POSITIVE).recip().ln()
        };
        self.photos().map(loss)
    }

    /// The probabilities of every photo, photo by photo, if a prediction is the mean over the views of `softmax(logits)`.
    #[must_use]
    pub fn uncalibrated(&self) -> Vec<f32> {
        let row = |(photo, _): (&[f32], &usize)| self.probabilities(photo, 1.0);
        self.photos().flat_map(row).map(|probability| probability as f32).collect()
    }

    /// How many photos have their own class as the most probable one. Of equally probable classes the first one counts.
    #[must_use]
    pub fn right(&self, temperature: f64) -> usize {
        let predicted = |photo: &[f32]| {
            let probabilities = self.probabilities(photo, temperature);
            (1..self.classes)
                .fold(0, |best, class| if probabilities[class] > probabilities[best] { class } else { best })
        };
        self.photos().filter(|(photo, label)| predicted(photo) == **label).count()
    }

    /// The energy of every photo: the logarithm of the sum of `exp(logit)` over the classes, of the mean logits of its views.
    pub(super) fn energies(&self) -> Vec<f64> {
        let energy = |(photo, _): (&[f32], &usize)| {
            let mean =
                |class| photo.iter().skip(class).step_by(self.classes).map(|logit| f64::from(*logit)).sum::<f64>();
            let mean: Vec<f64> = (0..self.classes).map(|class| mean(class) / self.views as f64).collect();
            let highest = mean.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            highest + mean.iter().map(|logit| (logit - highest).exp()).sum::<f64>().ln()
        };
        self.photos().map(energy).collect()
    }

    /// The logits of every photo, and its class.
    fn photos(&self) -> impl Iterator<Item = (&[f32], &usize)> {
        self.values.chunks_exact(self.views * self.classes).zip(&self.labels)
    }

    /// The mean, over the views of a photo, of `softmax(logits / temperature)`.
    fn probabilities(&self, photo: &[f32], temperature: f64) -> Vec<f64> {
        let mut mean = vec![0.0; self.classes];
        for logits in photo.chunks_exact(self.classes) {
            let highest = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            let exp = |logit: &f32| (f64::from(logit - highest) / temperature).exp();
            let weight = 1.0 / (self.views as f64 * logits.iter().map(exp).sum::<f64>());
            mean.iter_mut().zip(logits).for_each(|(mean, logit)| *mean += exp(logit) * weight);
        }
        mean
    }

    /// The temperature between 0.2 and 5 with the lowest negative log likelihood, by a golden-section search.
    #[must_use]
    pub fn temperature(&self) -> f64 {
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        let nll = |logarithm: f64| self.nll(logarithm.exp());
        let (mut low, mut high) = (0.2_f64.ln(), 5.0_f64.ln());
        let (mut left, mut right) = (high - GOLDEN * (high - low), low + GOLDEN * (high - low));
        let (mut at_left, mut at_right) = (nll(left), nll(right));
        while high - low > 1e-6 {
            if at_left < at_right {
                (high, right, at_right) = (right, left, at_left);
                left = high - GOLDEN * (high - low);
                at_left = nll(left);
            } else {
                (low, left, at_left) = (left, right, at_right);
                right = low + GOLDEN * (high - low);
                at_right = nll(right);
            }
        }
        f64::midpoint(low, high).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 photos of two classes, of which `right` are predicted right, each with logits of 2 and 0 in both views.
    fn sure(right: usize) -> Logits {
        let mut logits = Logits::new(2, 2);
        let view = [2.0, 0.0].repeat(100);
        let labels: Vec<usize> = (0..100).map(|photo| usize::from(photo >= right)).collect();
        logits.extend(&labels, &[view.clone(), view]);
        logits
    }

    #[test]
    fn the_temperature_makes_a_probability_as_often_right_as_it_says() {
        for right in [70, 80, 95] {
            let share = right as f64 / 100.0;
            // softmax(2 / T) = share, so T = 2 / ln(share / (1 - share)).
            let expected = 2.0 / (share / (1.0 - share)).ln();
            let logits = sure(right);
            assert!((logits.temperature() - expected).abs() < 1e-4, "{right}: {}", logits.temperature());
            let entropy = -(share * share.ln() + (1.0 - share) * (1.0 - share).ln());
            assert!((logits.nll(expected) - entropy).abs() < 1e-6);
            assert_eq!(logits.right(expected), right);
        }
    }

    #[test]
    fn the_views_of_a_photo_are_averaged_as_probabilities() {
        let mut logits = Logits::new(2, 2);
        logits.extend(&[0], &[vec![0.0, 0.0], vec![3.0_f64.ln(), 0.0]]);
        assert!((logits.nll(1.0) + ((0.5 + 0.75) / 2.0_f64).ln()).abs() < 1e-6);
        let mut both = logits.clone();
        both.append(&logits);
        assert!((both.nll(1.0) - logits.nll(1.0)).abs() < 1e-12, "a mean over photos");
    }
}
