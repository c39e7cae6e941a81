use sortinghat_proto::{ClassifySpec, JobSpec, Lane, ModelRef};

use super::{models, sources};
use crate::{
    args::{Classify, format_of},
    exit::Exit,
    failure::Failure,
    follow,
    session::Session,
    tell,
};

pub(super) async fn run(session: &Session, args: Classify) -> Result<Exit, Failure> {
    let submission = args.waiting.resolve()?;
    let model = ModelRef::parse(&args.model, "classify.model")?;
    args.out.as_deref().map(format_of).transpose()?;
    let photos = sources::list_arguments(session, &args.photos, args.links.links())?;
    // Somebody waits for the answer about a single photo.
    let lane = if photos.files.len() == 1 { Lane::Interactive } else { Lane::Bulk };
    let client = session.connect().await?;
    models::check_exists(&client, &model).await?;
    let spec = ClassifySpec {
        model,
        source: sources::upload(session, &client, &photos).await?,
        top_k: args.top,
        tta: args.augmentation.tta(),
        seed: args.augmentation.seed,
        precision: args.precision.into(),
    };
    let followed = follow::submit(session, &client, submission(JobSpec::Classify(spec), lane)).await?;
    tell::finish(session, &client, followed, args.out.as_deref()).await
}
