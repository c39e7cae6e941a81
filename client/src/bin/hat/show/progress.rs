//! How far a running attempt is, in words.

use sortinghat_proto::v1::Progress;

use super::{
    numbers::{bytes, count},
    plain,
};

/// "decoding, 5 of 24 photos". What is not known is left out.
pub(crate) fn words(progress: &Progress) -> String {
    let amount = |number| match progress.unit.as_str() {
        "bytes" => bytes(number),
        _ => count(number),
    };
    let unit = if progress.unit == "bytes" { String::new() } else { format!(" {}", progress.unit) };
    let what = doing(&progress.phase);
    let words = match (progress.done, progress.total) {
        (0, 0) => what.to_owned(),
        (done, 0) => format!("{what}, {}{unit}", amount(done)),
        (done, total) => format!("{what}, {} of {}{unit}", amount(done), amount(total)),
    };
    plain::cell(&words).into_owned()
}

/// What a worker does in a phase. A phase of a newer worker is shown by its own name.
fn doing(phase: &str) -> &str {
    match phase {
        "fetch" => "fetching the dataset",
        "weights" => "loading the pretrained weights",
        "find_lr" => "finding the learning rate",
        "train" => "training",
        "validate" => "validating",
        "store" => "storing the model",
        "decode" => "decoding",
        "group" => "looking for near-duplicates",
        "write" => "writing the dataset",
        "join" => "joining the parts",
        "predict" => "predicting",
        "report" => "writing the report",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_words_and_what_is_not_known_is_left_out() {
        let told = |phase: &str, done, total, unit: &str| {
            words(&Progress { phase: phase.into(), done, total, unit: unit.into() })
        };
        assert_eq!(told("decode", 5, 2400, "photos"), "decoding, 5 of 2,400 photos");
        assert_eq!(told("weights", 0, 0, "bytes"), "loading the pretrained weights");
        assert_eq!(told("store", 1536, 0, "bytes"), "storing the model, 1.5 KiB");
        assert_eq!(told("store", 1536, 3 << 20, "bytes"), "storing the model, 1.5 KiB of 3.0 MiB");
        assert_eq!(told("\u{1b}dream", 1, 2, "sheep"), "\\u{1b}dream, 1 of 2 sheep");
    }
}
