//! Where the numbers come from: what was noticed about the photos, how the model was trained, and when and by which version it was
//! measured.

use sortinghat_proto::manifest::{ModelManifest, Remark, WeightedLabel};
use sortinghat_proto::time::UnixMs;
use sortinghat_proto::words;

use super::page::Report;

/// The most labels that count less which a page lists.
const MAX_WEIGHTED_LABELS: usize = 50;

/// A line of the list.
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) value: String,
}

/// When the evaluation was asked for; `None` if nobody says.
pub(super) fn date(submitted: Option<UnixMs>) -> Option<String> {
    submitted.map(words::time)
}

pub(super) fn facts(report: &Report<'_>) -> Vec<Fact> {
    let made = report.made;
    let facts = [
        ("Model", report.model.to_owned()),
        ("Network", format!("{}, pretrained weights: {}", made.backbone, made.pretrained.source)),
        ("Recipe", words::recipe(made)),
        ("Options", words::recipe_options(made)),
        ("Learned from", learned_from(made)),
        ("Trained on", format!("{}, by sortinghat {}", made.device, made.software)),
        ("Measured on", report.target.to_owned()),
        ("Asked for", asked_for(report)),
        ("Measured by", format!("sortinghat {}", env!("CARGO_PKG_VERSION"))),
    ];
    facts.into_iter().map(|(name, value)| Fact { name, value }).collect()
}

fn asked_for(report: &Report<'_>) -> String {
    let date = date(report.submitted).map(|date| format!("{date} "));
    format!("{}by job {}", date.unwrap_or_default(), report.job)
}

fn learned_from(made: &ModelManifest) -> String {
    let name = &made.dataset.name;
    match made.dataset.fold {
        Some(fold) => format!("{name} without fold {fold}, which was held out"),
        None => name.clone(),
    }
}

/// What was noticed about some photos before anything was learned from them or measured on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noticed {
    /// Which photos: "stamps@1".
    pub photos: String,
    /// What was noticed.
    pub remarks: Vec<Remark>,
}

/// The remarks about some photos, as sentences.
pub(super) struct NoticedView<'a> {
    pub(super) photos: &'a str,
    pub(super) remarks: Vec<RemarkLine>,
}

pub(super) struct RemarkLine {
    pub(super) is_warning: bool,
    pub(super) sentence: String,
}

/// The warnings come first. Photos about which nothing was noticed are left out.
pub(super) fn noticed(all: &[Noticed]) -> Vec<NoticedView<'_>> {
    let line =
        |remark: &Remark| RemarkLine { is_warning: remark.is_warning(), sentence: as_sentence(&remark.to_string()) };
    let lines = |noticed: &Noticed| {
        let mut lines: Vec<RemarkLine> = noticed.remarks.iter().map(line).collect();
        lines.sort_by_key(|remark| !remark.is_warning);
        lines
    };
    let views = all.iter().map(|noticed| NoticedView { photos: &noticed.photos, remarks: lines(noticed) });
    views.filter(|view| !view.remarks.is_empty()).collect()
}

/// The labels that counted less while the model learned, as sentences. Nothing if all labels counted the same.
pub(super) fn weighted_labels(made: &ModelManifest) -> Option<NoticedView<'_>> {
    let weights = made.recipe.auto()?.label_weights.as_ref()?;
    let line = |sentence: String| RemarkLine { is_warning: false, sentence: as_sentence(&sentence) };
    let told = |label: &WeightedLabel| RemarkLine {
        is_warning: false,
        sentence: format!(
            "{}: labelled {}, and looks like {}; its label counts {:.2}.",
            label.path, label.label, label.suggested, label.weight
        ),
    };
    let shown = weights.listed.iter().take(MAX_WEIGHTED_LABELS).map(told);
    let hidden = weights.below_half.saturating_sub(shown.len() as u64);
    let rest =
        (hidden > 0).then(|| line(format!("and {} more, which `hat models show --json` lists", words::count(hidden))));
    let remarks = std::iter::once(line(words::label_weights(weights))).chain(shown).chain(rest).collect();
    Some(NoticedView { photos: &made.dataset.name, remarks })
}

/// A message as a sentence of a page.
pub(super) fn as_sentence(message: &str) -> String {
    let mut letters = message.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
