//! The page as a whole, and what keeps it safe.

use askama::Template;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest as _, Sha256};
use sortinghat_proto::manifest::Findings;
use sortinghat_proto::words::counted;

use super::pictures::Pictures;
use super::sections::{
    ClassLine, CleanedView, ConfusedLine, DoubtLine, Group, MatrixRow, ScoreLine, Tick, class_lines, cleaned_view,
    confused_lines, doubt_lines, groups, hidden_note, matrix_classes, matrix_note, matrix_rows, score_lines, ticks,
};
use crate::evaluation::{comparison_sentence, headline};

const STYLE: &str = include_str!("../../templates/report.css");
const SCRIPT: &str = include_str!("../../templates/report.js");

/// What a report is made from.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// The model's name, "stamps/1".
    pub model: &'a str,
    /// What it was measured on: "the 142 held-out photos of stamps@1".
    pub target: &'a str,
    /// The id of this evaluation; the browser stores decisions under it.
    pub id: &'a str,
    /// The command that evaluates again with the decisions.
    pub command: &'a str,
    /// The numbers.
    pub findings: &'a Findings,
    /// The pictures.
    pub pictures: &'a Pictures,
}

/// The page could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the report: {0}")]
pub struct ReportError(#[from] askama::Error);

impl Report<'_> {
    /// The page, UTF-8 HTML.
    ///
    /// # Errors
    /// When formatting fails, which a page in memory does not.
    pub fn to_html(&self) -> Result<String, ReportError> {
        Ok(Page::new(self).render()?)
    }
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    model: &'a str,
    target: &'a str,
    report_id: &'a str,
    command: &'a str,
    headline: String,
    lead: Vec<String>,
    augmented: bool,
    scores: Vec<ScoreLine>,
    ticks: Vec<Tick>,
    cleaned: Option<CleanedView<'a>>,
    classes: Vec<ClassLine<'a>>,
    matrix_note: String,
    matrix_names: Vec<&'a str>,
    matrix: Vec<MatrixRow<'a>>,
    confused: Vec<ConfusedLine<'a>>,
    doubts: Vec<DoubtLine<'a>>,
    groups: Vec<Group<'a>>,
    hidden_note: String,
    class_names: String,
    style: &'static str,
    script: &'static str,
    script_digest: String,
}

impl<'a> Page<'a> {
    fn new(report: &Report<'a>) -> Self {
        let findings = report.findings;
        let shown = matrix_classes(findings);
        Self {
            model: report.model,
            target: report.target,
            report_id: report.id,
            command: report.command,
            headline: headline(report.model, report.target, &findings.plain),
            lead: lead(findings),
            augmented: findings.augmented.is_some(),
            scores: score_lines(findings),
            ticks: ticks(findings),
            cleaned: findings.cleaned.as_ref().map(cleaned_view),
            classes: class_lines(findings),
            matrix_note: matrix_note(findings, shown.len()),
            matrix_names: shown.iter().map(|&class| findings.classes[class].as_str()).collect(),
            matrix: matrix_rows(findings, &shown),
            confused: confused_lines(findings),
            doubts: doubt_lines(findings),
            groups: groups(findings, report.pictures),
            hidden_note: hidden_note(findings),
            class_names: json_for_script(&findings.classes),
            style: STYLE,
            script: SCRIPT,
            script_digest: BASE64_STANDARD.encode(Sha256::digest(SCRIPT)),
        }
    }
}

/// The sentences right under the headline.
fn lead(findings: &Findings) -> Vec<String> {
    let mut sentences: Vec<String> = findings.comparison.iter().map(comparison_sentence).collect();
    if findings.skipped > 0 {
        let files = counted(findings.skipped, "file", "files");
        sentences.push(format!("{files} could not be decoded and are not part of any number here."));
    }
    sentences
}

/// JSON that can stand inside a script element: `<` cannot end or open one there.
fn json_for_script(names: &[String]) -> String {
    let json = serde_json::to_string(names).expect("strings are JSON");
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::{Subject, label_doubts, measure};
    use crate::prediction::probabilities::Probabilities;
    use sortinghat_photos::{ImageFormat, Photo};
    use sortinghat_proto::Digest;

    const HOSTILE: &str = "</script><script>alert(1)</script>\"'&";

    fn html(class: &str, path: &str) -> String {
        let subject = |name: &[u8], label| Subject { digest: Digest::of(name), path: path.into(), label };
        let subjects = [subject(b"photo", 0), subject(b"cat", 0), subject(b"zebra", 1), subject(b"another", 1)];
        let rows = Probabilities::new(vec![0.25, 0.75, 0.9, 0.1, 0.4, 0.6, 0.3, 0.7], 2);
        let classes = vec![class.to_owned(), "zebra".to_owned()];
        let mut findings = measure(classes, &subjects, &rows, None);
        findings.doubts = Some(label_doubts(2, &subjects, &rows));
        let mut pictures = Pictures::default();
        let photo = Photo { width: 1, height: 1, pixels: vec![0; 3], format: ImageFormat::Png, notes: vec![] };
        pictures.add(subjects[0].digest.clone(), &photo);
        let report = Report {
            model: "stamps/1",
            target: "the 1 held-out photo of stamps@1",
            id: "a",
            command: "hat evaluate stamps/1 --decisions decisions.json",
            findings: &findings,
            pictures: &pictures,
        };
        report.to_html().expect("a page")
    }

    #[test]
    fn a_class_or_a_file_called_like_markup_is_only_text() {
        let page = html(HOSTILE, HOSTILE);
        assert!(!page.contains("alert(1)</script>"), "the name ends a script element");
        assert!(!page.contains("<script>alert"), "the name opens a script element");
        assert_eq!(page.matches("<script").count(), 2, "the class names and the page's own script");
        assert_eq!(page.matches("</script>").count(), 2);
    }

    #[test]
    fn the_script_reads_back_the_very_class_names() {
        let names = vec![HOSTILE.to_owned(), "œuvre <b>&amp;</b>".to_owned()];
        assert_eq!(serde_json::from_str::<Vec<String>>(&json_for_script(&names)).expect("JSON"), names);
    }

    #[test]
    fn the_page_needs_nothing_from_anywhere() {
        let page = html("cat", "cat/1.png");
        for outside in ["http:", "https:", "src=\"//", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("src=\"data:image/jpeg;base64,"));
    }

    #[test]
    fn the_policy_admits_the_pages_own_script_and_no_other() {
        let page = html("cat", "cat/1.png");
        let open = page.rfind("<script>").expect("a script") + "<script>".len();
        let close = page.rfind("</script>").expect("its end");
        let digest = BASE64_STANDARD.encode(Sha256::digest(&page[open..close]));
        // The template escapes the digest, which holds no character that changes.
        assert!(page.contains(&format!("script-src 'sha256-{digest}'")), "{digest}");
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn a_doubtful_label_is_listed_and_leads_to_its_photo() {
        let page = html("cat", "cat/1.png");
        let digest = Digest::of(b"photo");
        assert!(page.contains("Labels to review") && page.contains("looks like <b>zebra</b>"));
        assert!(
            page.contains(&format!("href=\"#{digest}\"")) && page.contains(&format!("id=\"{digest}\" data-doubted"))
        );
    }

    #[test]
    fn a_mistake_is_shown_with_label_prediction_and_both_probabilities() {
        let page = html("cat", "cat/1.png");
        for text in ["0.0%", "cat/1.png", "zebra", "75.0%", "25.0%", "data-label=\"0\" data-predicted=\"1\""] {
            assert!(page.contains(text), "{text}");
        }
    }
}
