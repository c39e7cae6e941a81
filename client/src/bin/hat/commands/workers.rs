use crate::{
    exit::Exit,
    failure::Failure,
    session::Session,
    show::{
        json,
        line::{print_json, print_table},
        numbers::now,
        worker,
    },
};

pub(super) async fn run(session: &Session) -> Result<Exit, Failure> {
    let workers = session.connect().await?.list_workers().await?;
    if session.json() {
        workers.iter().map(json::worker).for_each(|worker| print_json(&worker));
    } else if workers.is_empty() {
        session.hint(&format!("no worker is running: {}", session.start_worker()));
    } else {
        print_table(&worker::table(workers, now(), session.paper()));
    }
    Ok(Exit::Ok)
}
