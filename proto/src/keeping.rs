//! How a job is labelled, and how long it is kept.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Label, Refusal, limits, words};

/// The labels of a job, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<Label, Label>);

impl Labels {
    /// Every label: its name and its value.
    pub fn iter(&self) -> impl Iterator<Item = (&Label, &Label)> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every one of `wanted` is among these.
    pub fn include(&self, wanted: &Self) -> bool {
        wanted.iter().all(|(name, value)| self.0.get(name) == Some(value))
    }

    /// Adds the labels of `more`, of which each must have a name of its own.
    ///
    /// # Errors
    /// A [`Refusal`] if a name is there already, or if there are too many labels.
    pub fn with(mut self, more: Self) -> Result<Self, Refusal> {
        for (name, value) in more.0 {
            if let Some(other) = self.0.get(&name).filter(|known| **known != value) {
                let message = format!("label {name} has two values, {other} and {value}: give one");
                return Err(Refusal::invalid("labels", message));
            }
            self.0.insert(name, value);
        }
        self.checked()
    }

    fn checked(self) -> Result<Self, Refusal> {
        if self.0.len() > limits::MAX_JOB_LABELS {
            let message = format!("{} labels are more than {}", self.0.len(), limits::MAX_JOB_LABELS);
            return Err(Refusal::invalid("labels", message));
        }
        Ok(self)
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = Refusal;
    fn try_from(wire: BTreeMap<String, String>) -> Result<Self, Refusal> {
        let label = |(name, value): (String, String)| Ok((name.parse()?, value.parse()?));
        Self(wire.into_iter().map(label).collect::<Result<_, Refusal>>()?).checked()
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }
}

/// One label as a text: `user=42`.
impl FromStr for Labels {
    type Err = Refusal;
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let parts = text.split_once('=');
        let (name, value) = parts.ok_or_else(|| {
            Refusal::invalid("labels", format!("{} is no label: write NAME=VALUE, as in user=42", words::quoted(text)))
        })?;
        Ok(Self(BTreeMap::from([(name.parse()?, value.parse()?)])))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<String> = self.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&labels.join(" "))
    }
}

/// How long a job is kept after its end, with its history and its results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retention {
    /// As long as the operator has set for all jobs.
    #[default]
    Usual,
    /// For so many milliseconds, at least one.
    ForMs(u64),
    /// Until it is deleted.
    UntilDeleted,
}

impl Retention {
    /// Parses the fields `keep_for_ms` and `keep`.
    ///
    /// # Errors
    /// A [`Refusal`] if both are set, or if the time is longer than [`limits::MAX_KEEP_FOR`].
    pub fn from_wire(keep_for_ms: u64, keep: bool) -> Result<Self, Refusal> {
        match (keep_for_ms, keep) {
            (0, false) => Ok(Self::Usual),
            (0, true) => Ok(Self::UntilDeleted),
            (_, true) => {
                Err(Refusal::invalid("keep_for_ms", "a job that is kept until it is deleted is not kept for a time"))
            }
            (ms, false) if Duration::from_millis(ms) <= limits::MAX_KEEP_FOR => Ok(Self::ForMs(ms)),
            (ms, false) => {
                let message =
                    format!("a job is kept for ten years at most, not for {ms} ms: keep it until it is deleted");
                Err(Refusal::invalid("keep_for_ms", message))
            }
        }
    }

    /// The fields `keep_for_ms` and `keep`.
    pub fn to_wire(self) -> (u64, bool) {
        match self {
            Self::Usual => (0, false),
            Self::ForMs(ms) => (ms, false),
            Self::UntilDeleted => (0, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        text.split(' ')
            .fold(Labels::default(), |labels, one| labels.with(one.parse().expect("a label")).expect("few labels"))
    }

    #[test]
    fn a_job_matches_if_it_has_all_labels_that_are_asked_for() {
        let job = labels("user=42 app=shop");
        assert_eq!(job.to_string(), "app=shop user=42");
        assert!(job.include(&labels("user=42")) && job.include(&Labels::default()));
        assert!(!job.include(&labels("user=43")) && !labels("user=42").include(&job));
        let wire = BTreeMap::from(job.clone());
        assert_eq!(Labels::try_from(wire).expect("valid"), job);
    }

    #[test]
    fn labels_that_mean_nothing_or_are_too_many_are_refused() {
        for text in ["user", "=42", "user=", "us er=42", "user=a=b"] {
            assert_eq!(text.parse::<Labels>().expect_err(text).field, "labels");
        }
        let twice = labels("user=42").with(labels("user=43")).expect_err("two values");
        assert!(twice.message.contains("two values"), "{}", twice.message);
        let many: BTreeMap<String, String> = (0..17).map(|n| (format!("l{n}"), "x".to_owned())).collect();
        assert!(Labels::try_from(many).expect_err("too many").message.contains("more than 16"));
    }

    #[test]
    fn a_retention_survives_the_way_over_the_wire_and_one_without_end_is_said_plainly() {
        for retention in [Retention::Usual, Retention::ForMs(1), Retention::UntilDeleted] {
            let (keep_for_ms, keep) = retention.to_wire();
            assert_eq!(Retention::from_wire(keep_for_ms, keep).expect("valid"), retention);
        }
        Retention::from_wire(1, true).expect_err("both");
        Retention::from_wire(u64::MAX, false).expect_err("too long");
    }
}
