//! fastai's batch transforms on a whole batch: geometry composed and sampled once, light in logit space.

use serde::{Deserialize, Serialize};
use sortinghat_proto::Digest;
use tch::{Device, Kind, TchError, Tensor};

use crate::randomness::{Draws, Phase, Purpose};

/// Ranges and probabilities of the random transforms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Probability of a left-right flip.
    pub flip: f64,
    /// Probability of each of rotation, zoom and warp.
    pub affine: f64,
    /// Largest rotation in degrees, either way.
    pub max_rotation: f64,
    /// Largest magnification, at least 1.
    pub max_zoom: f64,
    /// Largest perspective warp along each axis.
    pub max_warp: f64,
    /// Probability of each of brightness and contrast.
    pub lighting: f64,
    /// Strength of the change of light, in [0, 1).
    pub max_lighting: f64,
}

impl Augmentation {
    /// fastai's `aug_transforms()`.
    pub const FASTAI: Self = Self {
        flip: 0.5,
        affine: 0.75,
        max_rotation: 10.0,
        max_zoom: 1.1,
        max_warp: 0.2,
        lighting: 0.75,
        max_lighting: 0.2,
    };

    /// Draws the transform of one photo in one epoch (or test-time pass).
    #[must_use]
    pub fn draw(&self, seed: u64, phase: Phase, epoch: u32, digest: &Digest) -> Transform {
        let mut draws = Draws::photo(seed, Purpose::Augmentation, phase, epoch, digest);
        let mut transform = Transform { flip: draws.happens(self.flip), ..Transform::IDENTITY };
        if draws.happens(self.affine) {
            transform.rotation = draws.range(-self.max_rotation, self.max_rotation);
        }
        if draws.happens(self.affine) {
            transform.zoom = draws.range(1.0, self.max_zoom);
            transform.zoom_centre = (draws.uniform(), draws.uniform());
        }
        if draws.happens(self.affine) {
            let mut magnitude = || draws.range(-self.max_warp, self.max_warp);
            transform.warp = (magnitude(), magnitude());
        }
        if draws.happens(self.lighting) {
            transform.brightness = draws.range(0.5 * (1.0 - self.max_lighting), 0.5 * (1.0 + self.max_lighting));
        }
        if draws.happens(self.lighting) {
            let limit = -(1.0 - self.max_lighting).ln();
            transform.contrast = draws.range(-limit, limit).exp();
        }
        transform
    }
}

/// What is done to one photo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transform {
    /// Left and right swapped.
    pub flip: bool,
    /// Degrees.
    pub rotation: f64,
    /// Magnification; 1 is none.
    pub zoom: f64,
    /// Where the magnified part lies, each in [0, 1].
    pub zoom_centre: (f64, f64),
    /// Perspective along x and y; 0 is none.
    pub warp: (f64, f64),
    /// 0.5 changes nothing.
    pub brightness: f64,
    /// 1 changes nothing.
    pub contrast: f64,
}

type Matrix = [[f64; 3]; 3];

impl Transform {
    /// Changes nothing.
    pub const IDENTITY: Self = Self {
        flip: false,
        rotation: 0.0,
        zoom: 1.0,
        zoom_centre: (0.5, 0.5),
        warp: (0.0, 0.0),
        brightness: 0.5,
        contrast: 1.0,
    };

    /// The projective map from output to source coordinates in [-1, 1] x [-1, 1], x first.
    #[must_use]
    fn homography(&self, height: f64, width: f64) -> Matrix {
        let sign = if self.flip { -1.0 } else { 1.0 };
        let flip = [[sign, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        let (sin, cos) = self.rotation.to_radians().sin_cos();
        let rotate = [[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]];
        let scale = 1.0 / self.zoom;
        let offset = |centre: f64| (1.0 - scale) * (2.0 * centre - 1.0);
        let zoom =
            [[scale, 0.0, offset(self.zoom_centre.0)], [0.0, scale, offset(self.zoom_centre.1)], [0.0, 0.0, 1.0]];
        let mut affine = multiply(&multiply(&flip, &rotate), &zoom);
        // The rotation is one in pixels, not in the stretched coordinates of a photo that is not square.
        affine[0][1] *= height / width;
        affine[1][0] *= width / height;
        if self.warp == (0.0, 0.0) { affine } else { multiply(&perspective(self.warp), &affine) }
    }
}

fn multiply(a: &Matrix, b: &Matrix) -> Matrix {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

/// The homography that maps the warped corners back to the square's.
fn perspective((x, y): (f64, f64)) -> Matrix {
    let from = [(-1.0 - y, -1.0 - x), (-1.0 + y, 1.0 + x), (1.0 + y, -1.0 + x), (1.0 - y, 1.0 - x)];
    let to = [(-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0)];
    let mut system = [[0.0; 9]; 8];
    for (i, ((u, v), (s, t))) in from.into_iter().zip(to).enumerate() {
        system[2 * i] = [u, v, 1.0, 0.0, 0.0, 0.0, -s * u, -s * v, s];
        system[2 * i + 1] = [0.0, 0.0, 0.0, u, v, 1.0, -t * u, -t * v, t];
    }
    let [a, b, c, d, e, f, g, h] = solve(system);
    [[a, b, c], [d, e, f], [g, h, 1.0]]
}

/// Gauss and Jordan with pivoting: eight equations, the right-hand side in the last column.
fn solve(mut system: [[f64; 9]; 8]) -> [f64; 8] {
    for column in 0..8 {
        let pivot = (column..8)
            .max_by(|&a, &b| system[a][column].abs().total_cmp(&system[b][column].abs()))
            .expect("the range is not empty");
        system.swap(column, pivot);
        let pivot_row = system[column].map(|value| value / system[column][column]);
        for (row, values) in system.iter_mut().enumerate() {
            let factor = values[column];
            if row != column {
                values.iter_mut().zip(pivot_row).for_each(|(value, pivot)| *value -= factor * pivot);
            }
        }
        system[column] = pivot_row;
    }
    system.map(|row| row[8])
}

/// Applies one transform for each photo to `[N, 3, H, W]` f32 in 0..1; the result is in (0, 1).
///
/// Bilinear, reflected at the borders, sampled once.
///
/// # Errors
/// When memory runs out.
///
/// # Panics
/// When there is not exactly one transform for each photo.
pub fn apply(images: &Tensor, transforms: &[Transform]) -> Result<Tensor, TchError> {
    let sampled = sample(images, transforms)?;
    relight(&sampled, transforms)
}

/// The geometry of [`apply`] alone.
///
/// # Errors
/// As [`apply`].
///
/// # Panics
/// As [`apply`].
pub fn sample(images: &Tensor, transforms: &[Transform]) -> Result<Tensor, TchError> {
    let (count, _, height, width) = images.size4()?;
    assert_eq!(count, i64::try_from(transforms.len()).unwrap_or(-1), "one transform for each photo");
    let device = images.device();
    let maps = transforms.iter().flat_map(|transform| {
        let map = transform.homography(height as f64, width as f64);
        map.into_iter().flatten().map(|value| value as f32)
    });
    let maps = Tensor::from_slice(&maps.collect::<Vec<_>>()).f_view([count, 3, 3])?.f_to_device(device)?;
    let points = grid(height, width, device)?.f_matmul(&maps.f_transpose(1, 2)?)?;
    let points = points.f_narrow(2, 0, 2)?.f_div(&points.f_narrow(2, 2, 1)?)?.f_view([count, height, width, 2])?;
    const BILINEAR: i64 = 0;
    const REFLECTION: i64 = 2;
    images.f_grid_sampler(&points, BILINEAR, REFLECTION, true)
}

/// Homogeneous coordinates `[1, H * W, 3]` of every output pixel; corners are the centres of the corner pixels.
fn grid(height: i64, width: i64, device: Device) -> Result<Tensor, TchError> {
    let axis = |extent| Tensor::f_linspace(-1.0, 1.0, extent, (Kind::Float, device));
    let x = axis(width)?.f_view([1, width])?.f_expand([height, width], false)?;
    let y = axis(height)?.f_view([height, 1])?.f_expand([height, width], false)?;
    let one = Tensor::f_ones([height, width], (Kind::Float, device))?;
    Tensor::f_stack(&[x, y, one], 2)?.f_view([1, height * width, 3])
}

/// Brightness, then contrast: `sigmoid((logit(x) + logit(b)) * c)`.
fn relight(images: &Tensor, transforms: &[Transform]) -> Result<Tensor, TchError> {
    let column = |value: &dyn Fn(&Transform) -> f64| {
        let values = transforms.iter().map(|transform| value(transform) as f32).collect::<Vec<_>>();
        Tensor::from_slice(&values).f_view([-1, 1, 1, 1])?.f_to_device(images.device())
    };
    let shift = column(&|transform| (transform.brightness / (1.0 - transform.brightness)).ln())?;
    let factor = column(&|transform| transform.contrast)?;
    images.f_logit(1e-7)?.f_add_(&shift)?.f_mul_(&factor)?.f_sigmoid_()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solved_perspective_maps_every_warped_corner_to_its_place() {
        let (x, y) = (0.15, -0.07);
        let map = perspective((x, y));
        let corners = [((-1.0 - y, -1.0 - x), (-1.0, -1.0)), ((1.0 + y, -1.0 + x), (1.0, -1.0))];
        for ((u, v), (s, t)) in corners {
            let at = |row: [f64; 3]| row[0] * u + row[1] * v + row[2];
            let scale = at(map[2]);
            assert!((at(map[0]) / scale - s).abs() < 1e-12 && (at(map[1]) / scale - t).abs() < 1e-12);
        }
    }

    #[test]
    fn drawn_transforms_stay_in_their_ranges_and_each_happens_about_as_often_as_it_should() {
        let count = 4000;
        let digest = Digest::of(b"photo");
        let draw = |i: u32| Augmentation::FASTAI.draw(9, Phase::Frozen, i, &digest);
        let share = |happened: &dyn Fn(&Transform) -> bool| {
            (0..count).filter(|&i| happened(&draw(i))).count() as f64 / f64::from(count)
        };
        let near = |share: f64, p: f64| assert!((share - p).abs() < 0.03, "{share}, expected {p}");
        near(share(&|t| t.flip), 0.5);
        near(share(&|t| t.rotation != 0.0), 0.75);
        near(share(&|t| t.zoom != 1.0), 0.75);
        near(share(&|t| t.warp != (0.0, 0.0)), 0.75);
        near(share(&|t| t.brightness != 0.5), 0.75);
        near(share(&|t| t.contrast != 1.0), 0.75);
        for transform in (0..count).map(draw) {
            assert!(transform.rotation.abs() <= 10.0 && (1.0..=1.1).contains(&transform.zoom));
            assert!((0.4..=0.6).contains(&transform.brightness) && (0.8..=1.25).contains(&transform.contrast));
        }
    }

    #[test]
    fn doing_nothing_leaves_every_pixel_where_it_was() {
        let images = Tensor::rand([2, 3, 9, 7], (Kind::Float, Device::Cpu)) * 0.98 + 0.01;
        let unchanged = apply(&images, &[Transform::IDENTITY; 2]).unwrap();
        assert!((unchanged - images).abs().max().double_value(&[]) < 1e-5);
    }
}
