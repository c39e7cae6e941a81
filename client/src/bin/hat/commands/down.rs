use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::{exit::Exit, failure::Failure, local::record::Record, session::Session};

/// The worker and then the coordinator drain within 30 s each, or are killed.
const PATIENCE: Duration = Duration::from_secs(75);
const CHILD_PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(session: &Session) -> Result<Exit, Failure> {
    let data_dir = session.own_data_dir()?;
    let Some(record) = Record::read(&data_dir) else {
        session.hint(&format!("nothing is running in {}", data_dir.path().display()));
        return Ok(Exit::Ok);
    };
    // The process id alone could belong to another process by now.
    if record.is_alive() {
        session.hint(&format!("stopping process {} ...", record.hat.pid));
        record.hat.signal(Signal::SIGTERM);
        if !record.hat.ends_within(PATIENCE).await {
            let logs = data_dir.logs();
            return Err(Failure::local(format!(
                "process {} does not stop: see the logs in {}",
                record.hat.pid,
                logs.display()
            )));
        }
    }
    // A `hat up` that was killed leaves these processes behind. The worker is stopped first.
    for child in record.children.iter().rev() {
        child.stop(CHILD_PATIENCE).await;
    }
    Record::remove(&data_dir)?;
    session.answer(|| json!({ "stopped": record.url }), || vec![format!("stopped {}", record.url)]);
    Ok(Exit::Ok)
}
