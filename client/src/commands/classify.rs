use std::{collections::BTreeMap, path::Path};

use sortinghat_client::{Client, predictions::Prediction};
use sortinghat_proto::{ClassifySpec, JobSpec, Lane, ModelRef, ObjectRef, manifest::PredictionsManifest};

use super::{evaluate, result, sources};
use crate::{
    args::Classify,
    exit::Exit,
    failure::Failure,
    follow::{self, tagged},
    session::{Session, print_line},
    show::{
        numbers::{count, counted},
        plain, table,
    },
};

pub(super) async fn run(session: &Session, args: Classify) -> Result<Exit, Failure> {
    let submission = args.waiting.resolve()?;
    let model = ModelRef::parse(&args.model, "classify.model")?;
    args.out.as_deref().map(result::format_of).transpose()?;
    let files = sources::list_arguments(session, &args.photos)?;
    // Somebody waits for the answer about a single photo.
    let lane = if files.len() == 1 { Lane::Interactive } else { Lane::Bulk };
    let client = session.connect().await?;
    evaluate::check_model(&client, &model).await?;
    let spec = ClassifySpec {
        model,
        source: sources::upload(session, &client, files).await?,
        top_k: args.top,
        tta: evaluate::tta(args.tta, args.passes),
        seed: args.seed,
        precision: args.precision.into(),
    };
    let followed = follow::submit(session, &client, submission(JobSpec::Classify(spec), lane)).await?;
    result::finish(session, &client, followed, args.out.as_deref()).await
}

/// One photo: a sentence and the most probable classes. Several: a line for each, or a file and a summary by class.
pub(super) async fn tell(
    session: &Session,
    client: &Client,
    manifest: &ObjectRef,
    out: Option<&Path>,
) -> Result<(), Failure> {
    let found: PredictionsManifest = client.read_document(manifest).await?;
    if let Some(path) = out {
        client.save_predictions(&found, result::format_of(path)?, path).await?;
    }
    let mut summary = Summary::default();
    let (single, listed) = (found.counts.inputs == 1, out.is_none());
    let mut failed = None;
    client
        .for_each_prediction(&found, |prediction| {
            summary.add(&prediction);
            if let Some(error) = prediction.error.as_ref().filter(|_| single) {
                failed = Some(format!("{}: {error}", prediction.path));
            }
            match (session.json(), single) {
                (true, _) if listed => {
                    let row = serde_json::to_value(&prediction).expect("strings and finite numbers");
                    session.print_json(&tagged("prediction", row));
                }
                (true, _) => {}
                (false, true) if prediction.error.is_none() => {
                    sentence(&prediction).iter().for_each(|line| print_line(line));
                }
                (false, true) => {}
                (false, false) if listed => print_line(&row(&prediction)),
                (false, false) => {}
            }
        })
        .await?;
    if let Some(message) = failed {
        return Err(Failure::usage(message));
    }
    let is_answered = session.json() || (single && listed);
    if !is_answered {
        summary.lines(out).iter().for_each(|line| print_line(line));
    }
    Ok(())
}

/// "The most resembling class is animals with probability 0.846", and the others.
fn sentence(prediction: &Prediction) -> Vec<String> {
    let class = prediction.predicted.as_deref().unwrap_or_default();
    let probability = prediction.probability.unwrap_or_default();
    let rows: Vec<[String; 2]> =
        prediction.top.iter().map(|top| [format!("{:.3}", top.probability), top.class.clone()]).collect();
    let others = rows.iter().map(|[probability, class]| format!("  {probability}  {class}"));
    std::iter::once(format!("The most resembling class is {class} with probability {probability:.3}"))
        .chain(others)
        .collect()
}

/// A photo of several: tab-separated, for `cut` and `sort`.
fn row(prediction: &Prediction) -> String {
    let path = plain::cell(&prediction.path);
    match (&prediction.predicted, prediction.probability) {
        (Some(class), Some(probability)) => format!("{path}\t{}\t{probability:.3}", plain::cell(class)),
        _ => format!("{path}\terror\t{}", plain::cell(prediction.error.as_deref().unwrap_or_default())),
    }
}

/// What became of the photos, by class.
#[derive(Debug, Default)]
struct Summary {
    classes: BTreeMap<String, u64>,
    errors: Vec<String>,
    error_count: u64,
}

/// Errors that are shown; the file has all.
const SHOWN_ERRORS: usize = 5;

impl Summary {
    fn add(&mut self, prediction: &Prediction) {
        if let Some(class) = &prediction.predicted {
            *self.classes.entry(class.clone()).or_default() += 1;
            return;
        }
        self.error_count += 1;
        if self.errors.len() < SHOWN_ERRORS {
            self.errors.push(format!("  {}: {}", prediction.path, prediction.error.as_deref().unwrap_or_default()));
        }
    }

    fn lines(&self, out: Option<&Path>) -> Vec<String> {
        let sorted: u64 = self.classes.values().sum();
        let place = out.map(|path| format!("{}: ", path.display())).unwrap_or_default();
        let mut lines = vec![format!("{place}{} sorted", counted(sorted, "photo", "photos"))];
        let mut classes: Vec<_> = self.classes.iter().collect();
        classes.sort_by_key(|(class, number)| (std::cmp::Reverse(**number), *class));
        let rows: Vec<[String; 2]> = classes.into_iter().map(|(class, n)| [class.clone(), count(*n)]).collect();
        lines.extend(table::columns(["class", "photos"], &rows));
        if self.error_count > 0 {
            lines.push(format!("{} could not be used:", counted(self.error_count, "file", "files")));
            lines.extend(self.errors.iter().cloned());
            let rest = self.error_count - self.errors.len() as u64;
            lines.extend((rest > 0).then(|| format!("  and {} more", count(rest))));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use sortinghat_client::predictions::ClassProbability;

    use super::*;

    fn predicted(path: &str, class: &str) -> Prediction {
        Prediction {
            path: path.into(),
            digest: String::new(),
            predicted: Some(class.into()),
            probability: Some(0.8461),
            top: vec![ClassProbability { class: class.into(), probability: 0.8461 }],
            error: None,
        }
    }

    #[test]
    fn one_photo_is_answered_with_a_sentence() {
        let lines = sentence(&predicted("me.jpg", "animals"));
        assert_eq!(lines, ["The most resembling class is animals with probability 0.846", "  0.846  animals"]);
    }

    #[test]
    fn a_folder_is_summed_up_by_class_and_names_what_could_not_be_used() {
        let mut summary = Summary::default();
        ["a", "b", "b"].iter().for_each(|class| summary.add(&predicted("x", class)));
        for n in 0..7 {
            let broken = predicted(&format!("{n}.heic"), "a");
            summary.add(&Prediction { predicted: None, error: Some("HEIC is not supported".into()), ..broken });
        }
        let lines = summary.lines(Some(Path::new("p.csv"))).join("\n");
        for part in ["p.csv: 3 photos sorted", "b      2\na      1", "7 files could not be used", "  and 2 more"] {
            assert!(lines.contains(part), "{part:?} is not in\n{lines}");
        }
    }
}
