//! An evaluation in lines: how good a model is.

use sortinghat_proto::{
    Tta, TtaRecipe,
    manifest::{CleanedAccuracy, EvaluationManifest, Findings, LabelDoubt, PairedTest, Score, Verdict},
    words::{known_photos, not_measured},
};

use super::{
    numbers::{count, counted, interval, p_value, percent},
    table,
};

/// Pairs of classes and doubtful labels that are shown; the report has all of them.
const SHOWN: usize = 5;
/// A difference with a p-value below this is unlikely to be chance.
const SIGNIFICANCE: f64 = 0.05;

/// The evaluation in lines.
pub(crate) fn lines(found: &EvaluationManifest) -> Vec<String> {
    let mut lines = vec![format!("{} on {}:", found.model, found.on.description)];
    let found = &found.findings;
    lines.extend(scores(found));
    // The job has warned of these photos, too. Here the line is part of the result, which is shown even if no progress is.
    if let Some(known) = found.learned_from.filter(|known| *known > 0) {
        lines.push(known_photos(known, found.plain.photos));
    }
    if let (Some(test), Some(tta)) = (&found.comparison, &found.tta) {
        lines.push(comparison(test, tta));
    }
    lines.extend(most_confused(found));
    if let Some(cleaned) = &found.cleaned {
        lines.extend(decided(found.best(), cleaned));
    }
    lines.extend(doubted(found));
    lines.extend(not_measured(found.skipped));
    lines
}

fn scores(found: &Findings) -> Vec<String> {
    let named = [("plain", Some(&found.plain)), ("with TTA", found.augmented.as_ref())];
    let rows: Vec<[String; 5]> =
        named.into_iter().filter_map(|(name, score)| score.map(|score| score_row(name, score))).collect();
    table::columns(["", "accuracy", "right", "95% interval", "loss"], &rows)
}

fn score_row(name: &str, score: &Score) -> [String; 5] {
    let right = format!("{} of {}", count(score.correct), count(score.photos));
    [name.to_owned(), percent(score.accuracy()), right, interval(score.interval), format!("{:.4}", score.loss)]
}

fn comparison(test: &PairedTest, tta: &Tta) -> String {
    let recipe = match tta.recipe {
        TtaRecipe::Fastai2 => "fastai2",
        TtaRecipe::Fastai07 => "fastai07",
        TtaRecipe::Max => "max",
    };
    let what = format!("TTA ({recipe}, {})", counted(u64::from(tta.passes), "pass", "passes"));
    if test.only_first + test.only_second == 0 {
        return format!("{what} changed no verdict");
    }
    let verdict = match test.p_value < SIGNIFICANCE {
        true => "this is hardly chance",
        false => "this may well be chance",
    };
    format!(
        "{what} put {} right and {} wrong: {verdict} (exact McNemar {})",
        counted(test.only_second, "photo", "photos"),
        count(test.only_first),
        p_value(test.p_value)
    )
}

fn most_confused(found: &Findings) -> Vec<String> {
    if found.most_confused.is_empty() {
        return Vec::new();
    }
    let name = |class: usize| found.classes.get(class).map_or("?", String::as_str);
    let pairs = found.most_confused.iter().take(SHOWN);
    let lines = pairs
        .map(|pair| format!("  {} of {} taken for {}", count(pair.photos), name(pair.label), name(pair.predicted)));
    std::iter::once("most confused:".to_owned()).chain(lines).collect()
}

/// Labels that a person should look at.
fn doubted(found: &Findings) -> Vec<String> {
    let doubts = found.doubts.as_deref().unwrap_or_default();
    if doubts.is_empty() {
        return Vec::new();
    }
    let name = |class: usize| found.classes.get(class).map_or("?", String::as_str);
    let line = |doubt: &LabelDoubt| {
        let (label, suggested) = (name(doubt.label), name(doubt.suggested));
        format!(
            "  {}: {label} {}, {suggested} {}",
            doubt.path,
            percent(doubt.label_probability),
            percent(doubt.suggested_probability)
        )
    };
    let labels = counted(found.doubted(), "label looks", "labels look");
    let asked = match doubts.len() as u64 {
        listed if listed == found.doubted() => "them".to_owned(),
        listed => format!("{} of them", count(listed)),
    };
    let first = format!("{labels} wrong (about half of such labels are); the report asks you about {asked}:");
    std::iter::once(first).chain(doubts.iter().take(SHOWN).map(line)).collect()
}

/// The scores before and after the person's decisions side by side, and what was decided.
fn decided(raw: &Score, cleaned: &CleanedAccuracy) -> Vec<String> {
    let mut lines = vec!["with your decisions:".to_owned()];
    let rows = [score_row("raw", raw), score_row("cleaned", &cleaned.score)];
    lines.extend(table::columns(["", "accuracy", "right", "95% interval", "loss"], &rows));
    let CleanedAccuracy { excluded, relabelled, kept, changed_errors, unknown, .. } = cleaned;
    lines.push(format!("{} excluded, {} relabelled, {} kept", count(*excluded), count(*relabelled), count(*kept)));
    if *changed_errors > 0 {
        lines.push(format!(
            "{} of the {} changed photos had been predicted wrong: decisions about errors alone inflate the score",
            count(*changed_errors),
            count(excluded + relabelled)
        ));
    }
    if *unknown > 0 {
        lines.push(format!("{} no photo of this evaluation", counted(*unknown, "decision names", "decisions name")));
    }
    lines.extend(cleaned.changes.iter().map(|(path, verdict)| match verdict {
        Verdict::Keep => format!("  keep     {path}"),
        Verdict::Exclude => format!("  exclude  {path}"),
        Verdict::Relabel { class } => format!("  relabel  {path} -> {class}"),
    }));
    lines
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::{
        Digest, ObjectRef,
        manifest::{Confusion, EvaluationTarget, Interval},
    };

    use super::*;

    fn score(correct: u64) -> Score {
        Score { photos: 142, correct, interval: Interval::wilson(correct, 142), loss: 0.5 }
    }

    fn evaluation() -> EvaluationManifest {
        EvaluationManifest {
            model: "stamps/1".into(),
            on: EvaluationTarget {
                description: "the 142 held-out photos of stamps@1".into(),
                manifest: ObjectRef::of(b""),
                fold: None,
            },
            findings: findings(),
            report: ObjectRef::of(b""),
            predictions: ObjectRef::of(b""),
        }
    }

    fn findings() -> Findings {
        Findings {
            classes: vec!["animals".into(), "food".into()],
            plain: score(121),
            augmented: Some(score(123)),
            tta: Some(Tta { recipe: TtaRecipe::Fastai2, passes: 4 }),
            comparison: Some(PairedTest { only_first: 1, only_second: 3, p_value: 0.625 }),
            per_class: vec![],
            confusion: vec![],
            most_confused: vec![Confusion { label: 0, predicted: 1, photos: 4 }],
            mistakes: vec![],
            doubts: Some(vec![LabelDoubt {
                digest: Digest::of(b"cat"),
                path: "food/cat.png".into(),
                label: 1,
                suggested: 0,
                label_probability: 0.02,
                suggested_probability: 0.98,
                normalized_margin: 0.02,
                by_class: true,
            }]),
            doubted: 1,
            learned_from: Some(0),
            confidence: vec![],
            cleaned: None,
            skipped: 0,
        }
    }

    #[test]
    fn an_evaluation_says_on_what_how_good_how_sure_and_what_is_confused() {
        let text = lines(&evaluation()).join("\n");
        for part in [
            "stamps/1 on the 142 held-out photos of stamps@1:",
            "plain     85.2%     121 of 142  78.4 to 90.1%",
            "TTA (fastai2, 4 passes) put 3 photos right and 1 wrong: this may well be chance (exact McNemar p = 0.625)",
            "  4 of animals taken for food",
            "1 label looks wrong (about half of such labels are)",
            "  food/cat.png: food 2.0%, animals 98.0%",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn photos_that_were_learned_from_are_part_of_the_result() {
        let told = |learned_from| {
            let findings = Findings { learned_from, ..findings() };
            lines(&EvaluationManifest { findings, ..evaluation() }).join("\n")
        };
        assert!(told(Some(27)).contains("\nthe model has learned from 27 of these 142 photos: "), "{}", told(Some(27)));
        assert!(!told(Some(0)).contains("learned") && !told(None).contains("learned"));
    }

    #[test]
    fn labels_that_are_not_listed_are_counted() {
        let text = lines(&EvaluationManifest { findings: Findings { doubted: 1_124, ..findings() }, ..evaluation() });
        let line = "1,124 labels look wrong (about half of such labels are); the report asks you about 1 of them:";
        assert!(text.iter().any(|told| told == line), "{text:?}");
    }

    #[test]
    fn decisions_are_shown_raw_and_cleaned_side_by_side_with_the_list_and_the_warning() {
        let cleaned = CleanedAccuracy {
            score: Score { photos: 141, correct: 122, interval: Interval::wilson(122, 141), loss: 0.4 },
            excluded: 1,
            relabelled: 1,
            kept: 0,
            changed_errors: 2,
            unknown: 1,
            changes: vec![
                ("a/1.png".into(), Verdict::Exclude),
                ("a/2.png".into(), Verdict::Relabel { class: "food".into() }),
            ],
        };
        let text =
            lines(&EvaluationManifest { findings: Findings { cleaned: Some(cleaned), ..findings() }, ..evaluation() })
                .join("\n");
        for part in [
            "raw      86.6%     123 of 142",
            "cleaned  86.5%     122 of 141",
            "2 of the 2 changed photos had been predicted wrong",
            "1 decision names no photo of this evaluation",
            "  exclude  a/1.png",
            "  relabel  a/2.png -> food",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
