//! Made-up audits, and their pages.

use sortinghat_proto::{
    Backbone, JobId, ObjectRef,
    manifest::{AuditFindings, AuditedLabel, EvaluationTarget, Framing, Interval, Score, View, WeightsProvenance},
};
use sortinghat_worker::report::{AuditReport, Pictures};

use crate::sample::{HOSTILE, SUBMITTED, digest, picture};

/// The page of an audit of 400 photos of these classes: three labels look wrong, and the sample has twenty others.
pub(crate) fn html(classes: [&str; 2]) -> String {
    let label = |number: usize, repeats: u32| AuditedLabel {
        digest: digest(0, number),
        path: format!("{}/{number:03}.png", classes[0]),
        label: 0,
        suggested: usize::from(repeats > 0),
        label_probability: if repeats > 0 { 0.05 } else { 0.9 },
        suggested_probability: 0.9,
        repeats,
    };
    let findings = AuditFindings {
        on: EvaluationTarget {
            description: "the 401 photos of stamps@1".into(),
            manifest: ObjectRef::of(b"dataset"),
            fold: None,
        },
        classes: classes.map(String::from).into(),
        repeats: 3,
        folds: 5,
        lambda: 1e-3,
        backbone: Backbone::EfficientnetLite0,
        pretrained: WeightsProvenance { source: "efficientnet_lite0.safetensors".into(), digest: None },
        views: vec![View { framing: Framing::Pad, size_px: 288 }],
        seed: 0,
        score: Score { photos: 400, correct: 370, interval: Interval::wilson(370, 400), loss: 0.3 },
        wrong_share: 0.0125,
        unaudited: 1,
        doubted: 3,
        always_doubted: 1,
        queue: vec![label(0, 3), label(1, 2), label(2, 1)],
        sample: (3..23).map(|number| label(number, 0)).collect(),
    };
    let mut pictures = Pictures::new(23);
    (0..20).for_each(|number| {
        pictures.add(digest(0, number), &picture(number as u8 * 6));
    });
    let page = AuditReport {
        dataset: "stamps@1",
        findings: &findings,
        job: &JobId::new(1, 1),
        submitted: Some(SUBMITTED),
        collection: "stamps",
        pictures: &pictures,
    };
    page.to_html().expect("a page")
}

#[test]
fn the_page_of_an_audit_says_what_was_found_how_far_to_believe_it_and_draws_the_line_to_the_sample() {
    let page = html(["animals", "food"]);
    for part in [
        "3 of the 400 labels of stamps@1 look wrong",
        "in 3 deals of 5 folds. They find 92.5% of the labels",
        "About 1.2% of the labels are estimated to be wrong.",
        "1 photo was not judged",
        "Labels that look wrong: 3",
        "the label looks wrong in 2 of 3 repeats",
        "A random sample of the others: 20 of 397",
        "data-undoubted=\"397\"",
    ] {
        assert!(page.contains(part), "{part:?} is not in\n{page}");
    }
}

#[test]
fn a_class_called_like_markup_is_only_text_on_the_page_of_an_audit() {
    let page = html([HOSTILE, "zebra"]);
    for markup in ["alert(1)</script>", "<script>alert", "<img src=x"] {
        assert!(!page.contains(markup), "{markup} is markup");
    }
    assert_eq!(page.matches("<script").count(), 2, "the data and the page's own script");
}
