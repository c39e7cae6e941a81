//! The features of photos, as a pretrained network gives them.

use std::sync::Arc;

use sortinghat_proto::Digest;
use tch::{Kind, TchError, Tensor};

/// Pooled features of photos, for each of their views. Copies share the values.
#[derive(Debug, Clone)]
pub struct Features {
    /// For each view: the features of every photo, photo by photo.
    views: Vec<Arc<Vec<f32>>>,
    /// How many features a photo has.
    width: usize,
}

impl Features {
    /// From the values of each view, photo by photo, with `width` features of each.
    ///
    /// # Panics
    /// When a view has no whole number of photos.
    #[must_use]
    pub fn new(views: Vec<Vec<f32>>, width: usize) -> Self {
        assert!(views.iter().all(|view| view.len().is_multiple_of(width)), "each photo has all features");
        Self { views: views.into_iter().map(Arc::new).collect(), width }
    }

    /// No view yet of any photo.
    #[must_use]
    pub fn none() -> Self {
        Self { views: Vec::new(), width: 1 }
    }

    /// Some of the views.
    ///
    /// # Panics
    /// When there is no view of such a number.
    #[must_use]
    pub fn select(&self, views: &[usize]) -> Self {
        Self { views: views.iter().map(|&view| self.views[view].clone()).collect(), width: self.width }
    }

    /// How many views there are.
    #[must_use]
    pub fn views(&self) -> usize {
        self.views.len()
    }

    /// The features of these photos in one view, `[photos, features]` f64.
    pub(super) fn view(&self, view: usize, photos: &[usize]) -> Result<Tensor, TchError> {
        self.gathered(photos.iter().map(|photo| (view, *photo)))
    }

    /// The features of these photos in every view, one view after the other: `[views * photos, features]` f64.
    pub(super) fn rows(&self, photos: &[usize]) -> Result<Tensor, TchError> {
        self.gathered((0..self.views()).flat_map(|view| photos.iter().map(move |photo| (view, *photo))))
    }

    fn gathered(&self, rows: impl Iterator<Item = (usize, usize)>) -> Result<Tensor, TchError> {
        let row = |(view, photo): (usize, usize)| &self.views[view][photo * self.width..][..self.width];
        let values: Vec<f32> = rows.flat_map(row).copied().collect();
        let width = i64::try_from(self.width).expect("it fits in memory");
        Tensor::f_from_slice(&values)?.f_view([-1, width])?.f_to_kind(Kind::Double)
    }
}

/// Photos with what is known of them. All lists are in the order of the features.
#[derive(Debug, Clone)]
pub struct Examples {
    /// What the network gave.
    pub features: Features,
    /// The index of each photo's class.
    pub labels: Vec<usize>,
    /// How many classes there are.
    pub classes: usize,
    /// Photos with the same number are near-duplicates.
    pub groups: Vec<usize>,
    /// The digest of each photo.
    pub digests: Vec<Digest>,
    /// How much each photo counts where something is learned from it; `None` if all count the same.
    pub weights: Option<Vec<f64>>,
}

impl Examples {
    /// The same photos with some of their views.
    #[must_use]
    pub fn of_views(&self, views: &[usize]) -> Self {
        Self { features: self.features.select(views), ..self.clone() }
    }

    /// The classes of these photos, once for each view, in the order of [`Features::rows`].
    pub(super) fn labels_of_rows(&self, photos: &[usize]) -> Vec<usize> {
        let once = photos.iter().map(|&photo| self.labels[photo]).collect::<Vec<_>>();
        once.repeat(self.features.views())
    }

    /// The share that each row of [`Features::rows`] has in the mean over these photos, `[rows, 1]` f64; `None` if all have the same.
    pub(super) fn shares_of_rows(&self, photos: &[usize]) -> Result<Option<Tensor>, TchError> {
        let Some(weights) = &self.weights else { return Ok(None) };
        let once: Vec<f64> = photos.iter().map(|&photo| weights[photo]).collect();
        let all = once.iter().sum::<f64>() * self.features.views() as f64;
        let shares = once.repeat(self.features.views());
        Tensor::f_from_slice(&shares)?.f_div_scalar(all)?.f_view([-1, 1]).map(Some)
    }
}
