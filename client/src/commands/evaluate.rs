use std::path::{Path, PathBuf};

use sortinghat_client::Client;
use sortinghat_proto::{
    DatasetRef, EvaluateOn, EvaluateSpec, JobSpec, Lane, ModelRef, ObjectRef, Tta, TtaRecipe,
    manifest::{self, Decisions, EvaluationManifest},
};

use super::{result, sources};
use crate::{
    args::{Evaluate, TtaArg},
    exit::Exit,
    failure::Failure,
    follow,
    session::{Session, print_line},
    show::evaluation,
};

const DEFAULT_PASSES: u32 = 4;

pub(super) async fn run(session: &Session, args: Evaluate) -> Result<Exit, Failure> {
    let submission = args.waiting.resolve()?;
    let model = ModelRef::parse(&args.model, "evaluate.model")?;
    let decisions = args.decisions.as_deref().map(read_decisions).transpose()?;
    let client = session.connect().await?;
    check_model(&client, &model).await?;
    let spec = EvaluateSpec {
        on: on(session, &client, args.on.as_deref()).await?,
        tta: tta(args.tta, args.passes),
        seed: args.seed,
        decisions: match decisions {
            Some(bytes) => Some(client.upload_bytes(bytes.into()).await?),
            None => None,
        },
        precision: args.precision.into(),
        model,
    };
    let report = args.report.unwrap_or_else(|| default_report(&args.model));
    let followed = follow::submit(session, &client, submission(JobSpec::Evaluate(spec), Lane::Bulk)).await?;
    result::finish(session, &client, followed, Some(&report)).await
}

/// The augmentation that was asked for.
pub(super) fn tta(recipe: Option<TtaArg>, passes: Option<u32>) -> Option<Tta> {
    let recipe = match recipe? {
        TtaArg::Fastai2 => TtaRecipe::Fastai2,
        TtaArg::Fastai07 => TtaRecipe::Fastai07,
        TtaArg::Max => TtaRecipe::Max,
    };
    Some(Tta { recipe, passes: passes.unwrap_or(DEFAULT_PASSES) })
}

/// Says that there is no such model before photos are uploaded for it.
pub(super) async fn check_model(client: &Client, model: &ModelRef) -> Result<(), Failure> {
    match model {
        ModelRef::Job(_) => Ok(()),
        ModelRef::Newest(_) | ModelRef::Version(_) => Ok(client.get_model(&model.to_string()).await.map(drop)?),
    }
}

/// A folder, a dataset, or what was held out.
async fn on(session: &Session, client: &Client, on: Option<&str>) -> Result<EvaluateOn, Failure> {
    let Some(on) = on else { return Ok(EvaluateOn::HeldOut) };
    let path = Path::new(on);
    if path.is_dir() {
        return Ok(EvaluateOn::Source(sources::upload_folder(session, client, path).await?));
    }
    if on.starts_with(['.', '/', '~']) {
        return Err(Failure::usage(format!("--on {on}: there is no such folder")));
    }
    Ok(EvaluateOn::Dataset(DatasetRef::parse(on, "evaluate.dataset")?))
}

/// Checks the file here, where its name can be said.
fn read_decisions(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = std::fs::read(path).map_err(|error| {
        Failure::usage(format!(
            "--decisions {}: {error}; the report of `hat evaluate` saves such a file",
            path.display()
        ))
    })?;
    match manifest::decode::<Decisions>(&bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Failure::usage(format!(
            "--decisions {}: {error}; use the file that the report of `hat evaluate` saves",
            path.display()
        ))),
    }
}

/// "stamps-1-report.html" here, for the model stamps/1.
fn default_report(model: &str) -> PathBuf {
    let name: String = model.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    format!("{name}-report.html").into()
}

/// How good the model is, in words; saves the report to `out`.
pub(super) async fn tell(
    session: &Session,
    client: &Client,
    manifest: &ObjectRef,
    out: Option<&Path>,
) -> Result<(), Failure> {
    let found: EvaluationManifest = client.read_document(manifest).await?;
    if !session.json() {
        evaluation::words(&found).iter().for_each(|line| print_line(line));
    }
    let Some(path) = out else { return Ok(()) };
    client.save_object(&found.report, path).await?;
    if !session.json() {
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        print_line(&format!("report: {}", whole.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_lies_here_whatever_the_model_is_called() {
        assert_eq!(default_report("stamps/1"), PathBuf::from("stamps-1-report.html"));
        assert_eq!(default_report("job:../x"), PathBuf::from("job----x-report.html"));
    }

    #[test]
    fn a_file_that_is_no_decisions_file_is_refused_before_it_is_uploaded() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("decisions.json");
        assert_eq!(read_decisions(&path).expect_err("missing").exit(), Exit::Usage);
        std::fs::write(&path, b"[]").expect("writable");
        assert_eq!(read_decisions(&path).expect_err("no decisions").exit(), Exit::Usage);
        std::fs::write(&path, manifest::encode(&Decisions { decisions: vec![] })).expect("writable");
        assert!(read_decisions(&path).is_ok());
    }
}
