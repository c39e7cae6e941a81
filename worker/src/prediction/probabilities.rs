//! Class probabilities of photos.

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

    /// The probabilities of photo `index`, one for each class.
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

    /// The mean of the probabilities that different views of the same photos give.
    ///
    /// # Panics
    /// When there is no view, or the views are of different numbers of photos.
    #[must_use]
    pub fn mean(views: &[Self]) -> Self {
        assert!(views.iter().all(|view| view.rows.len() == views[0].rows.len()), "the views show the same photos");
        if let [only] = views {
            return only.clone();
        }
        let count = views.len() as f32;
        views[0].map(|i, _| views.iter().map(|view| view.rows[i]).sum::<f32>() / count)
    }

    /// All values, row by row.
    pub(super) fn values(&self) -> &[f32] {
        &self.rows
    }

    /// The same photos with other values, each computed from its index among all values and from the value.
    pub(super) fn map(&self, value: impl Fn(usize, f32) -> f32) -> Self {
        let rows = self.rows.iter().enumerate().map(|(i, &plain)| value(i, plain)).collect();
        Self { rows, classes: self.classes }
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
    fn the_views_of_a_photo_have_the_same_weight() {
        let views = [vec![0.25, 0.75, 1.0, 0.0], vec![0.75, 0.25, 0.5, 0.5]].map(|rows| Probabilities::new(rows, 2));
        assert_eq!(Probabilities::mean(&views), Probabilities::new(vec![0.5, 0.5, 0.75, 0.25], 2));
        assert_eq!(Probabilities::mean(&views[..1]), views[0]);
    }
}
