use clap::{Args, ValueEnum};
use sortinghat_proto::{Tta, TtaRecipe};

const DEFAULT_PASSES: u32 = 4;

// No doc comment: clap would show it as the description of every command that has these options.
#[derive(Debug, Args)]
pub(crate) struct Augmentation {
    /// Test-time augmentation: also predict from augmented copies of each photo
    #[arg(long, value_name = "RECIPE", num_args = 0..=1, require_equals = true, default_missing_value = "fastai2")]
    tta: Option<TtaArg>,
    /// Number of augmented passes, 1 to 32 [default: 4]
    #[arg(long, hide_short_help = true, value_name = "N", requires = "tta", value_parser = clap::value_parser!(u32).range(1..=32))]
    passes: Option<u32>,
    /// Seed of the augmentation
    #[arg(long, hide_short_help = true, default_value_t = 0)]
    pub(crate) seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TtaArg {
    /// 3/4 of the mean over the augmented passes + 1/4 of the plain one
    Fastai2,
    /// The mean over all passes
    Fastai07,
    /// The maximum over all passes
    Max,
}

impl Augmentation {
    /// The augmentation that these options ask for.
    pub(crate) fn tta(&self) -> Option<Tta> {
        let recipe = match self.tta? {
            TtaArg::Fastai2 => TtaRecipe::Fastai2,
            TtaArg::Fastai07 => TtaRecipe::Fastai07,
            TtaArg::Max => TtaRecipe::Max,
        };
        Some(Tta { recipe, passes: self.passes.unwrap_or(DEFAULT_PASSES) })
    }
}
