use std::path::{Path, PathBuf};

use sortinghat_client::{Client, folder::Links};
use sortinghat_proto::{
    DatasetRef, EvaluateOn, EvaluateSpec, JobSpec, Lane, ModelRef,
    manifest::{self, Decisions},
};

use super::{models, sources};
use crate::{args::Evaluate, exit::Exit, failure::Failure, follow, session::Session, tell};

pub(super) async fn run(session: &Session, args: Evaluate) -> Result<Exit, Failure> {
    let submission = args.waiting.resolve()?;
    let model = ModelRef::parse(&args.model, "evaluate.model")?;
    let decisions = args.decisions.as_deref().map(read_decisions).transpose()?;
    let client = session.connect().await?;
    models::check_exists(&client, &model).await?;
    let spec = EvaluateSpec {
        on: on(session, &client, args.on.as_deref(), args.links.links()).await?,
        tta: args.augmentation.tta(),
        seed: args.augmentation.seed,
        decisions: match decisions {
            Some(bytes) => Some(client.upload_bytes(bytes.into()).await?),
            None => None,
        },
        precision: args.precision.into(),
        model,
    };
    let report = args.report.unwrap_or_else(|| default_report(&args.model));
    let followed = follow::submit(session, &client, submission(JobSpec::Evaluate(spec), Lane::Bulk)).await?;
    tell::finish(session, &client, followed, Some(&report)).await
}

/// What to measure on: a folder, which is uploaded, the held-out photos of a dataset, or those that training held out.
async fn on(session: &Session, client: &Client, on: Option<&str>, links: Links) -> Result<EvaluateOn, Failure> {
    let Some(on) = on else { return Ok(EvaluateOn::HeldOut) };
    let path = Path::new(on);
    if path.is_dir() {
        let listing = sources::list_folder(session, path, links)?;
        return Ok(EvaluateOn::Source(sources::upload(session, client, &listing).await?));
    }
    if on.starts_with(['.', '/', '~']) {
        return Err(Failure::usage(format!("--on {on}: there is no such folder")));
    }
    Ok(EvaluateOn::Dataset(DatasetRef::parse(on, "evaluate.dataset")?))
}

/// Reads the file of decisions and checks it here, because only here an error can name the file.
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

/// The report of the model stamps/1 is "stamps-1-report.html" in the current folder.
fn default_report(model: &str) -> PathBuf {
    let name: String = model.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    format!("{name}-report.html").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_saved_in_the_current_folder_whatever_the_model_is_called() {
        assert_eq!(default_report("stamps/1"), PathBuf::from("stamps-1-report.html"));
        assert_eq!(default_report("job:../x"), PathBuf::from("job----x-report.html"));
    }

    #[test]
    fn a_file_that_holds_no_decisions_is_refused_before_it_is_uploaded() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("decisions.json");
        assert_eq!(read_decisions(&path).expect_err("missing").exit(), Exit::Usage);
        std::fs::write(&path, b"[]").expect("writable");
        assert_eq!(read_decisions(&path).expect_err("no decisions").exit(), Exit::Usage);
        std::fs::write(&path, manifest::encode(&Decisions { decisions: vec![] })).expect("writable");
        assert!(read_decisions(&path).is_ok());
    }
}
