use sortinghat_proto::v1::{EpochMetrics, Job, JobSpec};

use crate::{
    session::Session,
    show::{line::print_line, training::headline},
};

/// Tells in one line how good the model is.
pub(super) fn tell(session: &Session, job: &Job, last_epoch: Option<EpochMetrics>) {
    if session.json() {
        return;
    }
    let name = job.output.as_ref().map(|output| output.name.as_str()).unwrap_or_default();
    let dataset = job.spec.as_ref().map_or("", JobSpec::subject);
    print_line(&headline(name, dataset, last_epoch.as_ref()));
    session.hint(&format!("next: {}", session.command(&format!("evaluate {name} --tta"))));
}
