//! The options of every command that submits a job: in which lane the job waits, and what it waits for.

use clap::Args;
use sortinghat_client::Submission;
use sortinghat_proto::{JobSpec, Lane, Requirements, limits::MAX_PRIORITY};

use super::keeping::Keeping;
use crate::{failure::Failure, when::Moment};

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Where and when the job waits")]
pub(crate) struct Waiting {
    /// The lane, interactive or bulk; interactive jobs go first [default: interactive to classify a single photo, else bulk]
    #[arg(long, hide_short_help = true, value_name = "LANE")]
    pub(crate) lane: Option<Lane>,
    /// -10 to 10; each step puts the job before jobs that are up to a minute older
    #[arg(long, hide_short_help = true, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = priority())]
    pub(crate) priority: i32,
    /// What the job's worker must have: device=cuda, memory=16GiB, device-memory=8GiB, label.NAME=VALUE; may be repeated
    #[arg(long = "require", hide_short_help = true, value_name = "KEY=VALUE")]
    pub(crate) requirements: Vec<Requirements>,
    /// Do not start the job before this time: 2026-11-30T08:00:00Z, or counted from now 90s, 15min, 2h, 1day
    #[arg(long, hide_short_help = true, value_name = "TIME")]
    pub(crate) not_before: Option<Moment>,
    /// Stop the job and let it fail if it has not ended by this time
    #[arg(long, hide_short_help = true, value_name = "TIME")]
    pub(crate) deadline: Option<Moment>,
    #[command(flatten)]
    pub(crate) keeping: Keeping,
}

fn priority() -> clap::builder::RangedI64ValueParser<i32> {
    clap::value_parser!(i32).range(-i64::from(MAX_PRIORITY)..=i64::from(MAX_PRIORITY))
}

impl Waiting {
    /// Checks these options, before anything is uploaded, and returns a function that makes the submission of them. The function takes
    /// what the job shall do, and the lane for a job whose options name none.
    pub(crate) fn resolve(&self) -> Result<impl FnOnce(JobSpec, Lane) -> Submission, Failure> {
        let items: Vec<String> = self.requirements.iter().map(ToString::to_string).collect();
        let requirements = items.join(",").parse()?;
        let (lane, priority) = (self.lane, self.priority);
        let (labels, retention) = (self.keeping.labels()?, self.keeping.retention()?);
        let time = |moment: Option<Moment>| moment.map(|moment| moment.0);
        let (not_before, deadline) = (time(self.not_before), time(self.deadline));
        Ok(move |spec, default| Submission {
            lane: lane.unwrap_or(default),
            priority,
            requirements,
            not_before,
            deadline,
            labels,
            retention,
            ..Submission::new(spec)
        })
    }
}
