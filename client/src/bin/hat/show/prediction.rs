//! Predictions in lines.

use std::{collections::BTreeMap, path::Path};

use sortinghat_client::predictions::Prediction;

use super::{
    numbers::{count, counted},
    table,
};

/// The most probable class of a single photo as a sentence that names the model, and then all classes that were asked for.
pub(crate) fn sentence(prediction: &Prediction, model: &str) -> Vec<String> {
    let class = prediction.predicted.as_deref().unwrap_or_default();
    let probability = prediction.probability.unwrap_or_default();
    let rows: Vec<[String; 2]> =
        prediction.top.iter().map(|top| [format!("{:.3}", top.probability), top.class.clone()]).collect();
    let others = rows.iter().map(|[probability, class]| format!("  {probability}  {class}"));
    let sentence = if prediction.unlike == Some(true) {
        format!(
            "It resembles none of the classes that {model} knows; the nearest is {class} with probability {probability:.3}"
        )
    } else {
        format!("The most resembling class is {class} with probability {probability:.3} (model {model})")
    };
    std::iter::once(sentence).chain(others).collect()
}

/// One photo of several: its path, its class or "error", and the probability or the error. A fourth cell, "unlike", is there only if the
/// photo resembles none of the classes.
pub(crate) fn row(prediction: &Prediction) -> Vec<String> {
    let path = prediction.path.clone();
    match (&prediction.predicted, prediction.probability) {
        (Some(class), Some(probability)) => {
            let unlike = (prediction.unlike == Some(true)).then(|| "unlike".to_owned());
            [path, class.clone(), format!("{probability:.3}")].into_iter().chain(unlike).collect()
        }
        _ => vec![path, "error".to_owned(), prediction.error.clone().unwrap_or_default()],
    }
}

/// How many photos there are of each class, and the files that could not be used.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    classes: BTreeMap<String, u64>,
    /// Photos that resemble none of the classes; they are counted in `classes` as well.
    unlike: u64,
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
            self.unlike += u64::from(prediction.unlike == Some(true));
            return;
        }
        self.error_count += 1;
        if self.errors.len() < SHOWN_ERRORS {
            self.errors.push(format!("  {}: {}", prediction.path, prediction.error.as_deref().unwrap_or_default()));
        }
    }

    /// Why there is no prediction at all; `None` if there is one.
    pub(crate) fn nothing_usable(&self) -> Option<String> {
        let first = self.errors.first().filter(|_| self.classes.is_empty())?.trim_start();
        Some(match self.error_count {
            1 => first.to_owned(),
            files => format!("none of the {} could be used; the first is {first}", counted(files, "file", "files")),
        })
    }

    /// The summary of predictions by `model` that were saved to `out`, or printed. Errors that were printed are only counted.
    pub(crate) fn lines(&self, model: &str, out: Option<&Path>) -> Vec<String> {
        let photos = counted(self.classes.values().sum(), "photo", "photos");
        let place = out.map(|path| format!("{}: ", path.display())).unwrap_or_default();
        let mut lines = vec![format!("{place}{photos} classified by {model}")];
        let mut classes: Vec<_> = self.classes.iter().collect();
        classes.sort_by_key(|(class, number)| (std::cmp::Reverse(**number), *class));
        let rows: Vec<[String; 2]> = classes.into_iter().map(|(class, n)| [class.clone(), count(*n)]).collect();
        lines.extend(table::columns(["class", "photos"], &rows));
        if self.unlike > 0 {
            let resembles = if self.unlike == 1 { "resembles" } else { "resemble" };
            let photos = counted(self.unlike, "photo", "photos");
            lines.push(format!("{photos} of these {resembles} none of the classes, and may be of something else"));
        }
        let unused = counted(self.error_count, "file", "files");
        if self.error_count > 0 && out.is_none() {
            lines.push(format!("{unused} could not be used"));
        } else if self.error_count > 0 {
            lines.push(format!("{unused} could not be used:"));
            lines.extend(self.errors.iter().cloned());
            let rest = self.error_count - self.errors.len() as u64;
            lines.extend((rest > 0).then(|| format!("  and {} more", count(rest))));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use sortinghat_client::predictions::{ClassProbability, Status};

    use super::*;

    fn predicted(path: &str, class: &str) -> Prediction {
        Prediction {
            path: path.into(),
            digest: String::new(),
            status: Status::Ok,
            predicted: Some(class.into()),
            probability: Some(0.8461),
            top: vec![ClassProbability { class: class.into(), probability: 0.8461 }],
            error: None,
            unlike: Some(false),
            unlike_score: Some(-1.5),
        }
    }

    #[test]
    fn a_photo_that_resembles_no_class_is_said_to_and_is_counted() {
        let stranger = Prediction { unlike: Some(true), unlike_score: Some(0.5), ..predicted("cat.jpg", "animals") };
        let first =
            "It resembles none of the classes that stamps/2 knows; the nearest is animals with probability 0.846";
        assert_eq!(sentence(&stranger, "stamps/2"), [first, "  0.846  animals"]);
        assert_eq!(row(&stranger), ["cat.jpg", "animals", "0.846", "unlike"]);
        assert_eq!(row(&predicted("dog.jpg", "animals")), ["dog.jpg", "animals", "0.846"]);
        let mut summary = Summary::default();
        [&stranger, &predicted("dog.jpg", "animals")].into_iter().for_each(|photo| summary.add(photo));
        let lines = summary.lines("stamps/2", None);
        assert_eq!(
            lines.last().unwrap(),
            "1 photo of these resembles none of the classes, and may be of something else"
        );
    }

    #[test]
    fn one_photo_is_answered_with_a_sentence() {
        let lines = sentence(&predicted("me.jpg", "animals"), "stamps/2");
        let first = "The most resembling class is animals with probability 0.846 (model stamps/2)";
        assert_eq!(lines, [first, "  0.846  animals"]);
    }

    #[test]
    fn a_folder_is_summed_up_by_class_and_names_what_could_not_be_used() {
        let mut summary = Summary::default();
        ["a", "b", "b"].iter().for_each(|class| summary.add(&predicted("x", class)));
        for n in 0..7 {
            let broken = predicted(&format!("{n}.heic"), "a");
            summary.add(&Prediction { predicted: None, error: Some("HEIC is not supported".into()), ..broken });
        }
        let lines = summary.lines("stamps/2", Some(Path::new("p.csv"))).join("\n");
        for part in [
            "p.csv: 3 photos classified by stamps/2",
            "b      2\na      1",
            "7 files could not be used:",
            "  and 2 more",
        ] {
            assert!(lines.contains(part), "{part:?} is not in\n{lines}");
        }
        let printed = summary.lines("stamps/2", None).join("\n");
        assert!(printed.ends_with("7 files could not be used"), "their rows were printed with the reasons:\n{printed}");
        assert_eq!(summary.nothing_usable(), None);
    }

    #[test]
    fn a_folder_of_which_nothing_could_be_used_is_a_failure_that_names_the_first_reason() {
        let mut summary = Summary::default();
        let failed = |n: usize| Prediction {
            predicted: None,
            error: Some("heic is not supported".into()),
            ..predicted(&format!("{n}.heic"), "a")
        };
        summary.add(&failed(0));
        assert_eq!(summary.nothing_usable().as_deref(), Some("0.heic: heic is not supported"));
        (1..18).for_each(|n| summary.add(&failed(n)));
        let message = "none of the 18 files could be used; the first is 0.heic: heic is not supported";
        assert_eq!(summary.nothing_usable().as_deref(), Some(message));
    }
}
