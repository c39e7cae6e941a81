//! The page of an audit: the labels that are probably wrong, and a random sample of the others, to decide about.

use askama::Template;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest as _, Sha256};
use sortinghat_proto::{
    JobId,
    manifest::{AuditFindings, AuditedLabel},
    time::UnixMs,
    words::{count, counted, percent},
};

use super::{
    lengths::length,
    origin::{self, Fact},
    page::{Data, ReportError, SCRIPT, STYLE, json_for_script},
    photos::{Card, Group},
    pictures::Pictures,
};
use crate::evaluation::interval;

/// What estimates how many wrong labels are left, from what is decided about the sample.
const ESTIMATE: &str = include_str!("../../templates/report/script/audit.js");

/// What the page of an audit is made from.
#[derive(Debug, Clone, Copy)]
pub struct AuditReport<'a> {
    /// The dataset, "stamps@1".
    pub dataset: &'a str,
    /// What was found.
    pub findings: &'a AuditFindings,
    /// The audit's job.
    pub job: &'a JobId,
    /// When the audit was asked for; `None` if nobody says.
    pub submitted: Option<UnixMs>,
    /// As for the report of an evaluation, so that decisions go from one page to the other.
    pub collection: &'a str,
    /// The pictures.
    pub pictures: &'a Pictures,
}

impl AuditReport<'_> {
    /// The page, UTF-8 HTML.
    ///
    /// # Errors
    /// When formatting fails, which a page in memory does not.
    pub fn to_html(&self) -> Result<String, ReportError> {
        Ok(Page::new(self).render()?)
    }
}

#[derive(Template)]
#[template(path = "report/audit.html")]
struct Page<'a> {
    dataset: &'a str,
    date: Option<String>,
    headline: String,
    lead: Vec<String>,
    groups: Vec<Group<'a>>,
    undoubted: u64,
    has_doubts: bool,
    facts: Vec<Fact>,
    data: String,
    style: &'static str,
    script: String,
    script_digest: String,
}

impl<'a> Page<'a> {
    fn new(report: &AuditReport<'a>) -> Self {
        let findings = report.findings;
        let script = format!("{SCRIPT}{ESTIMATE}");
        let data = Data {
            classes: &findings.classes,
            collection: report.collection,
            submitted_unix_ms: report.submitted.unwrap_or_default().0,
            decisions: &[],
        };
        Self {
            dataset: report.dataset,
            date: origin::date(report.submitted),
            headline: headline(findings, report.dataset),
            lead: lead(findings),
            groups: groups(report),
            undoubted: findings.undoubted(),
            has_doubts: !findings.queue.is_empty(),
            facts: facts(report),
            data: json_for_script(&data),
            style: STYLE,
            script_digest: BASE64_STANDARD.encode(Sha256::digest(&script)),
            script,
        }
    }
}

/// "31 of the 713 labels of stamps@1 look wrong".
fn headline(findings: &AuditFindings, dataset: &str) -> String {
    let (doubted, photos) = (count(findings.doubted), count(findings.score.photos));
    let look = if findings.doubted == 1 { "looks" } else { "look" };
    format!("{doubted} of the {photos} labels of {dataset} {look} wrong")
}

fn lead(findings: &AuditFindings) -> Vec<String> {
    let AuditFindings { repeats, folds, score, wrong_share, unaudited, .. } = findings;
    let how = format!(
        "Models that had not learned from a photo judged its label, in {} of {folds} folds. They find {} of the labels as they are given \
         (95% interval {}): the fewer they find, the less their doubts mean. About {} of the labels are estimated to be wrong.",
        counted(u64::from(*repeats), "deal", "deals"),
        percent(score.accuracy()),
        interval(&score.interval),
        percent(*wrong_share),
    );
    let left_out = (*unaudited > 0).then(|| {
        let photos = counted(*unaudited, "photo was", "photos were");
        format!("{photos} not judged, because too little else of the class is no near-duplicate.")
    });
    std::iter::once(how).chain(left_out).collect()
}

fn groups<'a>(report: &AuditReport<'a>) -> Vec<Group<'a>> {
    let findings = report.findings;
    let cards = |labels: &'a [AuditedLabel], first: usize| {
        labels.iter().enumerate().map(|(number, label)| card(report, first + number, label)).collect::<Vec<_>>()
    };
    let queue = cards(&findings.queue, 0);
    let sample = cards(&findings.sample, queue.len());
    let shown = match (queue.len() as u64, findings.doubted) {
        (shown, all) if shown == all => format!("Labels that look wrong: {}", count(all)),
        (shown, all) => format!("Labels that look wrong: {} of {}", count(shown), count(all)),
    };
    let drawn =
        format!("A random sample of the others: {} of {}", count(sample.len() as u64), count(findings.undoubted()));
    let group = |id: &str, before, cards| Group { id: id.to_owned(), before, name: "", after: "", cards };
    let all = [group("queue", shown, queue), group("sample", drawn, sample)];
    all.into_iter().filter(|group| !group.cards.is_empty()).collect()
}

fn card<'a>(report: &AuditReport<'a>, number: usize, label: &'a AuditedLabel) -> Card<'a> {
    let findings = report.findings;
    let name = |class: usize| findings.classes[class].as_str();
    let (label_name, predicted_name) = (name(label.label), name(label.suggested));
    let doubt = match (label.repeats, findings.repeats) {
        (0, _) => None,
        (_, 1) => Some("the label looks wrong".to_owned()),
        (doubted, repeats) => Some(format!("the label looks wrong in {doubted} of {repeats} repeats")),
    };
    Card {
        id: format!("photo-{number}"),
        digest: &label.digest,
        path: &label.path,
        picture: report.pictures.of(&label.digest),
        alt: format!("{}, labelled {label_name}, looks like {predicted_name}", label.path),
        label: label.label,
        predicted: label.suggested,
        right: label.label == label.suggested,
        doubt,
        label_name,
        predicted_name,
        label_probability: percent(label.label_probability),
        predicted_probability: percent(label.suggested_probability),
        label_width: length(label.label_probability * 100.0),
        predicted_width: length(label.suggested_probability * 100.0),
    }
}

fn facts(report: &AuditReport<'_>) -> Vec<Fact> {
    let findings = report.findings;
    let views: Vec<String> = findings.views.iter().map(sortinghat_proto::words::view).collect();
    let date = origin::date(report.submitted).map(|date| format!("{date} ")).unwrap_or_default();
    let facts = [
        ("Audited", findings.on.description.clone()),
        ("Network", format!("{}, pretrained weights: {}", findings.backbone, findings.pretrained.source)),
        ("Judged by", format!("regressions on the features of {}", views.join(" and "))),
        ("Options", format!("penalty {:.1e}, seed {}", findings.lambda, findings.seed)),
        ("Asked for", format!("{date}by job {}", report.job)),
        ("Audited by", format!("sortinghat {}", env!("CARGO_PKG_VERSION"))),
    ];
    facts.into_iter().map(|(name, value)| Fact { name, value }).collect()
}
