//! An audit in lines: which labels of a dataset look wrong.

use sortinghat_proto::manifest::{AuditFindings, AuditedLabel};

use super::numbers::{count, counted, interval, percent};

/// Labels that are shown; the page has all of them.
const SHOWN: usize = 10;

/// The audit in lines.
pub(crate) fn lines(found: &AuditFindings) -> Vec<String> {
    let AuditFindings { on, score, doubted, always_doubted, repeats, .. } = found;
    let (photos, look) = (count(score.photos), if *doubted == 1 { "looks" } else { "look" });
    let mut lines = vec![format!("{} of {photos} labels {look} wrong, of {}", count(*doubted), on.description)];
    if *repeats > 1 {
        lines[0] += &format!("; {} of them in all {repeats} repeats", count(*always_doubted));
    }
    lines.push(format!(
        "models that had not learned from a photo find its label in {} of cases (95% interval {}); about {} of the labels are estimated to be \
         wrong",
        percent(score.accuracy()),
        interval(score.interval),
        percent(found.wrong_share)
    ));
    if found.unaudited > 0 {
        let photos = counted(found.unaudited, "photo was", "photos were");
        lines.push(format!("{photos} not judged: too little else of the class is no near-duplicate"));
    }
    lines.extend(found.queue.iter().take(SHOWN).map(|label| line(found, label)));
    let shown = found.queue.len().min(SHOWN) as u64;
    if found.doubted > shown {
        lines.push(format!("  and {} more", count(found.doubted - shown)));
    }
    lines
}

fn line(found: &AuditFindings, label: &AuditedLabel) -> String {
    let name = |class: usize| found.classes.get(class).map_or("?", String::as_str);
    let repeats = if found.repeats > 1 { format!(" ({} of {})", label.repeats, found.repeats) } else { String::new() };
    format!(
        "  {}: {} {}, {} {}{repeats}",
        label.path,
        name(label.label),
        percent(label.label_probability),
        name(label.suggested),
        percent(label.suggested_probability)
    )
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::{
        Backbone, Digest, ObjectRef,
        manifest::{EvaluationTarget, Interval, Score, WeightsProvenance},
    };

    use super::*;

    fn label(number: usize) -> AuditedLabel {
        AuditedLabel {
            digest: Digest::of(&number.to_le_bytes()),
            path: format!("food/{number:03}.png"),
            label: 1,
            suggested: 0,
            label_probability: 0.02,
            suggested_probability: 0.95,
            repeats: 3,
        }
    }

    fn findings(doubted: u64) -> AuditFindings {
        AuditFindings {
            on: EvaluationTarget {
                description: "the 713 photos of stamps@1".into(),
                manifest: ObjectRef::of(b""),
                fold: None,
            },
            classes: vec!["animals".into(), "food".into()],
            repeats: 3,
            folds: 5,
            lambda: 1e-3,
            backbone: Backbone::EfficientnetLite0,
            pretrained: WeightsProvenance { source: "none".into(), digest: None },
            views: vec![],
            seed: 0,
            score: Score { photos: 712, correct: 637, interval: Interval::wilson(637, 712), loss: 0.4 },
            wrong_share: 0.04,
            unaudited: 1,
            doubted,
            always_doubted: 9,
            queue: (0..doubted as usize).map(label).collect(),
            sample: vec![label(900)],
        }
    }

    #[test]
    fn an_audit_says_how_many_labels_look_wrong_and_how_far_to_believe_that() {
        let text = lines(&findings(31)).join("\n");
        for part in [
            "31 of 712 labels look wrong, of the 713 photos of stamps@1; 9 of them in all 3 repeats",
            "find its label in 89.5% of cases (95% interval ",
            "about 4.0% of the labels are estimated to be wrong",
            "1 photo was not judged",
            "  food/000.png: food 2.0%, animals 95.0% (3 of 3)",
            "  and 21 more",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(!text.contains("900"), "the sample is on the page only");
        assert!(!lines(&findings(2)).join("\n").contains("more"));
    }
}
