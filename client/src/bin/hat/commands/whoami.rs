use crate::{
    exit::Exit,
    failure::Failure,
    session::Session,
    show::{identity, json},
};

pub(super) async fn run(session: &Session) -> Result<Exit, Failure> {
    let identity = session.connect().await?.who_am_i().await?;
    session.answer(|| json::identity(&identity), || identity::lines(&identity));
    Ok(Exit::Ok)
}
