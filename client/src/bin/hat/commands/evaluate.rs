use std::path::{Path, PathBuf};

use sortinghat_client::{Client, folder::Links};
use sortinghat_proto::{
    DatasetRef, EvaluateOn, EvaluateSpec, JobKind, JobSpec, Lane, ModelRef,
    manifest::{self, Decisions},
};

use super::{
    models,
    sources::{self, Labelled},
};
use crate::{
    args::Evaluate,
    exit::Exit,
    failure::Failure,
    follow,
    output::{Content, Output},
    session::Session,
    tell,
    unsubmitted::Unsubmitted,
};

pub(super) async fn run(session: &Session, args: Evaluate) -> Result<Exit, Failure> {
    let submission = args.waiting.resolve()?;
    let model = ModelRef::parse(&args.model, "evaluate.model")?;
    let on = On::parse(args.on.as_deref())?;
    refuse_ignored(&args, &on, session.detach())?;
    let decisions = args.decisions.as_deref().map(read_decisions).transpose()?;
    let out = report(session, JobKind::Evaluate, args.report, (&args.model, args.force))?;
    let unsubmitted = Unsubmitted::begin(session);
    let client = session.connect().await?;
    models::check_exists(&client, &model).await?;
    let spec = EvaluateSpec {
        on: on.resolve(session, &client, args.links.links()).await?,
        tta: args.augmentation.tta(),
        seed: args.augmentation.seed,
        decisions: match decisions {
            Some(bytes) => Some(client.upload_bytes(bytes.into()).await?),
            None => None,
        },
        precision: args.precision.into(),
        model,
    };
    let job = submission(JobSpec::Evaluate(spec), Lane::Bulk);
    let followed = follow::submit(session, &client, job, unsubmitted, out.as_ref().into()).await?;
    tell::finish(session, &client, followed, out.as_ref()).await
}

/// Where to save the report about `subject`; `None` if no path is named and this process ends before there is a report.
pub(super) fn report(
    session: &Session,
    kind: JobKind,
    named: Option<PathBuf>,
    (subject, force): (&str, bool),
) -> Result<Option<Output>, Failure> {
    let Some(path) = named else {
        return (!session.detach()).then(|| Output::report_of(subject, force)).transpose();
    };
    if Content::of(kind, &path)? != Content::Report {
        let table = if kind == JobKind::Audit { "labels" } else { "predictions" };
        return Err(Failure::usage(format!(
            "the report cannot be written to {}: end its name in .html; `hat jobs watch ID --out FILE.csv` writes the {table}",
            path.display()
        )));
    }
    Output::of_job(kind, "--report", path, force).map(Some)
}

/// What `--on` names.
enum On {
    /// Nothing: the photos that training held out.
    HeldOut,
    /// A folder, an archive or a list of paths, which is uploaded.
    Folder(PathBuf),
    /// The held-out photos of a dataset.
    Dataset(DatasetRef),
}

impl On {
    fn parse(named: Option<&str>) -> Result<Self, Failure> {
        let Some(named) = named else { return Ok(Self::HeldOut) };
        if sources::is_source(Path::new(named)) {
            return Ok(Self::Folder(named.into()));
        }
        if named.starts_with(['.', '/', '~']) {
            return Err(Failure::usage(format!("--on {named}: there is no such folder")));
        }
        Ok(Self::Dataset(DatasetRef::parse(named, "evaluate.dataset")?))
    }

    /// What the job measures on. A folder is uploaded.
    async fn resolve(self, session: &Session, client: &Client, links: Links) -> Result<EvaluateOn, Failure> {
        Ok(match self {
            Self::HeldOut => EvaluateOn::HeldOut,
            Self::Dataset(dataset) => EvaluateOn::Dataset(dataset),
            Self::Folder(folder) => {
                let Labelled { listing, .. } = sources::list_labelled(session, &folder, links)?;
                EvaluateOn::Source(sources::upload(session, client, &listing).await?)
            }
        })
    }
}

/// Refuses options that would be ignored.
fn refuse_ignored(args: &Evaluate, on: &On, detach: bool) -> Result<(), Failure> {
    if args.links.links() == Links::Everywhere && !matches!(on, On::Folder(_)) {
        return Err(Failure::usage("--follow-links has no effect without --on DIR: leave it out, or name a folder"));
    }
    refuse_idle_force(args.force, detach, args.report.is_some())
}

/// Refuses `--force` where no report will be saved.
pub(super) fn refuse_idle_force(force: bool, detach: bool, is_named: bool) -> Result<(), Failure> {
    if force && detach && !is_named {
        return Err(Failure::usage(
            "--force has no effect with --detach unless --report names the file: leave out --force, or name the file",
        ));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

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
