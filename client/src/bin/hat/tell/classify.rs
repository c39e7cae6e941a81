use std::path::Path;

use sortinghat_client::Client;
use sortinghat_proto::{ObjectRef, manifest::PredictionsManifest};

use crate::{
    args::format_of,
    failure::Failure,
    session::Session,
    show::{
        json::tagged,
        line::{print_json, print_line, print_lines},
        prediction::{Summary, row, sentence},
    },
};

/// Tells the class of a single photo in a sentence. Of several photos it prints a line each, or saves them to `out`, and then sums up.
pub(super) async fn tell(
    session: &Session,
    client: &Client,
    manifest: &ObjectRef,
    out: Option<&Path>,
) -> Result<(), Failure> {
    let found: PredictionsManifest = client.read_document(manifest).await?;
    if let Some(path) = out {
        client.save_predictions(&found, format_of(path)?, path).await?;
    }
    let mut summary = Summary::default();
    let (single, listed) = (found.counts.inputs == 1, out.is_none());
    let mut failed = None;
    client
        .for_each_prediction(&found, |prediction| {
            summary.add(&prediction);
            if let Some(error) = prediction.error.as_ref().filter(|_| single) {
                failed = Some(format!("{}: {error}", prediction.path));
            }
            match (session.json(), single) {
                (true, _) if listed => {
                    let row = serde_json::to_value(&prediction).expect("strings and finite numbers");
                    print_json(&tagged("prediction", row));
                }
                (true, _) => {}
                (false, true) if prediction.error.is_none() => print_lines(&sentence(&prediction)),
                (false, true) => {}
                (false, false) if listed => print_line(&row(&prediction)),
                (false, false) => {}
            }
        })
        .await?;
    if let Some(message) = failed {
        return Err(Failure::usage(message));
    }
    let is_answered = session.json() || (single && listed);
    if !is_answered {
        print_lines(&summary.lines(out));
    }
    Ok(())
}
