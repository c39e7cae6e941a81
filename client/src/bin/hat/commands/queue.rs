use crate::{
    args::{Queue, QueueCommand},
    exit::Exit,
    failure::Failure,
    session::Session,
    show::{json, numbers::now, queue},
};

pub(super) async fn run(session: &Session, args: Queue) -> Result<Exit, Failure> {
    let client = session.connect().await?;
    let found = match args.command.unwrap_or(QueueCommand::Show) {
        QueueCommand::Show => client.get_queue().await?,
        QueueCommand::Pause => client.pause_queue().await?,
        QueueCommand::Resume => client.resume_queue().await?,
    };
    session.answer(|| json::queue(&found), || queue::lines(&found, now()));
    Ok(Exit::Ok)
}
