//! Numbers, choices, states and recipes as people read them, in the same form on the command line, in reports and in sentences of the
//! coordinator.

use std::time::{Duration, UNIX_EPOCH};

use crate::{
    Mixing, TrainingCrop, limits,
    manifest::{
        AutoRecord, CandidateRecord, FineTuneRecord, Framing, Interval, LabelWeights, ModelManifest, RateSearch,
        RecipeRecord, RegressionRecord, UnlikeRecord, View,
    },
    time::UnixMs,
    v1::JobState,
};

/// The word for a job's state.
pub fn job_state(state: JobState) -> &'static str {
    match state {
        JobState::Unspecified => "unknown",
        JobState::Blocked => "blocked",
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// 0.852 as "85.2%".
pub fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// 12345 as "12,345".
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "1 photo", "2 photos", "1,000 classes".
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// "ingest, finetune and classify".
pub fn all_of(things: &[&str]) -> String {
    match things {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [others @ .., last] => format!("{} and {last}", others.join(", ")),
    }
}

/// "ingest, finetune or classify".
pub fn any_of(choices: &[&str]) -> String {
    match choices {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [others @ .., last] => format!("{} or {last}", others.join(", ")),
    }
}

/// Says what it means that a model has learned from `known` of the `photos` that it was measured on.
pub fn known_photos(known: u64, photos: u64) -> String {
    let (known, photos) = (count(known), count(photos));
    format!("the model has learned from {known} of these {photos} photos: it is better on them than on new ones")
}

/// Says that some files are in no number of an evaluation, and why: "1 file was not measured: it cannot be read or decoded, or lies in no
/// class folder". Nothing is said of no file.
pub fn not_measured(files: u64) -> Option<String> {
    let (were, they) = match files {
        0 => return None,
        1 => ("file was", "it cannot be read or decoded, or lies"),
        _ => ("files were", "they cannot be read or decoded, or lie"),
    };
    Some(format!("{} {were} not measured: {they} in no class folder", count(files)))
}

/// How many names a sentence lists before "and N more".
pub(crate) const LISTED: usize = 5;

/// "a, b and 3 more".
pub(crate) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let rest = names.len().saturating_sub(LISTED);
    let shown = names.take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if rest == 0 { shown } else { format!("{shown} and {} more", count(rest as u64)) }
}

/// A time as "2026-11-23 23:14:05Z".
pub fn time(time: UnixMs) -> String {
    let since = Duration::from_secs(time.0 / 1000);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string().replace('T', " ")
}

/// How a model was made: "fastai2: 1 + 5 epochs, learning rate 0.002, batches of 64, 224 px, seed 0".
pub fn recipe(made: &ModelManifest) -> String {
    let what = match &made.recipe {
        RecipeRecord::Fastai2(trained) => {
            let FineTuneRecord { freeze_epochs, epochs, base_lr, batch_size, .. } = trained;
            let size = made.image_size_px;
            format!("{freeze_epochs} + {epochs} epochs, learning rate {base_lr}, batches of {batch_size}, {size} px")
        }
        RecipeRecord::Fast(fitted) | RecipeRecord::Best(fitted) => regression(fitted),
        RecipeRecord::Auto(AutoRecord { chosen, candidates, regression: fitted, .. }) => match candidates.len() {
            0 => format!("{chosen}, {}", regression(fitted)),
            among => format!("{chosen}, chosen among {among} recipes, {}", regression(fitted)),
        },
    };
    format!("{}: {what}, seed {}", made.recipe.name(), made.seed)
}

fn regression(fitted: &RegressionRecord) -> String {
    let views = fitted.views.iter().map(view).collect::<Vec<_>>().join(" and ");
    format!("a regression on the features of {views}")
}

/// What a network sees of a photo: "the centre in 288 x 288 px".
pub fn view(view: &View) -> String {
    let shown = match view.framing {
        Framing::Crop => "the centre",
        Framing::Pad => "the whole photo",
    };
    format!("{shown} in {0} x {0} px", view.size_px)
}

/// What was chosen for a model: how its training differed from fastai's defaults, or the penalty of its regression.
pub fn recipe_options(made: &ModelManifest) -> String {
    match &made.recipe {
        RecipeRecord::Fastai2(trained) => training_options(trained),
        RecipeRecord::Fast(fitted) | RecipeRecord::Best(fitted) => regression_options(fitted),
        RecipeRecord::Auto(AutoRecord { regression: fitted, .. }) => regression_options(fitted),
    }
}

fn regression_options(fitted: &RegressionRecord) -> String {
    let RegressionRecord { lambda, temperature, inner_folds, .. } = fitted;
    match inner_folds {
        0 => format!("penalty {lambda:.1e}, because too few photos differed to choose one by"),
        folds => format!("penalty {lambda:.1e} and temperature {temperature:.2}, chosen on {folds} inner folds"),
    }
}

/// How a recipe did that was compared with others: "fast: NLL 0.449 on the inner folds, 0.032 behind the best (standard error 0.010)".
pub fn candidate(record: &CandidateRecord) -> String {
    let CandidateRecord { recipe, nll, behind, standard_error } = record;
    match *behind > 0.0 {
        true => {
            format!(
                "{recipe}: NLL {nll:.3} on the inner folds, {behind:.3} behind the best (standard error {standard_error:.3})"
            )
        }
        false => format!("{recipe}: NLL {nll:.3} on the inner folds, the best"),
    }
}

/// What was done about labels that are probably wrong: "about 12.0% of the labels seem wrong: 61 count less than half ...".
pub fn label_weights(record: &LabelWeights) -> String {
    let LabelWeights { wrong_share, below_half, .. } = record;
    let labels = counted(*below_half, "label counts", "labels count");
    format!("about {} of the labels seem wrong: {labels} less than half, and none was removed", percent(*wrong_share))
}

/// Whether a model tells photos that resemble none of its classes; `None` for a network that was trained, which never does.
pub fn unlike(made: &ModelManifest) -> Option<String> {
    Some(match &made.recipe.regression()?.unlike {
        Some(record) => format!("photos that resemble none of the classes are flagged: {}", false_alarms(record)),
        None => "photos that resemble none of the classes are not flagged".to_owned(),
    })
}

/// "3 of 142 held-out photos by mistake, 2.1% (95% interval 0.7-6.0%)".
pub fn false_alarms(record: &UnlikeRecord) -> String {
    let UnlikeRecord { held_out, false_alarms, .. } = *record;
    let share = percent(false_alarms as f64 / held_out.max(1) as f64);
    let Interval { low, high } = Interval::wilson(false_alarms, held_out);
    let interval = format!("{:.1}-{:.1}%", low * 100.0, high * 100.0);
    let photos = counted(held_out, "held-out photo", "held-out photos");
    format!("{} of {photos} by mistake, {share} (95% interval {interval})", count(false_alarms))
}

fn training_options(made: &FineTuneRecord) -> String {
    let mixing = made.mixing.map(|mixing| match mixing {
        Mixing::MixUp { alpha } => format!("MixUp {alpha}"),
        Mixing::CutMix { alpha } => format!("CutMix {alpha}"),
    });
    let smoothing = (made.label_smoothing > 0.0).then(|| format!("label smoothing {}", made.label_smoothing));
    let crop = match made.crop {
        TrainingCrop::Resize => None,
        TrainingCrop::RandomResized { min_scale } => Some(format!("random crops of at least {min_scale} of the area")),
    };
    let found = made.rate_search.as_ref().map(|search| {
        let RateSearch { valley, minimum, steep, slide, .. } = search;
        format!(
            "learning rate found (valley {valley:.2e}, minimum {minimum:.2e}, steep {steep:.2e}, slide {slide:.2e})"
        )
    });
    let all: Vec<String> = [mixing, smoothing, crop, found].into_iter().flatten().collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// `text`, with its middle left out if it has more than `most_bytes`. The end of a message often says what is allowed.
pub fn shortened(text: &str, most_bytes: usize) -> String {
    if text.len() <= most_bytes {
        return text.to_owned();
    }
    const GAP: &str = " ... ";
    let half = most_bytes.saturating_sub(GAP.len()) / 2;
    let (head, tail) = (text.floor_char_boundary(half), text.ceil_char_boundary(text.len() - half));
    format!("{}{GAP}{}", &text[..head], &text[tail..])
}

/// What somebody has sent, in quotes and escaped, for a message that says what is wrong with it.
pub fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text, limits::MAX_QUOTED_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([counted(1, "photo", "photos"), counted(2000, "photo", "photos")], ["1 photo", "2,000 photos"]);
        assert_eq!(percent(0.8521), "85.2%");
    }

    #[test]
    fn files_that_were_not_measured_are_told_with_both_causes() {
        assert_eq!(not_measured(0), None);
        let told = [1, 1_200].map(|files| not_measured(files).expect("there are some"));
        assert_eq!(told[0], "1 file was not measured: it cannot be read or decoded, or lies in no class folder");
        assert_eq!(told[1], "1,200 files were not measured: they cannot be read or decoded, or lie in no class folder");
    }

    #[test]
    fn a_long_text_loses_its_middle_and_is_cut_between_characters() {
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("abcdefghijklmnopqrstuvwxyz", 15), "abcde ... vwxyz");
        let cut = shortened(&"äöü".repeat(100), 21);
        assert!(cut.len() <= 21 && cut.starts_with("äöüä ... "), "{cut}");
    }

    #[test]
    fn choices_are_listed_with_or_before_the_last() {
        assert_eq!([any_of(&[]), any_of(&["a"]), any_of(&["a", "b"])], ["", "a", "a or b"]);
        assert_eq!(any_of(&["a", "b", "c"]), "a, b or c");
    }
}
