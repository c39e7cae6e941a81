//! What the page says, and that it is safe whatever classes and files are called.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest as _, Sha256};
use sortinghat_proto::manifest::{AbsentClass, Decision, Decisions, Remark, Verdict};

use crate::sample::{HOSTILE, Sample, TTA, digest};

/// A sample in which every name that a user gives is hostile.
fn hostile() -> Sample {
    let decisions = vec![
        Decision {
            digest: digest(0, 0),
            path: Some(HOSTILE.into()),
            verdict: Verdict::Relabel { class: HOSTILE.into() },
        },
        Decision { digest: digest(0, 1), path: Some(HOSTILE.into()), verdict: Verdict::Exclude },
    ];
    Sample {
        classes: vec![HOSTILE.into(), "zebra".into()],
        decisions: Some(Decisions { decisions }),
        tta: TTA,
        remarks: vec![absent(HOSTILE)],
        weighs_labels: true,
        ..Sample::default()
    }
}

fn absent(class: &str) -> Remark {
    Remark::ClassesWithoutPhotos {
        classes: vec![AbsentClass { class: class.into(), why: "1 entry: an empty folder".into() }],
    }
}

/// What the script is given.
fn data(page: &str) -> serde_json::Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").expect("the data");
    serde_json::from_str(rest.split_once("</script>").expect("its end").0).expect("JSON")
}

fn assert_says(page: &str, parts: &[&str]) {
    for part in parts {
        assert!(page.contains(part), "{part:?} is not in\n{page}");
    }
}

#[test]
fn a_class_or_a_file_called_like_markup_is_only_text() {
    let page = hostile().html();
    for markup in ["alert(1)</script>", "<script>alert", "<img src=x"] {
        assert!(!page.contains(markup), "{markup} is markup");
    }
    assert_eq!(page.matches("<script").count(), 2, "the data and the page's own script");
    assert_eq!(page.matches("</script>").count(), 2);
}

#[test]
fn the_script_reads_back_the_very_classes_and_decisions() {
    let data = data(&hostile().html());
    assert_eq!(data["classes"], serde_json::json!([HOSTILE, "zebra"]));
    let first = &data["decisions"][0];
    assert_eq!((&first["path"], &first["class"]), (&HOSTILE.into(), &HOSTILE.into()));
}

#[test]
fn the_page_needs_nothing_from_anywhere() {
    let page = Sample::default().html();
    for outside in ["http:", "https:", "src=\"//", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("src=\"data:image/jpeg;base64,"));
}

#[test]
fn the_policy_admits_the_pages_own_script_and_no_other() {
    let page = Sample::default().html();
    let open = page.rfind("<script>").expect("a script") + "<script>".len();
    let close = page.rfind("</script>").expect("its end");
    let digest = BASE64_STANDARD.encode(Sha256::digest(&page[open..close]));
    // The template may escape the plus sign of the digest.
    let policy = page.replace("&#43;", "+");
    assert!(policy.contains(&format!("script-src 'sha256-{digest}'")), "{digest}");
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn the_page_says_when_with_what_and_by_which_version_it_was_made() {
    let version = format!("sortinghat {}", env!("CARGO_PKG_VERSION"));
    let facts = [
        "2026-11-30 08:00:00Z",
        "fastai2: 1 + 5 epochs, learning rate 0.002, batches of 64, 224 px, seed 7",
        "label smoothing 0.1",
        "pretrained weights: efficientnet_lite0.safetensors",
        "cpu, by sortinghat 0.0.9",
        &version,
    ];
    assert_says(&Sample::default().html(), &facts);
}

#[test]
fn the_page_warns_of_photos_that_were_learned_from_or_may_have_been_and_of_files_left_out() {
    let known = Sample { learned_from: Some(27), skipped: 2, ..Sample::default() }.html();
    assert_says(
        &known,
        &[
            "The model has learned from 27 of these 36 photos: it is better on them",
            "2 files were not measured: they cannot be read or decoded",
        ],
    );
    assert!(!known.contains("Labels to review"), "its predictions say nothing of labels that it has learned");
    assert_says(
        &Sample { learned_from: None, ..Sample::default() }.html(),
        &["nobody can tell whether the model has learned"],
    );
    assert!(!Sample::default().html().contains("class=\"note\"><li>"), "there is nothing to warn of");
}

#[test]
fn the_page_repeats_what_the_ingest_noticed_and_the_warnings_come_first() {
    assert!(!Sample::default().html().contains("What was noticed"), "nothing was");
    let mended = Remark::Mended { photos: 3, examples: vec![] };
    let page = Sample { remarks: vec![mended, absent("birds")], ..Sample::default() }.html();
    assert_says(
        &page,
        &[
            "<strong>Warning:</strong> 1 class has no usable photo and is not in the dataset: birds (1 entry: an empty folder).",
        ],
    );
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text:?} is not in\n{page}"));
    assert!(place("birds (1 entry: an empty folder)") < place("<li>3 photos were mended"));
}

#[test]
fn every_section_says_whether_its_numbers_are_with_test_time_augmentation() {
    let (with, without) = (
        "with test-time augmentation (fastai 2, 4 augmented passes)</small>",
        "without test-time augmentation</small>",
    );
    let sections = ["How far to trust it", "By class", "Which classes are confused", "Look for yourself"];
    for (tta, basis) in [(TTA, with), (None, without)] {
        let page = Sample { tta, ..Sample::default() }.html();
        for section in sections {
            assert_says(&page, &[&format!("{section} <small>{basis}")]);
        }
        assert_says(
            &page,
            &["Without test-time augmentation<small>27 of 36 right", "This is without test-time augmentation."],
        );
    }
}

#[test]
fn headings_count_what_exists_and_say_how_much_of_it_is_shown() {
    let few = Sample::default().html();
    assert_says(
        &few,
        &["The 3 photos of", "Right, but least sure: 24 of 27", "This page shows 33 of the 36 photos: 9 of 9 errors"],
    );
    let many = Sample { photos_per_class: 400, errors_per_class: 300, ..Sample::default() };
    let listed = many.findings().mistakes.iter().filter(|mistake| mistake.label != mistake.predicted).count();
    assert_eq!(listed, 500, "no more are listed");
    let page = many.html();
    assert_says(&page, &["500 of 900 errors", " of the 300 photos of", "Right, but least sure: 24 of 300"]);
}

#[test]
fn labels_to_review_are_counted_even_if_they_are_not_listed() {
    let mut sample = Sample { photos_per_class: 400, errors_per_class: 190, ..Sample::default() };
    let doubted = sample.findings().doubted();
    assert!(doubted > 500, "{doubted}");
    assert_says(&sample.html(), &[&format!("Labels to review: 500 of {doubted}")]);
    sample = Sample::default();
    let page = sample.html();
    assert_says(&page, &[&format!("Labels to review: {}<", sample.findings().doubted()), "looks like <b>food</b>"]);
    assert_says(&page, &["href=\"#photo-0\"", "id=\"photo-0\" data-doubted"]);
}

#[test]
fn a_cell_and_a_pair_lead_to_their_photos_and_an_empty_cell_does_not() {
    let page = Sample::default().html();
    let link = "<a href=\"#errors-0\" data-label=\"0\" data-predicted=\"1\" data-photos=\"3\"";
    assert_eq!(page.matches(link).count(), 2, "in the matrix and in the list");
    assert_says(&page, &["id=\"errors-0\"", "<a href=\"#unsure\" data-label=\"0\" data-predicted=\"0\""]);
    assert!(
        !page.contains("data-label=\"0\" data-predicted=\"2\" data-photos"),
        "no photo of the first class is taken for the third"
    );
}

#[test]
fn a_mistake_is_shown_with_label_prediction_and_both_probabilities() {
    let page = Sample::default().html();
    let card = "data-path=\"animals/000.png\" data-label=\"0\" data-predicted=\"1\"";
    let (_, rest) = page.split_once(card).expect("its card");
    let (card, _) = rest.split_once("</li>").expect("its end");
    assert_says(
        card,
        &["animals/000.png", "<dd>animals</dd><dd class=\"number\">5.0%", "<dd>food</dd><dd class=\"number\">90.0%"],
    );
}

#[test]
fn confidence_is_told_with_counts() {
    let page = Sample::default().html();
    assert_says(&page, &["Accuracy against threshold", "Confidence beside accuracy", "On average the model is "]);
    // The row of the lowest threshold has every photo.
    assert_says(&page, &["<td>36 of 36</td><td>100.0%</td><td>27 of 36</td><td>75.0%</td>"]);
}

#[test]
fn labels_that_counted_less_are_listed_up_to_a_limit_and_the_rest_is_counted() {
    let page = Sample { weighs_labels: true, ..Sample::default() }.html();
    assert_says(
        &page,
        &[
            "About 12.5% of the labels seem wrong: 60 labels count less than half, and none was removed.",
            "animals/010.png: labelled animals, and looks like food; its label counts 0.05.",
            "And 10 more, which `hat models show --json` lists.",
        ],
    );
    assert!(!page.contains("animals/050.png: labelled"));
    assert!(!Sample::default().html().contains("its label counts"));
}
