use std::path::Path;

use sortinghat_client::Client;
use sortinghat_proto::{ObjectRef, manifest::EvaluationManifest};

use crate::{
    failure::Failure,
    session::Session,
    show::{
        evaluation,
        line::{print_line, print_lines},
    },
};

/// Tells how good the model is, and saves the report to `out`.
pub(super) async fn tell(
    session: &Session,
    client: &Client,
    manifest: &ObjectRef,
    out: Option<&Path>,
) -> Result<(), Failure> {
    let found: EvaluationManifest = client.read_document(manifest).await?;
    if !session.json() {
        print_lines(&evaluation::lines(&found));
    }
    let Some(path) = out else { return Ok(()) };
    client.save_object(&found.report, path).await?;
    if !session.json() {
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        print_line(&format!("report: {}", whole.display()));
    }
    Ok(())
}
