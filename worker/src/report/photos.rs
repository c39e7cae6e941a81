//! The photos to look at: labels that are probably wrong, errors by class, and the right predictions that are least sure.

use std::collections::{BTreeMap, HashMap, HashSet};

use sortinghat_proto::Digest;
use sortinghat_proto::manifest::{ClassMetrics, Findings, LabelDoubt, Mistake};
use sortinghat_proto::words::{count, counted, percent};

use super::{lengths::length, page::Report, pictures::Pictures};

/// The section with photos.
pub(super) struct Photos<'a> {
    pub(super) counts: String,
    pub(super) doubts: Doubts<'a>,
    pub(super) groups: Vec<Group<'a>>,
}

/// The labels that are probably wrong.
pub(super) struct Doubts<'a> {
    /// How many there are, and how many are listed if that is fewer.
    pub(super) count: String,
    pub(super) lines: Vec<DoubtLine<'a>>,
}

impl<'a> Photos<'a> {
    pub(super) fn new(report: &Report<'a>) -> Self {
        let findings = report.findings;
        let (lines, all) = (doubt_lines(findings), findings.doubted());
        let count = match lines.len() as u64 {
            listed if listed == all => count(all),
            listed => format!("{} of {}", count(listed), count(all)),
        };
        Self { counts: counts(report), doubts: Doubts { count, lines }, groups: groups(findings, report.pictures) }
    }
}

/// A photo whose label is probably wrong.
pub(super) struct DoubtLine<'a> {
    /// The id of its card; `None` if it has none.
    pub(super) card: Option<String>,
    pub(super) path: &'a str,
    pub(super) label: &'a str,
    pub(super) suggested: &'a str,
    pub(super) label_probability: String,
    pub(super) suggested_probability: String,
    /// Whether both methods of confident learning doubt the label.
    pub(super) twice: bool,
}

fn doubt_lines<'a>(findings: &'a Findings) -> Vec<DoubtLine<'a>> {
    let cards: HashMap<(&Digest, usize), usize> =
        findings.mistakes.iter().enumerate().map(|(index, photo)| ((&photo.digest, photo.label), index)).collect();
    let line = |doubt: &'a LabelDoubt| DoubtLine {
        card: cards.get(&(&doubt.digest, doubt.label)).copied().map(card_id),
        path: &doubt.path,
        label: &findings.classes[doubt.label],
        suggested: &findings.classes[doubt.suggested],
        label_probability: percent(doubt.label_probability),
        suggested_probability: percent(doubt.suggested_probability),
        twice: doubt.by_class,
    };
    findings.doubts.iter().flatten().map(line).collect()
}

/// Photos under one heading: "The 9 photos of *animals* that it got wrong".
pub(super) struct Group<'a> {
    pub(super) id: String,
    pub(super) before: String,
    pub(super) name: &'a str,
    pub(super) after: &'static str,
    pub(super) cards: Vec<Card<'a>>,
}

/// One photo to decide about.
pub(super) struct Card<'a> {
    pub(super) id: String,
    pub(super) digest: &'a Digest,
    pub(super) path: &'a str,
    pub(super) picture: &'a str,
    pub(super) alt: String,
    pub(super) label: usize,
    pub(super) predicted: usize,
    pub(super) right: bool,
    /// That the photo's label is probably wrong; `None` if nothing speaks against it.
    pub(super) doubt: Option<String>,
    pub(super) label_name: &'a str,
    pub(super) predicted_name: &'a str,
    pub(super) label_probability: String,
    pub(super) predicted_probability: String,
    pub(super) label_width: String,
    pub(super) predicted_width: String,
}

/// The errors by class, then the right predictions that the model was least sure of.
fn groups<'a>(findings: &'a Findings, pictures: &'a Pictures) -> Vec<Group<'a>> {
    let doubted: HashSet<&Digest> = findings.doubts.iter().flatten().map(|doubt| &doubt.digest).collect();
    let mut cards_of: BTreeMap<Place, Vec<Card<'a>>> = BTreeMap::new();
    for (index, mistake) in findings.mistakes.iter().enumerate() {
        let card = card(findings, pictures, index, mistake, doubted.contains(&mistake.digest));
        cards_of.entry(Place::of(mistake.label, mistake.predicted)).or_default().push(card);
    }
    cards_of.into_iter().map(|(place, cards)| group(findings, place, cards)).collect()
}

fn group<'a>(findings: &'a Findings, place: Place, cards: Vec<Card<'a>>) -> Group<'a> {
    let id = place.id();
    let shown = cards.len() as u64;
    match place {
        Place::Errors(class) => {
            let ClassMetrics { photos, correct, .. } = findings.per_class[class];
            let before = match (shown, photos - correct) {
                (1, 1) => "The one photo of".to_owned(),
                (shown, all) if shown == all => format!("The {} photos of", count(all)),
                (shown, all) => format!("{} of the {} photos of", count(shown), count(all)),
            };
            Group { id, before, name: &findings.classes[class], after: "that it got wrong", cards }
        }
        Place::Unsure => {
            let right = findings.best().correct;
            let before = format!("Right, but least sure: {} of {}", count(shown), count(right));
            Group { id, before, name: "", after: "", cards }
        }
    }
}

/// Where a photo is shown. Errors come first, by the class of their label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Among the errors of the class.
    Errors(usize),
    /// Among the right predictions.
    Unsure,
}

impl Place {
    fn of(label: usize, predicted: usize) -> Self {
        if label == predicted { Self::Unsure } else { Self::Errors(label) }
    }

    /// The id of its part of the page.
    fn id(self) -> String {
        match self {
            Self::Errors(class) => format!("errors-{class}"),
            Self::Unsure => "unsure".to_owned(),
        }
    }
}

/// Which pairs of label and prediction have photos on the page.
pub(super) struct Shown(HashSet<(usize, usize)>);

impl Shown {
    pub(super) fn new(findings: &Findings) -> Self {
        Self(findings.mistakes.iter().map(|mistake| (mistake.label, mistake.predicted)).collect())
    }

    /// The id of the part of the page that shows photos of a pair; `None` if no photo of the pair is shown.
    pub(super) fn place(&self, label: usize, predicted: usize) -> Option<String> {
        self.0.contains(&(label, predicted)).then(|| Place::of(label, predicted).id())
    }
}

fn card<'a>(
    findings: &'a Findings,
    pictures: &'a Pictures,
    index: usize,
    mistake: &'a Mistake,
    doubted: bool,
) -> Card<'a> {
    let name = |class: usize| findings.classes[class].as_str();
    let (label_name, predicted_name) = (name(mistake.label), name(mistake.predicted));
    Card {
        id: card_id(index),
        digest: &mistake.digest,
        path: &mistake.path,
        picture: pictures.of(&mistake.digest),
        alt: format!("{}, labelled {label_name}, predicted {predicted_name}", mistake.path),
        label: mistake.label,
        predicted: mistake.predicted,
        right: mistake.label == mistake.predicted,
        doubt: doubted.then(|| "the label looks wrong".to_owned()),
        label_name,
        predicted_name,
        label_probability: percent(mistake.label_probability),
        predicted_probability: percent(mistake.predicted_probability),
        label_width: length(mistake.label_probability * 100.0),
        predicted_width: length(mistake.predicted_probability * 100.0),
    }
}

/// The id of the card of a photo. Its index tells photos apart, because a photo may have two labels.
fn card_id(index: usize) -> String {
    format!("photo-{index}")
}

/// Says how many photos there are and how many are shown.
fn counts(report: &Report<'_>) -> String {
    let findings = report.findings;
    let shown = findings.mistakes.len() as u64;
    let errors = findings.mistakes.iter().filter(|mistake| mistake.label != mistake.predicted).count() as u64;
    let right = shown - errors;
    let mut text = format!(
        "This page shows {} of the {}: {} of {} and {} of {}.",
        count(shown),
        counted(findings.best().photos, "photo", "photos"),
        count(errors),
        counted(findings.errors(), "error", "errors"),
        count(right),
        counted(findings.best().correct, "right prediction", "right predictions"),
    );
    if shown < findings.best().photos {
        text += &format!(
            " The errors with the highest loss and the least sure right predictions come first. `hat jobs watch {} --out FILE.csv` \
             saves the prediction of every photo.",
            report.job
        );
    }
    text
}
