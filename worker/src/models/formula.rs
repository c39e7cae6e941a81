//! Numbers that Rust and the Python of `tests/golden` compute alike, so that only results need to be stored.

use tch::Tensor;

/// The values that `tests/golden/formula.py` gives the name.
pub(crate) fn uniform(name: &str, shape: &[i64]) -> Tensor {
    let start = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let value = |index: i64| {
        let x = start.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / 2_f64.powi(52) - 1.0
    };
    let values = (0..shape.iter().product()).map(value).collect::<Vec<_>>();
    Tensor::from_slice(&values).view(shape)
}
