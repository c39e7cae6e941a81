use std::collections::BTreeMap;

use serde_json::{Value, json};
use sortinghat_client::Client;
use sortinghat_proto::{
    DatasetRef, ObjectRef,
    manifest::{ClassCount, DatasetManifest, Rejection, RejectionReason, SplitKind},
    v1::Dataset,
};

use super::result::document;
use crate::{
    args::{Datasets, DatasetsCommand},
    exit::Exit,
    failure::Failure,
    session::{Session, print_line},
    show::{
        json as to_json,
        numbers::{count, counted, time},
        plain, table,
    },
};

/// Classes and paths that are shown before "and N more".
const SHOWN_CLASSES: usize = 40;
const SHOWN_PATHS: usize = 3;

pub(super) async fn run(session: &Session, args: Datasets) -> Result<Exit, Failure> {
    match args.command.unwrap_or(DatasetsCommand::List) {
        DatasetsCommand::List => list(session).await,
        DatasetsCommand::Show { name, rejected } => show(session, &name, rejected).await,
        DatasetsCommand::Rm { name } => {
            DatasetRef::parse(&name, "name")?;
            session.connect().await?.delete_dataset(&name).await?;
            match session.json() {
                true => session.print_json(&json!({ "removed": name })),
                false => print_line(&format!("removed the name {name}")),
            }
            Ok(Exit::Ok)
        }
    }
}

async fn list(session: &Session) -> Result<Exit, Failure> {
    let datasets = session.connect().await?.list_datasets().await?;
    if session.json() {
        datasets.iter().for_each(|dataset| session.print_json(&shape(dataset)));
        return Ok(Exit::Ok);
    }
    if datasets.is_empty() {
        session.hint("no datasets yet: `hat ingest NAME FOLDER` makes one");
        return Ok(Exit::Ok);
    }
    let rows: Vec<[String; 3]> =
        datasets.iter().map(|d| [d.name.clone(), time(d.created_unix_ms), d.summary.clone()]).collect();
    table::columns(["name", "made", "what"], &rows).iter().for_each(|line| print_line(line));
    Ok(Exit::Ok)
}

fn shape(dataset: &Dataset) -> Value {
    json!({
        "name": dataset.name, "object": dataset.manifest.as_ref().map(to_json::object), "job_id": dataset.job_id,
        "created_unix_ms": dataset.created_unix_ms, "summary": dataset.summary,
    })
}

async fn show(session: &Session, name: &str, rejected: bool) -> Result<Exit, Failure> {
    DatasetRef::parse(name, "name")?;
    let client = session.connect().await?;
    let dataset = client.get_dataset(name).await?;
    let object: ObjectRef = dataset.manifest.clone().unwrap_or_default().try_into()?;
    let manifest: DatasetManifest = client.read_document(&object).await?;
    if rejected {
        for rejection in rejections(&client, &manifest).await? {
            match session.json() {
                true => session.print_json(&serde_json::to_value(&rejection).expect("strings")),
                false => {
                    let [path, message] = [&rejection.path, &rejection.message].map(|text| plain::cell(text));
                    print_line(&format!("{path}\t{}\t{message}", word(rejection.reason)));
                }
            }
        }
        return Ok(Exit::Ok);
    }
    if session.json() {
        let mut shown = shape(&dataset);
        shown["manifest"] = document(&client, &object).await?;
        session.print_json(&shown);
        return Ok(Exit::Ok);
    }
    describe(&client, &dataset.name, &manifest).await?.iter().for_each(|line| print_line(line));
    print_line(&format!("made {} by job {}", time(dataset.created_unix_ms), dataset.job_id));
    Ok(Exit::Ok)
}

/// A dataset in lines: classes, sizes, the split, and what was not used and why.
pub(super) async fn describe(client: &Client, name: &str, dataset: &DatasetManifest) -> Result<Vec<String>, Failure> {
    let mut lines = vec![headline(name, dataset)];
    lines.extend(classes(dataset));
    if dataset.near_duplicate_groups > 0 {
        let groups = counted(dataset.near_duplicate_groups, "group", "groups");
        lines.push(format!("{groups} of near-duplicates, each kept on one side of the split"));
    }
    lines.extend(not_used(name, &rejections(client, dataset).await?));
    Ok(lines)
}

fn headline(name: &str, dataset: &DatasetManifest) -> String {
    let photos = counted(dataset.photos(), "photo", "photos");
    let held_out: u64 = dataset.class_counts.iter().map(|class| class.valid).sum();
    let split = match dataset.split {
        SplitKind::Given => format!("{} held out in valid/", count(held_out)),
        SplitKind::ValidPercent(percent) => format!("{} held out ({percent}% of each class)", count(held_out)),
        SplitKind::Folds(folds) => format!("{folds} folds"),
    };
    let classes = counted(dataset.classes.len() as u64, "class", "classes");
    format!("dataset {name}: {photos} in {classes}, {split}")
}

fn classes(dataset: &DatasetManifest) -> Vec<String> {
    let row = |(class, number): (&String, &ClassCount)| [class.clone(), count(number.train), count(number.valid)];
    let rows: Vec<[String; 3]> =
        dataset.classes.iter().zip(&dataset.class_counts).take(SHOWN_CLASSES).map(row).collect();
    let mut lines = table::columns(["class", "to learn from", "held out"], &rows);
    let rest = dataset.classes.len().saturating_sub(SHOWN_CLASSES) as u64;
    lines.extend((rest > 0).then(|| format!("and {}", counted(rest, "more class", "more classes"))));
    lines
}

/// By reason, the first paths of each.
fn not_used(name: &str, rejections: &[Rejection]) -> Vec<String> {
    if rejections.is_empty() {
        return vec!["every file was used".to_owned()];
    }
    let mut by_reason: BTreeMap<RejectionReason, Vec<&Rejection>> = BTreeMap::new();
    for rejection in rejections {
        by_reason.entry(rejection.reason).or_default().push(rejection);
    }
    let mut lines = vec![format!("not used: {}", counted(rejections.len() as u64, "file", "files"))];
    for (reason, all) in by_reason {
        lines.push(format!("  {} {}", count(all.len() as u64), word(reason)));
        lines.extend(all.iter().take(SHOWN_PATHS).map(|one| format!("    {}: {}", one.path, one.message)));
    }
    if rejections.len() > SHOWN_PATHS {
        lines.push(format!("  all of them: hat datasets show {name} --rejected"));
    }
    lines
}

async fn rejections(client: &Client, dataset: &DatasetManifest) -> Result<Vec<Rejection>, Failure> {
    let Some(object) = &dataset.rejections else { return Ok(Vec::new()) };
    let bytes = client.read_object(object).await?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(serde_json::from_slice)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::local(format!("the list of rejected files ({}) is damaged: {error}", object.digest)))
}

/// Why, as it reads on from a number.
fn word(reason: RejectionReason) -> &'static str {
    match reason {
        RejectionReason::Empty => "empty",
        RejectionReason::Truncated => "truncated",
        RejectionReason::Corrupt => "cannot be decoded",
        RejectionReason::OverLimit => "over a limit",
        RejectionReason::Unsupported => "in a format that is not supported",
        RejectionReason::NotAPhoto => "no photo",
        RejectionReason::NoClass => "in no class folder",
        RejectionReason::Duplicate => "exact duplicate",
        RejectionReason::Conflicting => "under two labels",
    }
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::Digest;

    use super::*;

    fn rejection(n: usize, reason: RejectionReason) -> Rejection {
        Rejection { path: format!("a/{n}.jpg"), digest: Digest::of(b""), reason, message: "ends too early".into() }
    }

    #[test]
    fn rejected_files_are_grouped_by_reason_with_the_first_paths_and_the_way_to_all() {
        let mut all: Vec<Rejection> = (0..5).map(|n| rejection(n, RejectionReason::Truncated)).collect();
        all.push(rejection(9, RejectionReason::Duplicate));
        let text = not_used("stamps@1", &all).join("\n");
        for part in
            ["not used: 6 files", "  5 truncated\n    a/0.jpg: ends too early", "hat datasets show stamps@1 --rejected"]
        {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(!text.contains("a/3.jpg"), "{text}");
        assert_eq!(not_used("stamps@1", &[]), ["every file was used"]);
    }
}
