//! How far the model's confidence can be trusted: two drawings, and their numbers as tables.

use sortinghat_proto::manifest::{ConfidenceBin, Findings, Interval};
use sortinghat_proto::words::{count, percent};

use super::lengths::length;
use crate::evaluation::interval;

/// The plot's area in the units of the drawing.
const LEFT: f64 = 44.0;
const TOP: f64 = 12.0;
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 240.0;
/// How many bars the reliability plot has: one for each tenth.
const BARS: usize = 10;
/// Width of a bar in the units of the drawing.
const BAR_WIDTH: f64 = 30.0;

/// The section on confidence.
pub(super) struct Confidence {
    pub(super) sentence: String,
    pub(super) axes: Axes,
    pub(super) thresholds: Thresholds,
    pub(super) reliability: Reliability,
}

/// The marks that both drawings share. The horizontal axis is confidence, the vertical one a share, both 0 to 100%.
pub(super) struct Axes {
    pub(super) left: String,
    pub(super) right: String,
    pub(super) top: String,
    pub(super) bottom: String,
    pub(super) marks: Vec<Mark>,
}

/// A mark at the same share of both axes.
pub(super) struct Mark {
    pub(super) x: String,
    pub(super) y: String,
    pub(super) label: String,
}

/// What is left, and how good it is, if predictions below a threshold are left to a person.
pub(super) struct Thresholds {
    /// The lines as "x,y x,y": the share that is predicted right, its interval as an area, and the share of photos that are left.
    pub(super) accuracy: String,
    pub(super) interval: String,
    pub(super) coverage: String,
    pub(super) rows: Vec<ThresholdRow>,
}

/// A row of the table of thresholds.
pub(super) struct ThresholdRow {
    pub(super) threshold: String,
    pub(super) kept: String,
    pub(super) coverage: String,
    pub(super) right: String,
    pub(super) accuracy: String,
    pub(super) interval: String,
}

/// Confidence beside how often it was right.
pub(super) struct Reliability {
    pub(super) bars: Vec<ReliabilityBar>,
}

/// A bar of the reliability plot, and its row in the table.
pub(super) struct ReliabilityBar {
    pub(super) range: String,
    pub(super) photos: String,
    pub(super) right: String,
    pub(super) mean: String,
    pub(super) accuracy: String,
    pub(super) interval: String,
    pub(super) x: String,
    pub(super) width: String,
    pub(super) middle: String,
    pub(super) y: String,
    pub(super) height: String,
    pub(super) low: String,
    pub(super) high: String,
    pub(super) mean_y: String,
}

impl Confidence {
    /// `None` if the findings do not say how sure the model was.
    pub(super) fn new(findings: &Findings) -> Option<Self> {
        let bins = &findings.confidence;
        let all = Photos::from(bins.as_slice());
        (all.photos > 0).then(|| Self {
            sentence: sentence(&all),
            axes: axes(),
            thresholds: thresholds(bins, all.photos),
            reliability: Reliability { bars: bars(bins) },
        })
    }
}

/// Some photos that were predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Photos {
    photos: u64,
    correct: u64,
    /// The mean probability of the predicted classes.
    mean: f64,
}

impl From<&[ConfidenceBin]> for Photos {
    fn from(bins: &[ConfidenceBin]) -> Self {
        let photos: u64 = bins.iter().map(|bin| bin.photos).sum();
        let sum: f64 = bins.iter().map(|bin| bin.mean * bin.photos as f64).sum();
        Self { photos, correct: bins.iter().map(|bin| bin.correct).sum(), mean: sum / photos.max(1) as f64 }
    }
}

impl Photos {
    fn accuracy(&self) -> f64 {
        self.correct as f64 / self.photos.max(1) as f64
    }

    fn interval(&self) -> Interval {
        Interval::wilson(self.correct, self.photos)
    }
}

fn sentence(all: &Photos) -> String {
    let (mean, accuracy) = (percent(all.mean), percent(all.accuracy()));
    let points = (all.mean - all.accuracy()) * 100.0;
    let verdict = match (all.interval(), points) {
        (range, _) if range.low <= all.mean && all.mean <= range.high => "the difference may well be chance".to_owned(),
        (_, over) if over > 0.0 => format!("it is {over:.1} percentage points too sure"),
        (_, under) => format!("it is {:.1} percentage points less sure than it could be", -under),
    };
    format!(
        "On average the model is {mean} sure of its prediction, and {accuracy} of the predictions are right: {verdict}."
    )
}

fn x_of(share: f64) -> f64 {
    LEFT + share * WIDTH
}

fn y_of(share: f64) -> f64 {
    TOP + (1.0 - share) * HEIGHT
}

fn axes() -> Axes {
    let mark = |fifth: u32| {
        let share = f64::from(fifth) / 5.0;
        Mark { x: length(x_of(share)), y: length(y_of(share)), label: format!("{}%", fifth * 20) }
    };
    Axes {
        left: length(x_of(0.0)),
        right: length(x_of(1.0)),
        top: length(y_of(1.0)),
        bottom: length(y_of(0.0)),
        marks: (0..=5).map(mark).collect(),
    }
}

fn point(share_x: f64, share_y: f64) -> String {
    format!("{},{}", length(x_of(share_x)), length(y_of(share_y)))
}

/// The photos with at least the confidence at which each bin begins, as long as there are any.
fn at_least(bins: &[ConfidenceBin]) -> Vec<(f64, Photos)> {
    let from = |start: usize| (bins[start].from, Photos::from(&bins[start..]));
    (0..bins.len()).map(from).take_while(|(_, left)| left.photos > 0).collect()
}

fn thresholds(bins: &[ConfidenceBin], all: u64) -> Thresholds {
    let points = at_least(bins);
    let coverage = |left: &Photos| left.photos as f64 / all as f64;
    let line = |share: &dyn Fn(&Photos) -> f64| {
        points.iter().map(|(threshold, left)| point(*threshold, share(left))).collect::<Vec<_>>()
    };
    let area =
        line(&|left| left.interval().low).into_iter().chain(line(&|left| left.interval().high).into_iter().rev());
    let row = |(threshold, left): &(f64, Photos)| ThresholdRow {
        threshold: whole_percent(*threshold),
        kept: format!("{} of {}", count(left.photos), count(all)),
        coverage: percent(coverage(left)),
        right: format!("{} of {}", count(left.correct), count(left.photos)),
        accuracy: percent(left.accuracy()),
        interval: interval(&left.interval()),
    };
    // A threshold that leaves out no further photo would repeat the row before it.
    let mut rows: Vec<&(f64, Photos)> = points.iter().collect();
    rows.dedup_by_key(|(_, left)| left.photos);
    Thresholds {
        accuracy: line(&Photos::accuracy).join(" "),
        interval: area.collect::<Vec<_>>().join(" "),
        coverage: line(&coverage).join(" "),
        rows: rows.into_iter().map(row).collect(),
    }
}

/// The tenths that hold photos.
fn bars(bins: &[ConfidenceBin]) -> Vec<ReliabilityBar> {
    let bar = |tenth: usize| {
        let range = tenth as f64 / BARS as f64..(tenth + 1) as f64 / BARS as f64;
        // Half a percent of slack, because 0.3 and 3 / 10 need not be the same number. No two bins begin so close to each other.
        let is_in = |bin: &&ConfidenceBin| bin.from > range.start - 0.005 && bin.from < range.end - 0.005;
        let inside: Vec<ConfidenceBin> = bins.iter().filter(is_in).copied().collect();
        let photos = Photos::from(inside.as_slice());
        (photos.photos > 0).then(|| reliability_bar(&range, &photos))
    };
    (0..BARS).filter_map(bar).collect()
}

fn reliability_bar(range: &std::ops::Range<f64>, photos: &Photos) -> ReliabilityBar {
    let (middle, wilson) = (x_of((range.start + range.end) / 2.0), photos.interval());
    ReliabilityBar {
        range: format!("{} to {}", whole_percent(range.start), whole_percent(range.end)),
        photos: count(photos.photos),
        right: count(photos.correct),
        mean: percent(photos.mean),
        accuracy: percent(photos.accuracy()),
        interval: interval(&wilson),
        x: length(middle - BAR_WIDTH / 2.0),
        width: length(BAR_WIDTH),
        middle: length(middle),
        y: length(y_of(photos.accuracy())),
        height: length(photos.accuracy() * HEIGHT),
        low: length(y_of(wilson.low)),
        high: length(y_of(wilson.high)),
        mean_y: length(y_of(photos.mean)),
    }
}

/// 0.95 as "95%".
fn whole_percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bin(from: f64, photos: u64, correct: u64, mean: f64) -> ConfidenceBin {
        ConfidenceBin { from, photos, correct, mean }
    }

    /// 2 of 4 right at 0.55, 5 of 6 at 0.92, 10 of 10 at 0.995.
    fn bins() -> Vec<ConfidenceBin> {
        vec![
            bin(0.0, 0, 0, 0.0),
            bin(0.5, 4, 2, 0.55),
            bin(0.6, 0, 0, 0.0),
            bin(0.9, 6, 5, 0.92),
            bin(0.95, 0, 0, 0.0),
            bin(0.99, 10, 10, 0.995),
        ]
    }

    #[test]
    fn a_higher_threshold_keeps_fewer_photos_and_says_how_many_of_them_are_right() {
        let rows = thresholds(&bins(), 20).rows;
        let told: Vec<[&str; 4]> =
            rows.iter().map(|row| [&*row.threshold, &*row.kept, &*row.coverage, &*row.right]).collect();
        let expected = [
            ["0%", "20 of 20", "100.0%", "17 of 20"],
            ["60%", "16 of 20", "80.0%", "15 of 16"],
            ["95%", "10 of 20", "50.0%", "10 of 10"],
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn the_bars_are_tenths_with_counts_and_the_last_one_has_all_from_90_percent_on() {
        let told: Vec<[String; 4]> =
            bars(&bins()).into_iter().map(|bar| [bar.range, bar.photos, bar.right, bar.accuracy]).collect();
        assert_eq!(told, [["50% to 60%", "4", "2", "50.0%"], ["90% to 100%", "16", "15", "93.8%"]]);
    }

    #[test]
    fn a_model_is_called_too_sure_only_if_chance_hardly_explains_the_difference() {
        let said = |photos, correct, mean| sentence(&Photos { photos, correct, mean });
        assert!(
            said(1_000, 800, 0.95).contains("95.0% sure")
                && said(1_000, 800, 0.95).contains("15.0 percentage points too sure")
        );
        assert!(said(1_000, 950, 0.8).contains("15.0 percentage points less sure"));
        assert!(said(20, 17, 0.88).contains("may well be chance"));
    }

    #[test]
    fn the_last_threshold_is_drawn_only_where_photos_are_left() {
        let few = vec![bin(0.0, 0, 0, 0.0), bin(0.5, 4, 2, 0.55), bin(0.6, 0, 0, 0.0)];
        assert_eq!(at_least(&few).len(), 2);
        assert_eq!(thresholds(&few, 4).accuracy.split(' ').count(), 2);
    }
}
