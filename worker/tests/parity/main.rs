//! Number for number against fastai, torchvision and timm. The reference values lie in `tests/golden` beside the
//! scripts that made them.

mod fine_tune;
mod formula;
mod imagenet;
mod networks;
mod numbers;
mod precision;
mod resume;
