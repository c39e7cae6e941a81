use serde_json::json;
use sortinghat_proto::{DatasetRef, ObjectRef, manifest::DatasetManifest};

use crate::{
    args::{Datasets, DatasetsCommand},
    exit::Exit,
    failure::Failure,
    session::Session,
    show::{
        dataset, gathered, json as to_json,
        line::{print_json, print_line, print_lines, print_row, print_table},
        numbers::time,
    },
    tell::{dataset::rejections, document, gather::sources},
};

pub(super) async fn run(session: &Session, args: Datasets) -> Result<Exit, Failure> {
    match args.command.unwrap_or(DatasetsCommand::List) {
        DatasetsCommand::List => list(session).await,
        DatasetsCommand::Show { name, sources: true, .. } => show_sources(session, &name).await,
        DatasetsCommand::Show { name, rejected, .. } => show(session, &name, rejected).await,
        DatasetsCommand::Rm { name } => {
            DatasetRef::parse(&name, "name")?;
            let (client, server) = session.connect_to_change().await?;
            client.delete_dataset(&name).await?;
            let removed = || json!({ "removed": name, "server": server.url });
            session.answer(removed, || vec![format!("removed the name {name}")]);
            Ok(Exit::Ok)
        }
    }
}

async fn list(session: &Session) -> Result<Exit, Failure> {
    let datasets = session.connect().await?.list_datasets().await?;
    if session.json() {
        datasets.iter().map(to_json::dataset).for_each(|dataset| print_json(&dataset));
    } else if datasets.is_empty() {
        let make = session.command("ingest NAME FOLDER");
        session.hint(&format!("there are no datasets yet: `{make}` makes one"));
    } else {
        print_table(&dataset::table(&datasets, session.paper()));
    }
    Ok(Exit::Ok)
}

/// Lists what was gathered for a dataset, a row for each photo.
async fn show_sources(session: &Session, name: &str) -> Result<Exit, Failure> {
    DatasetRef::parse(name, "name")?;
    let client = session.connect().await?;
    let found = client.get_dataset(name).await?;
    let object: ObjectRef = found.manifest.clone().unwrap_or_default().try_into()?;
    let manifest: DatasetManifest = client.read_document(&object).await?;
    if manifest.gathered.is_none() {
        session.hint(&format!("no photo of {} was gathered from the web", found.name));
    }
    for source in sources(&client, &manifest).await? {
        match session.json() {
            true => print_json(&serde_json::to_value(&source).expect("strings")),
            false => print_row(&gathered::source_row(&source), session.raw()),
        }
    }
    Ok(Exit::Ok)
}

async fn show(session: &Session, name: &str, rejected: bool) -> Result<Exit, Failure> {
    DatasetRef::parse(name, "name")?;
    let client = session.connect().await?;
    let found = client.get_dataset(name).await?;
    let object: ObjectRef = found.manifest.clone().unwrap_or_default().try_into()?;
    let manifest: DatasetManifest = client.read_document(&object).await?;
    if rejected {
        for rejection in rejections(&client, &manifest).await? {
            match session.json() {
                true => print_json(&serde_json::to_value(&rejection).expect("strings")),
                false => print_row(&dataset::rejection_row(&rejection), session.raw()),
            }
        }
    } else if session.json() {
        let mut shown = to_json::dataset(&found);
        shown["manifest"] = document(&client, &object).await?;
        print_json(&shown);
    } else {
        let rejected = rejections(&client, &manifest).await?;
        print_lines(&dataset::lines(&found.name, &manifest, &rejected, &session.show_rejected_command(&found.name)));
        print_lines(&dataset::remarks(&manifest));
        if let Some(how) = &manifest.gathered {
            print_lines(&gathered::lines(how, &session.show_sources_command(&found.name)));
        }
        print_line(&format!("made {} by job {}", time(found.created_unix_ms), found.job_id));
    }
    Ok(Exit::Ok)
}
