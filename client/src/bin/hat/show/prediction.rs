//! Predictions in lines.

use std::{collections::BTreeMap, path::Path};

use sortinghat_client::predictions::Prediction;

use super::{
    numbers::{count, counted},
    plain, table,
};

/// The most probable class of a single photo as a sentence, and then all that were asked for.
pub(crate) fn sentence(prediction: &Prediction) -> Vec<String> {
    let class = prediction.predicted.as_deref().unwrap_or_default();
    let probability = prediction.probability.unwrap_or_default();
    let rows: Vec<[String; 2]> =
        prediction.top.iter().map(|top| [format!("{:.3}", top.probability), top.class.clone()]).collect();
    let others = rows.iter().map(|[probability, class]| format!("  {probability}  {class}"));
    std::iter::once(format!("The most resembling class is {class} with probability {probability:.3}"))
        .chain(others)
        .collect()
}

/// One photo of several: tab-separated, for `cut` and `sort`.
pub(crate) fn row(prediction: &Prediction) -> String {
    let path = plain::cell(&prediction.path);
    match (&prediction.predicted, prediction.probability) {
        (Some(class), Some(probability)) => format!("{path}\t{}\t{probability:.3}", plain::cell(class)),
        _ => format!("{path}\terror\t{}", plain::cell(prediction.error.as_deref().unwrap_or_default())),
    }
}

/// How many photos there are of each class, and the files that could not be used.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    classes: BTreeMap<String, u64>,
    errors: Vec<String>,
    error_count: u64,
}

/// Errors that are shown; the file of predictions has all of them.
const SHOWN_ERRORS: usize = 5;

impl Summary {
    /// Counts one more photo.
    pub(crate) fn add(&mut self, prediction: &Prediction) {
        if let Some(class) = &prediction.predicted {
            *self.classes.entry(class.clone()).or_default() += 1;
            return;
        }
        self.error_count += 1;
        if self.errors.len() < SHOWN_ERRORS {
            self.errors.push(format!("  {}: {}", prediction.path, prediction.error.as_deref().unwrap_or_default()));
        }
    }

    /// The summary of predictions that were saved to `out`, or printed.
    pub(crate) fn lines(&self, out: Option<&Path>) -> Vec<String> {
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
