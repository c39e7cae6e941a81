//! The page as a whole, and what keeps it safe.

use askama::Template;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sortinghat_proto::JobId;
use sortinghat_proto::manifest::{Decision, Decisions, Findings, ModelManifest};
use sortinghat_proto::time::UnixMs;
use sortinghat_proto::words::not_measured;

use super::{
    accuracy::Accuracy,
    classes::Classes,
    confidence::Confidence,
    origin::{self, Fact, Noticed, NoticedView},
    photos::{Photos, Shown},
    pictures::Pictures,
};
use crate::evaluation::{basis, comparison_sentence, headline, known_photos_sentence};

pub(super) const STYLE: &str = include_str!("../../templates/report/style.css");
/// The parts of the script, each after those that it uses.
pub(super) const SCRIPT: &str = concat!(
    include_str!("../../templates/report/script/decisions.js"),
    include_str!("../../templates/report/script/cards.js"),
    include_str!("../../templates/report/script/dialogs.js"),
    include_str!("../../templates/report/script/tray.js"),
    include_str!("../../templates/report/script/events.js"),
);

/// What a report is made from.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// The model's name, "stamps/1".
    pub model: &'a str,
    /// How the model was made.
    pub made: &'a ModelManifest,
    /// What it was measured on: "the 142 held-out photos of stamps@1".
    pub target: &'a str,
    /// The evaluation's job.
    pub job: &'a JobId,
    /// When the evaluation was asked for; `None` if nobody says.
    pub submitted: Option<UnixMs>,
    /// The photos that decisions are about, in all reports on them: the dataset's name without its version. A report begins with the
    /// decisions that the browser remembers from earlier reports of the same collection.
    pub collection: &'a str,
    /// What was noticed about the photos that the model was measured on, and about those that it has learned from if they are others.
    pub noticed: &'a [Noticed],
    /// The decisions that the evaluation was given; `None` if it was given none.
    pub decisions: Option<&'a Decisions>,
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
#[template(path = "report/page.html")]
struct Page<'a> {
    model: &'a str,
    target: &'a str,
    date: Option<String>,
    command: &'a str,
    headline: String,
    lead: Vec<String>,
    warnings: Vec<String>,
    /// Which predictions the numbers below the headline are from.
    basis: String,
    accuracy: Accuracy<'a>,
    confidence: Option<Confidence>,
    classes: Classes<'a>,
    photos: Photos<'a>,
    has_doubts: bool,
    noticed: Vec<NoticedView<'a>>,
    facts: Vec<Fact>,
    data: String,
    style: &'static str,
    script: &'static str,
    script_digest: String,
}

impl<'a> Page<'a> {
    fn new(report: &Report<'a>) -> Self {
        let findings = report.findings;
        Self {
            model: report.model,
            target: report.target,
            date: origin::date(report.submitted),
            command: report.command,
            headline: headline(report.model, report.target, &findings.plain),
            lead: lead(findings),
            warnings: warnings(findings),
            basis: basis(findings.tta.as_ref()),
            accuracy: Accuracy::new(findings),
            confidence: Confidence::new(findings),
            classes: Classes::new(findings, &Shown::new(findings)),
            photos: Photos::new(report),
            has_doubts: findings.doubts.as_ref().is_some_and(|doubts| !doubts.is_empty()),
            noticed: origin::noticed(report.noticed).into_iter().chain(origin::weighted_labels(report.made)).collect(),
            facts: origin::facts(report),
            data: json_for_script(&Data::new(report)),
            style: STYLE,
            script: SCRIPT,
            script_digest: BASE64_STANDARD.encode(Sha256::digest(SCRIPT)),
        }
    }
}

/// The sentences right under the headline.
fn lead(findings: &Findings) -> Vec<String> {
    let without = "This is without test-time augmentation.".to_owned();
    std::iter::once(without).chain(findings.comparison.iter().map(comparison_sentence)).collect()
}

/// What a reader must know before believing the numbers.
fn warnings(findings: &Findings) -> Vec<String> {
    let known = known_photos_sentence(findings.learned_from, findings.plain.photos);
    let skipped = not_measured(findings.skipped);
    known.into_iter().chain(skipped).map(|sentence| origin::as_sentence(&sentence)).collect()
}

/// What the script needs to know.
#[derive(Serialize)]
pub(super) struct Data<'a> {
    pub(super) classes: &'a [String],
    pub(super) collection: &'a str,
    /// Milliseconds since 1970; 0 if unknown, so that what the browser remembers is newer.
    pub(super) submitted_unix_ms: u64,
    pub(super) decisions: &'a [Decision],
}

impl<'a> Data<'a> {
    fn new(report: &Report<'a>) -> Self {
        Self {
            classes: &report.findings.classes,
            collection: report.collection,
            submitted_unix_ms: report.submitted.unwrap_or_default().0,
            decisions: report.decisions.map_or(&[], |decisions| &decisions.decisions),
        }
    }
}

/// JSON that can stand inside a script element: `<` cannot end or open one there.
pub(super) fn json_for_script(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("texts and numbers are JSON");
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}
