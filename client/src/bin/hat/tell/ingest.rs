use sortinghat_client::Client;
use sortinghat_proto::{
    ObjectRef,
    manifest::{DatasetManifest, SplitKind},
    v1::Job,
};

use super::dataset::rejections;
use crate::{
    failure::Failure,
    session::Session,
    show::{dataset, gathered, line::print_lines},
};

/// Tells which classes the dataset has, how large they are, and which files were not used.
pub(super) async fn tell(session: &Session, client: &Client, job: &Job, manifest: &ObjectRef) -> Result<(), Failure> {
    if session.json() {
        return Ok(());
    }
    let name = job.output.as_ref().map(|output| output.name.as_str()).unwrap_or_default();
    let made: DatasetManifest = client.read_document(manifest).await?;
    print_lines(&dataset::lines(name, &made, &rejections(client, &made).await?, &session.show_rejected_command(name)));
    if let Some(how) = &made.gathered {
        print_lines(&gathered::lines(how, &session.show_sources_command(name)));
    }
    // A dataset with folds cannot be learned from before one of them is held out.
    let fold = if matches!(made.split, SplitKind::Folds(_)) { " --fold 0" } else { "" };
    session.hint(&format!("next: `{}`", session.command(&format!("finetune {name}{fold}"))));
    Ok(())
}
