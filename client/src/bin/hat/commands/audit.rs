use sortinghat_proto::{AuditSpec, Backbone, DatasetRef, JobKind, JobSpec, Lane};

use super::{evaluate, finetune::weights};
use crate::{args::Audit, exit::Exit, failure::Failure, follow, session::Session, tell, unsubmitted::Unsubmitted};

pub(super) async fn run(session: &Session, args: Audit) -> Result<Exit, Failure> {
    let submission = args.waiting.resolve()?;
    let dataset = DatasetRef::parse(&args.dataset, "audit.dataset")?;
    evaluate::refuse_idle_force(args.force, session.detach(), args.report.is_some())?;
    let subject = format!("{}-audit", args.dataset);
    let out = evaluate::report(session, JobKind::Audit, args.report, (&subject, args.force))?;
    let unsubmitted = Unsubmitted::begin(session);
    let client = session.connect().await?;
    let spec = AuditSpec {
        dataset,
        backbone: Backbone::ALL
            .into_iter()
            .find(|backbone| backbone.as_str() == args.backbone)
            .expect("the command line takes these values only"),
        weights: weights(&client, args.weights.as_deref()).await?,
        image_size_px: args.size,
        seed: args.seed,
        precision: args.precision.into(),
    };
    let job = submission(JobSpec::Audit(spec), Lane::Bulk);
    let followed = follow::submit(session, &client, job, unsubmitted, out.as_ref().into()).await?;
    tell::finish(session, &client, followed, out.as_ref()).await
}
