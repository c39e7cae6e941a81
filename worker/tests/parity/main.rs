//! Number for number against fastai, torchvision and timm. The reference values lie in `tests/golden` beside the
//! scripts that made them.

#![allow(clippy::unwrap_used, reason = "a test binary: what fails, fails the test")]

mod confident;
mod fine_tune;
mod formula;
mod imagenet;
mod mixing;
mod networks;
mod numbers;
mod precision;
mod rate_search;
mod resume;
