//! How good a newly trained model is, in one line.

use sortinghat_proto::{manifest::Interval, v1::EpochMetrics};

use super::numbers::{count, interval, percent};

/// The versions of model and dataset, and the accuracy of the last epoch with the number of photos and the interval.
pub(crate) fn headline(model: &str, dataset: &str, last_epoch: Option<&EpochMetrics>) -> String {
    let made = format!("model {model} from {dataset}");
    let Some(EpochMetrics { accuracy, valid_photos, .. }) = last_epoch else { return made };
    let photos = u64::from(*valid_photos);
    let correct = (accuracy * photos as f64).round() as u64;
    let range = interval(Interval::wilson(correct, photos));
    format!("{made}: {} of {} held-out photos right (95% interval {range})", percent(*accuracy), count(photos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headline_gives_the_accuracy_with_its_count_and_interval() {
        let last = EpochMetrics { accuracy: 121.0 / 142.0, valid_photos: 142, ..Default::default() };
        assert_eq!(
            headline("stamps/1", "stamps@2", Some(&last)),
            "model stamps/1 from stamps@2: 85.2% of 142 held-out photos right (95% interval 78.4 to 90.1%)"
        );
        assert_eq!(headline("stamps/1", "stamps@2", None), "model stamps/1 from stamps@2");
    }
}
