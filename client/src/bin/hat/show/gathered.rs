//! How the photos of a dataset were gathered, in lines.

use sortinghat_proto::manifest::{Gathered, GatheredClass, PhotoSource, SourceOutcome};

use super::{numbers::count, table};

/// How many photos there were at each step. `show_sources` is the command that lists every photo.
pub(crate) fn lines(gathered: &Gathered, show_sources: &str) -> Vec<String> {
    let row = |class: &GatheredClass| {
        let GatheredClass { class, asked, found, fetched, kept, .. } = class;
        [class.clone(), count(*asked), count(*found), count(*fetched), count(*kept)]
    };
    let rows: Vec<[String; 5]> = gathered.classes.iter().map(row).collect();
    let mut lines = table::columns(["class", "asked for", "found", "fetched", "in the dataset"], &rows);
    if let Some(before) = &gathered.added_to {
        lines.push(format!("in the dataset are also the photos of {before}"));
    }
    lines.push(format!("each photo with its source, author and licence: {show_sources}"));
    lines
}

/// A photo that was found: its class, what became of it, where it is, its author and licence, its page, and why it is not in the dataset.
pub(crate) fn source_row(source: &PhotoSource) -> [String; 7] {
    let outcome = match source.outcome {
        SourceOutcome::Kept => "kept",
        SourceOutcome::Rejected => "rejected",
        SourceOutcome::Failed => "failed",
        SourceOutcome::Other => "unknown",
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let credit = &source.credit;
    [
        source.class.clone(),
        outcome.to_owned(),
        source.url.clone(),
        text(&credit.author),
        text(&credit.licence),
        text(&credit.source_page),
        text(&source.reason),
    ]
}
