//! How the predictions of several views of a photo become one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Class probabilities of photos, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Probabilities {
    rows: Vec<f32>,
    classes: usize,
}

impl Probabilities {
    /// From `[photos, classes]` values, row by row.
    ///
    /// # Panics
    /// When `rows` is not a whole number of rows.
    #[must_use]
    pub fn new(rows: Vec<f32>, classes: usize) -> Self {
        assert!(classes > 0 && rows.len().is_multiple_of(classes), "rows are whole");
        Self { rows, classes }
    }

    /// Number of photos.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len().checked_div(self.classes).unwrap_or(0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The probabilities of photo `index`, one a class.
    ///
    /// # Panics
    /// When there are not so many photos.
    #[must_use]
    pub fn row(&self, index: usize) -> &[f32] {
        &self.rows[index * self.classes..][..self.classes]
    }

    /// Every photo's probabilities in order.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.rows.chunks_exact(self.classes.max(1))
    }

    /// Appends more photos.
    ///
    /// # Panics
    /// When they have another number of classes.
    pub fn extend(&mut self, more: &Self) {
        assert!(self.classes == more.classes || self.rows.is_empty(), "both have the same classes");
        self.classes = more.classes;
        self.rows.extend_from_slice(&more.rows);
    }

    fn map(&self, value: impl Fn(usize, f32) -> f32) -> Self {
        let rows = self.rows.iter().enumerate().map(|(i, &plain)| value(i, plain)).collect();
        Self { rows, classes: self.classes }
    }
}

/// A way of test-time augmentation. Each takes a plain view and four under training transforms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TtaRecipe {
    /// fastai 2: a quarter plain, three quarters the augmented mean.
    #[default]
    Fastai2,
    /// fastai 2 with `use_max`: the largest of plain and augmented, class by class; rows no longer sum to 1.
    Fastai2Max,
    /// fastai 0.7, the original experiment's: all five views weigh the same.
    Fastai07,
}

/// Not a known way of test-time augmentation.
#[derive(Debug, thiserror::Error)]
#[error("unknown test-time augmentation {0:?}; allowed are fastai2, fastai2-max, fastai07")]
pub struct UnknownTta(pub String);

impl TtaRecipe {
    /// Augmented views a photo.
    pub const PASSES: u32 = 4;

    /// One prediction from the plain one and the augmented ones.
    ///
    /// # Panics
    /// When `augmented` is empty or holds other photos.
    #[must_use]
    pub fn combine(self, plain: &Probabilities, augmented: &[Probabilities]) -> Probabilities {
        assert!(!augmented.is_empty() && augmented.iter().all(|pass| pass.rows.len() == plain.rows.len()));
        let passes = augmented.len() as f32;
        let sum = |i: usize| augmented.iter().map(|pass| pass.rows[i]).sum::<f32>();
        match self {
            Self::Fastai2 => plain.map(|i, plain| 0.75 * sum(i) / passes + 0.25 * plain),
            Self::Fastai07 => plain.map(|i, plain| (sum(i) + plain) / (passes + 1.0)),
            Self::Fastai2Max => plain.map(|i, plain| augmented.iter().map(|pass| pass.rows[i]).fold(plain, f32::max)),
        }
    }
}

impl fmt::Display for TtaRecipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fastai2 => "fastai2",
            Self::Fastai2Max => "fastai2-max",
            Self::Fastai07 => "fastai07",
        })
    }
}

impl FromStr for TtaRecipe {
    type Err = UnknownTta;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Fastai2, Self::Fastai2Max, Self::Fastai07]
            .into_iter()
            .find(|recipe| recipe.to_string() == name)
            .ok_or_else(|| UnknownTta(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_photo_and_grow_batch_by_batch() {
        let mut all = Probabilities::default();
        assert!(all.is_empty());
        all.extend(&Probabilities::new(vec![0.1, 0.9], 2));
        all.extend(&Probabilities::new(vec![0.7, 0.3, 0.5, 0.5], 2));
        assert_eq!((all.len(), all.row(1)), (3, [0.7, 0.3].as_slice()));
        assert_eq!(all.iter().count(), 3);
    }

    #[test]
    fn names_are_read_as_written() {
        for recipe in [TtaRecipe::Fastai2, TtaRecipe::Fastai2Max, TtaRecipe::Fastai07] {
            assert_eq!(recipe.to_string().parse::<TtaRecipe>().unwrap(), recipe);
            assert_eq!(serde_json::to_string(&recipe).unwrap(), format!("\"{recipe}\""));
        }
    }
}
