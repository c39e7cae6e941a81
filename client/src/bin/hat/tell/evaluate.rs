use std::path::PathBuf;

use sortinghat_client::Client;
use sortinghat_proto::{ObjectRef, manifest::EvaluationManifest};

use crate::{
    failure::Failure,
    output::{Content, Output},
    session::Session,
    show::{
        evaluation,
        line::{print_line, print_lines},
    },
};

/// Tells how good the model is, and saves the report or the predictions to `out`. Returns the path of the saved file.
pub(super) async fn tell(
    session: &Session,
    client: &Client,
    manifest: &ObjectRef,
    out: Option<&Output>,
) -> Result<Option<PathBuf>, Failure> {
    let found: EvaluationManifest = client.read_document(manifest).await?;
    if !session.json() {
        print_lines(&evaluation::lines(&found));
    }
    save(session, client, Files { report: &found.report, table: ("predictions", &found.predictions) }, out).await
}

/// The files of a job that has a report.
pub(super) struct Files<'a> {
    pub(super) report: &'a ObjectRef,
    /// A table behind the report, with the word for what its rows are.
    pub(super) table: (&'static str, &'a ObjectRef),
}

/// Saves the report or the table to `out`, as that asks. Returns the path of the saved file.
pub(super) async fn save(
    session: &Session,
    client: &Client,
    files: Files<'_>,
    out: Option<&Output>,
) -> Result<Option<PathBuf>, Failure> {
    let Some(out) = out else { return Ok(None) };
    let (path, existing) = (out.path(), out.existing());
    let what = match out.content() {
        Content::Measured => {
            let (rows, table) = files.table;
            client.save_measured(table, session.cells(), &path, existing).await?;
            rows
        }
        Content::Report | Content::Predictions(_) => {
            client.save_object(files.report, &path, existing).await?;
            "report"
        }
    };
    let whole = std::path::absolute(&path).unwrap_or(path);
    if !session.json() {
        print_line(&format!("{what}: {}", whole.display()));
    }
    Ok(Some(whole))
}
