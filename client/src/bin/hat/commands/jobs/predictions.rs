use std::io::{Stdout, Write as _, stdout};

use sortinghat_client::predictions::{PredictedRows, PredictionsUpdate, RowWriter};
use sortinghat_proto::v1::JobState;

use super::{named_or_newest, say_newest};
use crate::{
    args::{JobsPredictions, RowFormat},
    exit::Exit,
    failure::Failure,
    session::Session,
    show::{
        json::tagged,
        line::{print_json, print_row, printed},
        numbers::counted,
        prediction::row,
    },
};

/// Prints the predictions of a job so far and, with `--follow`, those that come until it ends.
pub(super) async fn run(session: &Session, args: &JobsPredictions) -> Result<Exit, Failure> {
    if args.class_columns && args.format != Some(RowFormat::Csv) {
        return Err(Failure::usage("--class-columns: only --format csv has a column for each class"));
    }
    let client = session.connect().await?;
    let found = named_or_newest(session, &client, args.id.as_deref()).await?;
    say_newest(session, args.id.as_deref(), &found);
    let mut sheet = Sheet::new(session, args);
    let mut watch = client.watch_predictions(&found.id, args.in_order);
    let mut photos = 0;
    let ended = loop {
        match watch.next().await? {
            Some(PredictionsUpdate::Rows(some)) => {
                photos += some.rows.len() as u64;
                sheet.print(&some);
            }
            Some(PredictionsUpdate::UpToDate) if !args.follow => break None,
            Some(PredictionsUpdate::UpToDate | PredictionsUpdate::Interrupted { .. }) => {}
            Some(PredictionsUpdate::Ended(ended)) => break Some(ended.state()),
            None => break None,
        }
    };
    sheet.finish();
    let photos = counted(photos, "photo was", "photos were");
    match ended {
        Some(JobState::Succeeded) => Ok(Exit::Ok),
        Some(_) if args.follow => Err(Failure::of_job(&client.get_job(&found.id).await?)),
        Some(_) => {
            session.hint(&format!("{photos} predicted before the job ended without success"));
            Ok(Exit::Ok)
        }
        None => {
            let go_on = session.command(&format!("jobs predictions {} --follow", found.id));
            session.hint(&format!(
                "{photos} predicted so far, and the job goes on: `{go_on}` prints the others as they come"
            ));
            Ok(Exit::Ok)
        }
    }
}

/// Rows on standard output.
enum Sheet<'a> {
    /// Rows for people, or objects that say what they are.
    Lines(&'a Session),
    Json(RowWriter<Stdout>),
    /// CSV without a header so far: the columns of classes are known when the first rows come.
    CsvToBegin {
        session: &'a Session,
        class_columns: bool,
    },
    Csv(RowWriter<Stdout>),
}

impl<'a> Sheet<'a> {
    fn new(session: &'a Session, args: &JobsPredictions) -> Self {
        match args.format {
            None => Self::Lines(session),
            Some(RowFormat::Jsonl) => Self::Json(RowWriter::json_lines(stdout())),
            Some(RowFormat::Csv) => Self::CsvToBegin { session, class_columns: args.class_columns },
        }
    }

    fn print(&mut self, some: &PredictedRows) {
        if let Self::CsvToBegin { class_columns, .. } = self {
            let classes = if *class_columns { some.classes.as_slice() } else { &[] };
            self.begin(classes);
        }
        match self {
            Self::Lines(session) if session.json() => some.rows.iter().for_each(|prediction| {
                let shown = serde_json::to_value(prediction).expect("strings and finite numbers");
                print_json(&tagged("prediction", shown));
            }),
            Self::Lines(session) => {
                some.rows.iter().for_each(|prediction| print_row(&row(prediction), session.raw()));
            }
            Self::Json(writer) | Self::Csv(writer) => {
                printed(some.rows.iter().try_for_each(|row| writer.write(row)).and_then(|()| writer.flush()));
            }
            Self::CsvToBegin { .. } => unreachable!("it was begun above"),
        }
        // Whoever reads a pipe gets each part as soon as it is there.
        printed(stdout().flush());
    }

    fn begin(&mut self, classes: &[String]) {
        if let Self::CsvToBegin { session, .. } = self {
            *self = Self::Csv(printed(RowWriter::csv(stdout(), session.cells(), classes)));
        }
    }

    /// A table without a row still has its header, although not the columns of classes: nobody has said yet which there are.
    fn finish(mut self) {
        self.begin(&[]);
        if let Self::Csv(writer) = &mut self {
            printed(writer.flush());
        }
    }
}
