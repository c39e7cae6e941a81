use sortinghat_proto::{
    Recipe,
    v1::{EpochMetrics, Job, JobSpec, job_spec::Kind},
};

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
    let augmented = if is_fitted(job) { "" } else { " --tta" };
    session.hint(&format!("next: `{}`", session.command(&format!("evaluate {name}{augmented}"))));
}

/// Whether the model is a regression, which averages over views of its own and knows no test-time augmentation.
fn is_fitted(job: &Job) -> bool {
    let kind = job.spec.as_ref().and_then(|spec| spec.kind.as_ref());
    let names = [Recipe::Auto, Recipe::Fast, Recipe::Best].map(|recipe| recipe.as_str());
    matches!(kind, Some(Kind::Finetune(spec)) if names.contains(&spec.recipe.as_str()))
}
