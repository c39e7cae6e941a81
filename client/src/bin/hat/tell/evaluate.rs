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
    let Some(out) = out else { return Ok(None) };
    let (path, existing) = (out.path(), out.existing());
    let what = match out.content() {
        Content::Measured => {
            client.save_measured(&found.predictions, session.cells(), &path, existing).await?;
            "predictions"
        }
        Content::Report | Content::Predictions(_) => {
            client.save_object(&found.report, &path, existing).await?;
            "report"
        }
    };
    let whole = std::path::absolute(&path).unwrap_or(path);
    if !session.json() {
        print_line(&format!("{what}: {}", whole.display()));
    }
    Ok(Some(whole))
}
