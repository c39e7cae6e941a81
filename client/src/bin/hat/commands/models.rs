use serde_json::json;
use sortinghat_client::Client;
use sortinghat_proto::{ModelRef, ObjectRef, manifest::ModelManifest};

use crate::{
    args::{Models, ModelsCommand},
    exit::Exit,
    failure::Failure,
    session::Session,
    show::{
        json as to_json,
        line::{print_json, print_table},
        model,
    },
    tell::document,
};

pub(super) async fn run(session: &Session, args: Models) -> Result<Exit, Failure> {
    match args.command.unwrap_or(ModelsCommand::List) {
        ModelsCommand::List => list(session).await,
        ModelsCommand::Show { name } => show(session, &name).await,
        ModelsCommand::Rm { name } => {
            ModelRef::parse(&name, "name")?;
            let (client, server) = session.connect_to_change().await?;
            client.delete_model(&name).await?;
            let removed = || json!({ "removed": name, "server": server.url });
            session.answer(removed, || vec![format!("removed the name {name}")]);
            Ok(Exit::Ok)
        }
    }
}

async fn list(session: &Session) -> Result<Exit, Failure> {
    let models = session.connect().await?.list_models().await?;
    if session.json() {
        models.iter().map(to_json::model).for_each(|model| print_json(&model));
    } else if models.is_empty() {
        let make = session.command("finetune DATASET");
        session.hint(&format!("there are no models yet: `{make}` makes one"));
    } else {
        print_table(&model::table(&models, session.paper()));
    }
    Ok(Exit::Ok)
}

async fn show(session: &Session, name: &str) -> Result<Exit, Failure> {
    ModelRef::parse(name, "name")?;
    let client = session.connect().await?;
    let found = client.get_model(name).await?;
    let object: ObjectRef = found.manifest.clone().unwrap_or_default().try_into()?;
    if session.json() {
        let mut shown = to_json::model(&found);
        shown["manifest"] = document(&client, &object).await?;
        print_json(&shown);
    } else {
        let manifest: ModelManifest = client.read_document(&object).await?;
        print_table(&model::lines(&found, &manifest, session.paper()));
    }
    Ok(Exit::Ok)
}

/// Refuses a model that does not exist, before photos are uploaded for it.
pub(super) async fn check_exists(client: &Client, model: &ModelRef) -> Result<(), Failure> {
    match model {
        // The job that makes this model may not have ended yet.
        ModelRef::Job(_) => Ok(()),
        ModelRef::Newest(_) | ModelRef::Version(_) => Ok(client.get_model(&model.to_string()).await.map(drop)?),
    }
}
