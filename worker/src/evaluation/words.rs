//! Sentences about an evaluation, for reports and lists.

use sortinghat_proto::manifest::{Findings, Interval, PairedTest, Score};
use sortinghat_proto::words::{counted, known_photos, not_measured, percent};
use sortinghat_proto::{Tta, TtaRecipe};

/// A range of shares: "78.4-90.1%".
pub fn interval(range: &Interval) -> String {
    format!("{:.1}-{:.1}%", range.low * 100.0, range.high * 100.0)
}

/// The one sentence that says how good the model is: "On the 142 held-out photos of stamps@1, stamps/1 is right on 85.2%
/// (95% interval 78.4-90.1%)."
pub fn headline(model: &str, target: &str, score: &Score) -> String {
    let (accuracy, range) = (percent(score.accuracy()), interval(&score.interval));
    format!("On {target}, {model} is right on {accuracy} (95% interval {range}).")
}

/// What a comparison of plain and augmented predictions shows, in words and with its p-value.
pub fn comparison_sentence(test: &PairedTest) -> String {
    let PairedTest { only_first: lost, only_second: won, p_value } = *test;
    if lost + won == 0 {
        return "Test-time augmentation changes no photo from wrong to right or back.".to_owned();
    }
    let photos = |number: u64| counted(number, "photo", "photos");
    let verdict = if p_value >= 0.05 {
        "this may well be chance"
    } else if won > lost {
        "this is hardly chance, so it helps"
    } else {
        "this is hardly chance, so it hurts"
    };
    let p = if p_value < 0.0001 { "p < 0.0001".to_owned() } else { format!("p = {p_value:.4}") };
    format!(
        "Test-time augmentation puts {} right and {} wrong: {verdict} (exact McNemar {p}).",
        photos(won),
        photos(lost)
    )
}

/// Which predictions a number is from. Every number that a person reads says so.
pub fn basis(tta: Option<&Tta>) -> String {
    match tta {
        None => "without test-time augmentation".to_owned(),
        Some(tta) => format!("with test-time augmentation ({})", tta_name(tta)),
    }
}

/// Says what it means that the model has learned from `known` of `photos` photos, where `None` is an unknown number. Nothing is said if it
/// has learned from none.
pub fn known_photos_sentence(known: Option<u64>, photos: u64) -> Option<String> {
    match known {
        Some(0) => None,
        Some(known) => Some(known_photos(known, photos)),
        None => Some(
            "the dataset that the model has learned from was deleted, so nobody can tell whether the model has learned \
             from some of these photos: if it has, it is better on them than on new ones"
                .to_owned(),
        ),
    }
}

/// The name of an augmentation in messages.
pub fn tta_name(tta: &Tta) -> String {
    let recipe = match tta.recipe {
        TtaRecipe::Fastai2 => "fastai 2",
        TtaRecipe::Fastai07 => "fastai 0.7",
        TtaRecipe::Max => "maximum",
    };
    format!("{recipe}, {} augmented passes", tta.passes)
}

/// The findings in one line for lists and logs.
pub fn summary(target: &str, findings: &Findings) -> String {
    let share = |score: &Score| format!("{} (95% interval {})", percent(score.accuracy()), interval(&score.interval));
    let mut text = format!("{} right on {target}", share(&findings.plain));
    if let (Some(augmented), Some(test)) = (&findings.augmented, &findings.comparison) {
        text += &format!("; with test-time augmentation {}, exact McNemar p = {:.3}", share(augmented), test.p_value);
    }
    if let Some(cleaned) = &findings.cleaned {
        let (score, excluded, relabelled) = (share(&cleaned.score), cleaned.excluded, cleaned.relabelled);
        text += &format!("; cleaned {score} with {excluded} left out and {relabelled} relabelled");
    }
    if let Some(sentence) = not_measured(findings.skipped) {
        text += &format!("; {sentence}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(correct: u64, photos: u64, low: f64, high: f64) -> Score {
        Score { photos, correct, interval: Interval { low, high }, loss: 0.5 }
    }

    #[test]
    fn the_headline_carries_its_interval() {
        let text = headline("stamps/1", "the 142 held-out photos of stamps@1", &score(121, 142, 0.784, 0.901));
        let expected = "On the 142 held-out photos of stamps@1, stamps/1 is right on 85.2% (95% interval 78.4-90.1%).";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_number_says_which_predictions_it_is_from_and_whether_the_photos_were_new() {
        assert_eq!(basis(None), "without test-time augmentation");
        let tta = Tta { recipe: TtaRecipe::Fastai2, passes: 4 };
        assert_eq!(basis(Some(&tta)), "with test-time augmentation (fastai 2, 4 augmented passes)");
        assert_eq!(known_photos_sentence(Some(0), 9), None);
        let some = known_photos_sentence(Some(27), 1_119).expect("a warning");
        assert!(some.contains("has learned from 27 of these 1,119 photos"), "{some}");
        assert!(known_photos_sentence(None, 9).expect("a warning").contains("nobody can tell"));
    }

    #[test]
    fn a_difference_is_called_real_only_if_chance_hardly_explains_it() {
        let sentence =
            |only_first, only_second, p_value| comparison_sentence(&PairedTest { only_first, only_second, p_value });
        assert!(sentence(1, 2, 1.0).contains("puts 2 photos right and 1 photo wrong: this may well be chance"));
        assert!(sentence(0, 8, 0.0078).contains("it helps (exact McNemar p = 0.0078)"));
        assert!(sentence(30, 2, 1e-7).contains("it hurts (exact McNemar p < 0.0001)"));
        assert!(sentence(0, 0, 1.0).contains("changes no photo"));
    }
}
