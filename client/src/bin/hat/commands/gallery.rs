//! Pages that show photos by class.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use sortinghat_client::{Client, folder::Listing};
use sortinghat_proto::manifest::PredictionsManifest;

use crate::{
    failure::Failure,
    gallery::{Card, Gallery},
    output::Output,
    session::Session,
    show::line::print_line,
};

/// The file that `--gallery` names, if it does. A command that does not wait for the predictions has nothing to show.
pub(super) fn output(session: &Session, path: Option<PathBuf>, force: bool) -> Result<Option<Output>, Failure> {
    let output = path.map(|path| Output::gallery(path, force)).transpose()?;
    match output.is_some() && session.detach() {
        true => Err(Failure::usage(
            "--gallery has no effect with --detach, which does not wait for photos to be classified",
        )),
        false => Ok(output),
    }
}

/// Where photos lie, by the paths that results name. One in an archive is nowhere.
pub(super) fn locations(photos: &Listing) -> HashMap<String, PathBuf> {
    let plain = photos.files.iter().filter(|file| file.packed.is_none());
    plain.map(|file| (file.shown.clone().unwrap_or_else(|| file.path.clone()), file.location.clone())).collect()
}

/// Writes a page of the photos that a job has classified.
pub(super) async fn write_predictions(
    session: &Session,
    client: &Client,
    found: &PredictionsManifest,
    mut locations: HashMap<String, PathBuf>,
    out: &Output,
) -> Result<(), Failure> {
    let mut gallery = Gallery { model: found.model.clone(), ..Gallery::default() };
    let add = |prediction: sortinghat_client::predictions::Prediction| {
        let path = prediction.path;
        match (prediction.predicted, prediction.probability) {
            (Some(group), Some(probability)) => {
                gallery.photos.push(Card { location: locations.remove(&path), path, group, probability });
            }
            _ => gallery.errors.push((path, prediction.error.unwrap_or_default())),
        }
    };
    client.for_each_prediction(found, add).await?;
    write(session, &gallery, out)
}

/// Writes a page, and says where it is.
pub(super) fn write(session: &Session, gallery: &Gallery, out: &Output) -> Result<(), Failure> {
    let path = out.write(|folder: &Path| gallery.page(folder))?;
    if !session.json() {
        print_line(&format!("gallery: {}", path.display()));
    }
    Ok(())
}
