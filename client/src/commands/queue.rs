use sortinghat_proto::v1::Queue as QueueState;

use crate::{
    args::{Queue, QueueCommand},
    exit::Exit,
    failure::Failure,
    session::{Session, print_line},
    show::{
        json,
        numbers::{ago, count, time},
    },
};

pub(super) async fn run(session: &Session, args: Queue) -> Result<Exit, Failure> {
    let client = session.connect().await?;
    let queue = match args.command.unwrap_or(QueueCommand::Show) {
        QueueCommand::Show => client.get_queue().await?,
        QueueCommand::Pause => client.pause_queue().await?,
        QueueCommand::Resume => client.resume_queue().await?,
    };
    match session.json() {
        true => session.print_json(&json::queue(&queue)),
        false => lines(&queue).iter().for_each(|line| print_line(line)),
    }
    Ok(Exit::Ok)
}

fn lines(queue: &QueueState) -> Vec<String> {
    let mut lines = vec![match queue.paused_since_unix_ms {
        0 => "open: jobs start as workers are free".to_owned(),
        since => format!("paused since {}: no job starts until `hat queue resume`", time(since)),
    }];
    lines.extend(queue.counts.iter().map(|c| format!("{:<10} {}", json::state_word(c.state()), count(c.jobs))));
    if queue.oldest_queued_unix_ms != 0 {
        lines.push(format!("the oldest queued job was submitted {}", ago(queue.oldest_queued_unix_ms)));
    }
    if queue.cancellations > 0 {
        lines.push("jobs are being cancelled".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::v1::{JobState, StateCount};

    use super::*;

    #[test]
    fn a_paused_queue_says_so_first_and_how_to_go_on() {
        let counts = vec![StateCount { state: JobState::Queued.into(), jobs: 1234 }];
        let queue = QueueState { counts, paused_since_unix_ms: 1, ..QueueState::default() };
        let lines = lines(&queue);
        assert!(lines[0].starts_with("paused since 1970") && lines[0].contains("hat queue resume"), "{}", lines[0]);
        assert_eq!(lines[1..], ["queued     1,234"]);
    }
}
