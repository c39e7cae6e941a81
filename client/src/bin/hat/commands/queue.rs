use crate::{
    args::{Queue, QueueCommand},
    exit::Exit,
    failure::Failure,
    session::Session,
    show::{json, numbers::now, queue},
};

pub(super) async fn run(session: &Session, args: Queue) -> Result<Exit, Failure> {
    let tenant = args.tenant.unwrap_or_default();
    let found = match args.command.unwrap_or(QueueCommand::Show) {
        QueueCommand::Show => session.connect().await?.with_tenant(tenant).get_queue().await?,
        QueueCommand::Pause => session.connect_to_change().await?.0.with_tenant(tenant).pause_queue().await?,
        QueueCommand::Resume => session.connect_to_change().await?.0.with_tenant(tenant).resume_queue().await?,
    };
    session.answer(|| json::queue(&found), || queue::lines(&found, &session.command("queue resume"), now()));
    Ok(Exit::Ok)
}
