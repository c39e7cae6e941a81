//! How far a job is, and how long it still takes. Times are in milliseconds of a clock that only the caller reads.

use sortinghat_proto::v1::{EpochMetrics, Job, Progress, job_spec::Kind};

use crate::show::numbers::duration;

/// An epoch spends about this share of its time on training and the rest on the validation: a step back takes twice as long as a step
/// forward, and a fifth of the photos is held out unless somebody asks for another share.
const TRAINING_SHARE: f64 = 0.92;
/// An estimate needs at least this much of the work and of the time.
const LEAST_SHARE: f64 = 0.02;
pub(super) const LEAST_MS: u64 = 1_000;

/// A share of some work that is done, with the first share and time that were seen of it.
#[derive(Debug, Clone, Copy)]
struct Pace {
    first: (f64, u64),
    share: f64,
}

impl Pace {
    /// How long all of the work takes at this pace; `None` as long as too little was seen.
    fn whole_ms(self, now_ms: u64) -> Option<f64> {
        let (first, since_ms) = self.first;
        let (share, ms) = (self.share - first, now_ms.saturating_sub(since_ms));
        (share >= LEAST_SHARE && ms >= LEAST_MS).then(|| ms as f64 / share)
    }
}

/// One step of a job, such as decoding: its phase and how much of it is done.
#[derive(Debug, Default)]
pub(super) struct Step {
    phase: String,
    pace: Option<Pace>,
}

impl Step {
    pub(super) fn progress(&mut self, progress: &Progress, now_ms: u64) {
        if self.phase != progress.phase {
            *self = Self { phase: progress.phase.clone(), pace: None };
        }
        self.pace = (progress.total > 0).then(|| {
            let share = (progress.done as f64 / progress.total as f64).min(1.0);
            let first = self.pace.map_or((share, now_ms), |pace| pace.first);
            // Work that starts again has no pace yet.
            Pace { first: if share < first.0 { (share, now_ms) } else { first }, share }
        });
    }

    /// The share that is done; `None` if it is not known.
    pub(super) fn share(&self) -> Option<f64> {
        self.pace.map(|pace| pace.share)
    }

    /// "12 s left of this step".
    pub(super) fn left(&self, now_ms: u64) -> Option<String> {
        let pace = self.pace?;
        let left_ms = pace.whole_ms(now_ms)? * (1.0 - pace.share);
        Some(format!("{} left of this step", rounded(left_ms)))
    }
}

/// A training: its epochs, those in which only the head learns first.
#[derive(Debug)]
pub(super) struct Training {
    frozen: u32,
    epochs: u32,
    finished: u32,
    /// How long the newest finished epoch took, in milliseconds: of those in which only the head learns, and of the others.
    took_ms: [Option<u64>; 2],
    /// The epoch that runs.
    running: Option<Pace>,
}

impl Training {
    /// The training that a job does, if it does one.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let Some(Kind::Finetune(spec)) = job.spec.as_ref()?.kind.as_ref() else { return None };
        let frozen = spec.freeze_epochs.unwrap_or_default();
        let epochs = frozen + spec.epochs;
        (epochs > 0).then_some(Self { frozen, epochs, finished: 0, took_ms: [None; 2], running: None })
    }

    /// An epoch has ended.
    pub(super) fn finished(&mut self, metrics: &EpochMetrics) {
        let before = if metrics.frozen { 0 } else { self.frozen };
        self.finished = (before + metrics.epoch + 1).min(self.epochs);
        self.took_ms[usize::from(!metrics.frozen)] = Some(metrics.duration_ms);
        self.running = None;
    }

    /// Takes the progress of an epoch; false if this progress is of something else.
    pub(super) fn progress(&mut self, progress: &Progress, now_ms: u64) -> bool {
        let (before, weight) = match progress.phase.as_str() {
            "train" => (0.0, TRAINING_SHARE),
            "validate" => (TRAINING_SHARE, 1.0 - TRAINING_SHARE),
            _ => return false,
        };
        if self.running.is_none() && before > 0.0 {
            // The last word of an epoch's validation may come after the epoch's end, and is not about the next epoch.
            return true;
        }
        let done = progress.done as f64 / progress.total.max(1) as f64;
        let share = before + weight * done.min(1.0);
        let first = self.running.map_or((share, now_ms), |running| running.first);
        self.running = Some(Pace { first: if share < first.0 { (share, now_ms) } else { first }, share });
        true
    }

    /// The share of all epochs that is done.
    pub(super) fn share(&self) -> f64 {
        (f64::from(self.finished) + self.running_share()) / f64::from(self.epochs)
    }

    /// "epoch 2 of 6".
    pub(super) fn place(&self) -> String {
        format!("epoch {} of {}", (self.finished + 1).min(self.epochs), self.epochs)
    }

    /// "21 s an epoch, 1 min 40 s left". The epochs after the ones in which only the head learns take longer. As long as none of them was
    /// seen, the time that is left is "over" what is said.
    pub(super) fn left(&self, now_ms: u64) -> Option<String> {
        if self.finished >= self.epochs {
            return None;
        }
        let is_frozen = self.finished < self.frozen;
        let paced = self.running.and_then(|running| running.whole_ms(now_ms));
        let known = |phase: usize| self.took_ms[phase].map(|ms| ms as f64);
        let epoch_ms = known(usize::from(!is_frozen)).or(paced)?;
        let (later, over) = match (is_frozen, known(1)) {
            (true, None) if self.epochs > self.frozen => (epoch_ms, "over "),
            (true, later) => (later.unwrap_or(epoch_ms), ""),
            (false, _) => (epoch_ms, ""),
        };
        let frozen_left = f64::from(self.frozen.saturating_sub(self.finished));
        let others_left = f64::from(self.epochs - self.finished.max(self.frozen));
        let left_ms = (frozen_left - self.running_share()) * epoch_ms + others_left * later;
        Some(format!("{} an epoch, {over}{} left", rounded(epoch_ms), rounded(left_ms)))
    }

    fn running_share(&self) -> f64 {
        self.running.map_or(0.0, |running| running.share)
    }
}

fn rounded(ms: f64) -> String {
    duration(ms.max(0.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::v1::{FinetuneSpec, JobSpec};

    use super::*;

    fn training(frozen: u32, epochs: u32) -> Training {
        let spec = FinetuneSpec { freeze_epochs: Some(frozen), epochs, ..Default::default() };
        let spec = JobSpec { kind: Some(Kind::Finetune(spec)) };
        Training::of(&Job { spec: Some(spec), ..Default::default() }).expect("a training")
    }

    fn at(phase: &str, done: u64, total: u64) -> Progress {
        Progress { phase: phase.into(), done, total, unit: "batches".into() }
    }

    fn epoch(frozen: bool, epoch: u32, duration_ms: u64) -> EpochMetrics {
        EpochMetrics { frozen, epoch, duration_ms, ..Default::default() }
    }

    #[test]
    fn a_training_says_which_epoch_of_all_runs_how_long_one_takes_and_how_long_all_still_take() {
        let mut training = training(1, 5);
        assert_eq!((training.place().as_str(), training.left(0)), ("epoch 1 of 6", None));
        assert!(training.progress(&at("train", 0, 10), 0));
        assert_eq!(training.left(500), None, "too little was seen");
        training.progress(&at("train", 5, 10), 4_600);
        assert_eq!(training.left(4_600).as_deref(), Some("10 s an epoch, over 55 s left"), "later epochs take longer");
        training.progress(&at("validate", 2, 2), 10_000);
        training.finished(&epoch(true, 0, 10_000));
        assert_eq!(training.place(), "epoch 2 of 6");
        assert!(training.progress(&at("validate", 2, 2), 10_000), "a late word about the epoch that has ended");
        assert!((training.share() - 1.0 / 6.0).abs() < 1e-9, "{}", training.share());
        training.progress(&at("train", 0, 10), 10_000);
        assert_eq!(training.left(10_000), None, "no such epoch was seen");
        training.finished(&epoch(false, 0, 20_000));
        assert_eq!(training.left(30_000).as_deref(), Some("20 s an epoch, 1 min 20 s left"));
        training.progress(&at("train", 5, 10), 39_200);
        assert_eq!(training.left(39_200).as_deref(), Some("20 s an epoch, 1 min 10 s left"));
        assert!((training.share() - 2.46 / 6.0).abs() < 1e-9, "{}", training.share());
        for number in 1..5 {
            training.finished(&epoch(false, number, 20_000));
        }
        assert_eq!((training.place().as_str(), training.left(0)), ("epoch 6 of 6", None));
    }

    #[test]
    fn a_training_that_is_watched_from_its_middle_on_is_estimated_from_what_was_seen_of_it() {
        let mut training = training(0, 2);
        training.progress(&at("train", 8, 16), 100_000);
        training.progress(&at("train", 12, 16), 102_300);
        // 23% of an epoch in 2.3 s: 10 s an epoch, of which 31% are left.
        assert_eq!(training.left(102_300).as_deref(), Some("10 s an epoch, 13 s left"));
    }

    #[test]
    fn only_trainings_have_epochs_and_only_epochs_are_counted_as_such() {
        assert!(Training::of(&Job::default()).is_none());
        assert!(!training(1, 1).progress(&at("weights", 0, 0), 0));
    }

    #[test]
    fn a_step_says_how_long_it_still_takes_once_its_pace_is_known() {
        let mut step = Step::default();
        step.progress(&at("decode", 0, 100), 0);
        assert_eq!((step.share(), step.left(0)), (Some(0.0), None));
        step.progress(&at("decode", 25, 100), 5_000);
        assert_eq!(step.left(5_000).as_deref(), Some("15 s left of this step"));
        step.progress(&at("write", 0, 0), 6_000);
        assert_eq!((step.share(), step.left(6_000)), (None, None));
    }
}
