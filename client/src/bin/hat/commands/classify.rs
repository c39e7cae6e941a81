use sortinghat_proto::{ClassifySpec, JobKind, JobSpec, Lane, ModelRef, limits::MAX_TOP_K};

use super::{gallery, models, sources};
use crate::{
    args::Classify,
    exit::Exit,
    failure::Failure,
    follow::{self, Followed},
    output::Output,
    session::Session,
    tell,
    unsubmitted::Unsubmitted,
};

pub(super) async fn run(session: &Session, args: Classify) -> Result<Exit, Failure> {
    let submission = args.waiting.resolve()?;
    let model = ModelRef::parse(&args.model, "classify.model")?;
    let out = args.out.map(|path| {
        Output::of_job(JobKind::Classify, "--out", path, args.force)?.with_class_columns(args.class_columns)
    });
    let out = out.transpose()?;
    let gallery = gallery::output(session, args.gallery, args.force)?;
    let unsubmitted = Unsubmitted::begin(session);
    let photos = sources::list_arguments(session, &args.photos, args.links.links())?;
    // Somebody waits for the answer about a single photo.
    let lane = if photos.files.len() == 1 { Lane::Interactive } else { Lane::Bulk };
    let locations = if gallery.is_some() { gallery::locations(&photos) } else { Default::default() };
    let client = session.connect().await?;
    models::check_exists(&client, &model).await?;
    let spec = ClassifySpec {
        model,
        source: sources::upload(session, &client, &photos).await?,
        top_k: if args.class_columns { MAX_TOP_K } else { args.top },
        tta: args.augmentation.tta(),
        seed: args.augmentation.seed,
        precision: args.precision.into(),
    };
    let job = submission(JobSpec::Classify(spec), lane);
    let followed = follow::submit(session, &client, job, unsubmitted, out.as_ref().into()).await?;
    let made = match &followed {
        Followed::Ended { job, .. } => tell::manifest_of(job).ok(),
        Followed::Left(_) => None,
    };
    let exit = tell::finish(session, &client, followed, out.as_ref()).await?;
    if let (Exit::Ok, Some(out), Some(made)) = (exit, gallery, made) {
        gallery::write_predictions(session, &client, &client.read_document(&made).await?, locations, &out).await?;
    }
    Ok(exit)
}
