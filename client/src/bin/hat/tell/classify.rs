use std::path::PathBuf;

use sortinghat_client::Client;
use sortinghat_proto::{ObjectRef, manifest::PredictionsManifest, v1::Job};

use crate::{
    failure::Failure,
    output::{Aim, Content, Output},
    session::Session,
    show::{
        json::tagged,
        line::{print_json, print_lines, print_row},
        prediction::{Summary, row, sentence},
    },
};

/// Tells the class of a single photo in a sentence. Of several photos it prints a line each, or saves them to `out`, sums up, and says how
/// they are sorted by that.
/// Nothing is saved if no file could be used. Returns the path of the saved file.
///
/// # Errors
/// [`Failure::Usage`] if no file could be used, besides what reading and saving return.
pub(super) async fn tell(
    session: &Session,
    client: &Client,
    job: &Job,
    manifest: &ObjectRef,
    out: Option<&Output>,
) -> Result<Option<PathBuf>, Failure> {
    let found: PredictionsManifest = client.read_document(manifest).await?;
    let mut summary = Summary::default();
    let (single, listed) = (found.counts.inputs == 1, out.is_none());
    client
        .for_each_prediction(&found, |prediction| {
            summary.add(&prediction);
            match (session.json(), single) {
                (true, _) if listed => {
                    let row = serde_json::to_value(&prediction).expect("strings and finite numbers");
                    print_json(&tagged("prediction", row));
                }
                (true, _) => {}
                (false, true) if prediction.error.is_none() => print_lines(&sentence(&prediction, &found.model)),
                (false, true) => {}
                (false, false) if listed => print_row(&row(&prediction), session.raw()),
                (false, false) => {}
            }
        })
        .await?;
    if let Some(message) = summary.nothing_usable() {
        return Err(Failure::usage(message));
    }
    let saved = save(session, client, &found, out).await?;
    let is_answered = session.json() || (single && listed);
    if !is_answered {
        print_lines(&summary.lines(&found.model, saved.as_deref()));
        let sort = session.way_back(&job.id, Aim::Sort("DIR --into OUT"));
        session.hint(&format!("`{sort}` puts the photos of DIR into a folder for each class"));
    }
    Ok(saved.map(|path| std::path::absolute(&path).unwrap_or(path)))
}

/// Saves all predictions to `out`, if that is named.
async fn save(
    session: &Session,
    client: &Client,
    found: &PredictionsManifest,
    out: Option<&Output>,
) -> Result<Option<PathBuf>, Failure> {
    let Some((out, Content::Predictions(format))) = out.map(|out| (out, out.content())) else { return Ok(None) };
    let path = out.path();
    client.save_predictions(found, out.style(format, session.cells()), &path, out.existing()).await?;
    Ok(Some(path))
}
