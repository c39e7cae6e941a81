//! Decides whether a model can learn from the photos that were taken in.

use std::collections::BTreeMap;

use sortinghat_proto::{
    Refusal,
    layout::{self, Label, Layout, Side},
    limits,
    manifest::{Rejection, RejectionReason},
    v1::ErrorCode,
    words::{count, counted},
};

use super::intake::Intake;

/// Refuses a set of which more than half could not be decoded, unless failures are allowed: the decoder is then more likely at fault
/// than the photos. Files in unsupported formats do not count. Also refuses a set without two classes of at least two photos, and
/// states the counts. If the upload states the sides, each class needs a photo on both. A folder without any usable photo is no class; a
/// remark names it.
///
/// # Errors
/// A [`Refusal`] with [`ErrorCode::UnusableData`].
pub fn check<P>(intake: &Intake<P>, allow_failures: bool) -> Result<(), Refusal> {
    let counts = &intake.counts;
    let photos = counts.accepted + counts.duplicates + counts.conflicting + counts.quarantined;
    if counts.quarantined * 2 > photos && !allow_failures {
        let first = intake.rejections.iter().find(|rejection| super::intake::is_quarantine(rejection.reason));
        let example = first.map_or(String::new(), |first| format!(", for example {}: {}", first.path, first.message));
        let message = format!(
            "{} of {photos} photos cannot be read or decoded{example}; look at some of them, or allow failures to go on without them",
            counts.quarantined
        );
        return Err(unusable(message).at("ingest.allow_failures"));
    }
    if counts.accepted == 0 {
        return Err(unusable(nothing_usable(intake)));
    }
    check_classes(intake)
}

/// Says that no file can be used, and for each reason how many files there are and what is wrong with the first one.
fn nothing_usable<P>(intake: &Intake<P>) -> String {
    let mut reasons: BTreeMap<RejectionReason, (u64, &Rejection)> = BTreeMap::new();
    for rejection in &intake.rejections {
        reasons.entry(rejection.reason).or_insert((0, rejection)).0 += 1;
    }
    let told = reasons.into_values().map(|(files, first)| match files {
        1 => format!("{}: {}", first.path, first.message),
        files => format!("{} such as {}: {}", count(files), first.path, first.message),
    });
    let files = counted(intake.counts.inputs, "file", "files");
    format!("there is no usable photo among {files}: {}", told.collect::<Vec<_>>().join("; "))
}

fn check_classes<P>(intake: &Intake<P>) -> Result<(), Refusal> {
    let classes = &intake.class_photos;
    if classes.len() < 2 {
        let only = classes.keys().next().map_or("none", String::as_str);
        let next = match layout::may_be_side(only) {
            true => format!("if {only}/ holds a folder for each class, name that folder"),
            false => "put the photos of each class into a folder of its own".to_owned(),
        };
        return Err(unusable(format!("there must be at least two classes, found {only}; {next}")));
    }
    if classes.len() > limits::MAX_CLASSES {
        return Err(unusable(format!("{} classes are more than the {} allowed", classes.len(), limits::MAX_CLASSES)));
    }
    if let Some(long) = classes.keys().find(|name| name.len() > limits::MAX_CLASS_NAME_BYTES) {
        return Err(unusable(format!("the class name {long} is longer than {} bytes", limits::MAX_CLASS_NAME_BYTES)));
    }
    let mut photos: BTreeMap<&Label, usize> = BTreeMap::new();
    for accepted in &intake.accepted {
        *photos.entry(&accepted.label).or_default() += 1;
    }
    let lacking: Vec<String> = classes.keys().filter_map(|class| lack(intake, &photos, class)).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let what = match intake.layout {
        Layout::Classes => "each class needs at least two usable photos",
        Layout::Splits { .. } => "each class needs a usable photo to learn from and one that is held out",
    };
    Err(unusable(format!("{what}: {}", lacking.join(", "))))
}

/// What a class lacks, if anything: "cats has 1".
fn lack<P>(intake: &Intake<P>, photos: &BTreeMap<&Label, usize>, class: &str) -> Option<String> {
    match intake.layout {
        Layout::Classes => {
            let photos = intake.class_photos[class];
            (photos < 2).then(|| format!("{class} has {photos}"))
        }
        Layout::Splits { .. } => {
            let on = |side| {
                let label = Label { class: class.to_owned(), given: Some(side) };
                photos.get(&label).copied().unwrap_or_default()
            };
            let (train, valid) = (on(Side::Train), on(Side::Valid));
            (train == 0 || valid == 0).then(|| format!("{class} has {train} and {valid}"))
        }
    }
}

fn unusable(message: String) -> Refusal {
    Refusal::new(ErrorCode::UnusableData, message)
}
