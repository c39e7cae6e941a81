use std::path::PathBuf;

use sortinghat_client::Client;
use sortinghat_proto::{ObjectRef, manifest::AuditManifest};

use super::evaluate::{Files, save};
use crate::{
    failure::Failure,
    output::Output,
    session::Session,
    show::{audit, line::print_lines},
};

/// Tells which labels look wrong, and saves the page or all labels to `out`. Returns the path of the saved file.
pub(super) async fn tell(
    session: &Session,
    client: &Client,
    manifest: &ObjectRef,
    out: Option<&Output>,
) -> Result<Option<PathBuf>, Failure> {
    let found: AuditManifest = client.read_document(manifest).await?;
    if !session.json() {
        print_lines(&audit::lines(&found.findings));
    }
    save(session, client, Files { report: &found.report, table: ("labels", &found.labels) }, out).await
}
