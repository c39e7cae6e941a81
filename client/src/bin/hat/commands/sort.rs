use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use sortinghat_client::{Client, folder::Listing};
use sortinghat_proto::{
    ClassifySpec, JobKind, JobSpec, Lane, ModelRef,
    manifest::{PredictionsManifest, UploadManifest},
    v1::Job,
};

use super::{gallery, models, sources};
use crate::{
    args::{Sort, SortBy, SortInto, SortTask},
    exit::Exit,
    failure::Failure,
    follow::{self, FilesBar, Followed},
    gallery::{Card, Gallery},
    output::Aim,
    session::Session,
    shell,
    show::{
        job,
        json::{self, tagged},
        line::{print_json, print_lines},
        sorting::{Taken, Tally, left_json, step_json},
    },
    sorting::{self, Folders, Goal, Mode, Photo, Plan, Step, Told, Verdict},
    tell,
    unsubmitted::Unsubmitted,
};

/// What was found in the folder before its photos were uploaded.
#[derive(Default)]
struct Listed {
    /// When each file was changed last, in nanoseconds since 1970, by its path in the folder.
    modified_ns: HashMap<String, i64>,
    /// Photos that were sorted before, and are not classified again.
    sorted_before: u64,
}

pub(super) async fn run(session: &Session, args: Sort) -> Result<Exit, Failure> {
    match args.task()? {
        SortTask::Undo(into) => undo(session, &into),
        SortTask::Into(task) => sort(session, *task).await,
    }
}

async fn sort(session: &Session, mut task: SortInto) -> Result<Exit, Failure> {
    let gallery = gallery::output(session, task.gallery.take(), task.force)?;
    let folders = Folders::check(&task.dir, &task.into, task.dry_run)?;
    let options = options(&task);
    let aim = Aim::Sort(&options);
    let (client, followed, listed) = match &task.by {
        SortBy::Job(id) => {
            let client = session.connect().await?;
            let found = client.find_job(id).await?;
            refuse_other_kinds(&found)?;
            let followed = follow::follow(session, &client, found, aim).await?;
            (client, followed, Listed::default())
        }
        SortBy::Model(model) => match classify(session, &task, model, &folders, aim).await? {
            Some(classified) => classified,
            None => return Ok(Exit::Ok),
        },
    };
    let ended = match followed {
        Followed::Left(exit) => return Ok(exit),
        Followed::Ended { job, .. } => tell::succeeded(session, job)?,
    };
    let next = session.way_back(&ended.id, aim);
    let mut shown = Gallery::default();
    let sorted = put_into_folders(session, &client, &task, &folders, &ended, listed, &mut shown).await;
    let sorted = match gallery.filter(|_| sorted.is_ok()) {
        Some(out) => gallery::write(session, &shown, &out).and(sorted),
        None => sorted,
    };
    sorted.map_err(|failure| failure.of_result(format!("`{next}` goes on with its result")))
}

/// The words that go on with a job of this task, behind its id.
fn options(task: &SortInto) -> String {
    let mut words = format!("{} --into {}", shell::word(&task.dir), shell::word(&task.into));
    if task.mode != Mode::default() {
        words += &format!(" --mode {}", task.mode.as_str());
    }
    if task.min_probability > 0.0 {
        words += &format!(" --min-probability {}", task.min_probability);
    }
    if task.dry_run {
        words += " --dry-run";
    }
    words
}

fn refuse_other_kinds(found: &Job) -> Result<(), Failure> {
    match job::kind(found) {
        Some(JobKind::Classify) => Ok(()),
        _ => Err(Failure::usage(format!(
            "job {} is no classify: name one that `hat jobs --kind classify` lists",
            found.id
        ))),
    }
}

/// Lets a worker classify the photos that were not sorted before, and follows that. `None` if there are no such photos.
async fn classify(
    session: &Session,
    task: &SortInto,
    model: &str,
    folders: &Folders,
    aim: Aim<'_>,
) -> Result<Option<(Client, Followed, Listed)>, Failure> {
    let submission = task.waiting.resolve()?;
    let model = ModelRef::parse(model, "classify.model")?;
    let unsubmitted = Unsubmitted::begin(session);
    let (photos, sorted_before) = sources::list_unsorted(session, &task.dir, folders, task.links.links())?;
    if photos.files.is_empty() {
        let tally = Tally::of_sorted(sorted_before);
        session.answer(|| tagged("result", tally.json()), || vec![tally.nothing_new(&task.into)]);
        return Ok(None);
    }
    let listed = Listed { modified_ns: modified_ns(&photos), sorted_before };
    let client = session.connect().await?;
    models::check_exists(&client, &model).await?;
    let spec = ClassifySpec {
        model,
        source: sources::upload(session, &client, &photos).await?,
        top_k: 5,
        tta: task.augmentation.tta(),
        seed: task.augmentation.seed,
        precision: task.precision.into(),
    };
    let job = submission(JobSpec::Classify(spec), Lane::Bulk);
    let followed = follow::submit(session, &client, job, unsubmitted, aim).await?;
    Ok(Some((client, followed, listed)))
}

fn modified_ns(photos: &Listing) -> HashMap<String, i64> {
    let of = |file: &sortinghat_client::SourceFile| Some((file.path.clone(), sorting::modified_ns(&file.location)?));
    photos.files.iter().filter_map(of).collect()
}

async fn put_into_folders(
    session: &Session,
    client: &Client,
    task: &SortInto,
    folders: &Folders,
    job: &Job,
    listed: Listed,
    shown: &mut Gallery,
) -> Result<Exit, Failure> {
    let found: PredictionsManifest = client.read_document(&tell::manifest_of(job)?).await?;
    let photos = photos(client, &found, listed.modified_ns).await?;
    let goal = Goal {
        model: found.model,
        job: job.id.clone(),
        classes: found.classes,
        mode: task.mode,
        min_probability: task.min_probability,
    };
    shown.model.clone_from(&goal.model);
    let mut plan = sorting::plan(folders, photos, &goal);
    plan.sorted_before += listed.sorted_before;
    let mut tally = Tally::of(&plan);
    if plan.steps.is_empty() || task.dry_run {
        plan.steps.iter().for_each(|step| tally.add(step));
        plan.left.iter().for_each(|(path, why)| tell_left(session, &mut tally, path, why));
        shown.photos.extend(plan.steps.iter().map(|step| card(step, folders.origin(step))));
        shown.errors.clone_from(&plan.left);
        if let Some(message) = tally.nothing_usable() {
            return Err(Failure::usage(message));
        }
        tell_plan(session, task, job, &goal, &plan, &tally);
        return Ok(Exit::Ok);
    }
    let stop = stop_at_ctrl_c();
    let bar = FilesBar::new(session);
    let total = (plan.steps.len() + plan.left.len()) as u64;
    let tell = |told: Told| {
        match told {
            Told::Placed(step) => {
                tally.add(step);
                shown.photos.push(card(step, folders.target(step)));
                if session.json() {
                    print_json(&step_json("sorted", step, task.mode));
                }
            }
            Told::Left { path, why } => {
                shown.errors.push((path.to_owned(), why.to_owned()));
                tell_left(session, &mut tally, path, why);
            }
        }
        bar.show("sorting", tally.photos() + tally.left(), total);
    };
    let is_finished = tokio::task::block_in_place(|| sorting::perform(folders, &mut plan, task.mode, &stop, tell))?;
    drop(bar);
    let lines = || tally.lines(&task.into, task.mode.done(), &goal.model, &[]);
    session.answer(|| result(job, &tally), lines);
    let undo = session.command(&format!("sort --undo {}", shell::word(&task.into)));
    if is_finished {
        session.hint(&format!("`{undo}` takes that back"));
        return Ok(Exit::Ok);
    }
    let next = session.way_back(&job.id, Aim::Sort(&options(task)));
    session.hint(&format!("interrupted: `{next}` goes on, `{undo}` takes back what was done"));
    Ok(Exit::Detached)
}

fn card(step: &Step, location: PathBuf) -> Card {
    let probability = step.verdict.probability;
    Card { path: step.path.clone(), location: Some(location), group: step.folder.clone(), probability }
}

/// The photos of the upload with what the model says of them, in their order.
async fn photos(
    client: &Client,
    found: &PredictionsManifest,
    mut modified_ns: HashMap<String, i64>,
) -> Result<Vec<Photo>, Failure> {
    let upload: UploadManifest = client.read_document(&found.source).await?;
    let (mut files, mut photos) = (upload.files.into_iter(), Vec::new());
    let mut stray = None;
    let add = |prediction: sortinghat_client::predictions::Prediction| {
        let file = files.next().filter(|file| file.shown() == prediction.path);
        let Some(file) = file else {
            stray.get_or_insert(prediction.path);
            return;
        };
        let verdict = match (prediction.predicted, prediction.probability) {
            (Some(class), Some(probability)) => {
                Ok(Verdict { class, probability, unlike: prediction.unlike == Some(true) })
            }
            _ => Err(prediction.error.unwrap_or_else(|| "there is no prediction for it".to_owned())),
        };
        let path = prediction.path;
        photos.push(Photo { modified_ns: modified_ns.remove(&path), path, content: file.object, verdict });
    };
    client.for_each_prediction(found, add).await?;
    match stray {
        None => Ok(photos),
        Some(path) => Err(Failure::local(format!(
            "the predictions are not those of the upload, beginning with {path}: nothing was sorted"
        ))),
    }
}

fn tell_left(session: &Session, tally: &mut Tally, path: &str, why: &str) {
    tally.leave(path, why);
    if session.json() {
        print_json(&left_json(path, why));
    }
}

fn result(job: &Job, tally: &Tally) -> serde_json::Value {
    let mut result = tagged("result", json::job(job));
    result["sorting"] = tally.json();
    result
}

/// Tells what would be done, or that there is nothing to do.
fn tell_plan(session: &Session, task: &SortInto, job: &Job, goal: &Goal, plan: &Plan, tally: &Tally) {
    if session.json() {
        plan.steps.iter().for_each(|step| print_json(&step_json("planned", step, task.mode)));
        print_json(&result(job, tally));
        return;
    }
    let done = if task.dry_run { format!("would be {}", task.mode.done()) } else { task.mode.done().to_owned() };
    print_lines(&tally.lines(&task.into, &done, &goal.model, &plan.steps));
    if !plan.steps.is_empty() {
        let options = options(task);
        let words = options.trim_end_matches(" --dry-run");
        let next = session.way_back(&job.id, Aim::Sort(words));
        session.hint(&format!("nothing was changed: `{next}` does it"));
    }
}

/// A flag that Ctrl-C sets from now on.
fn stop_at_ctrl_c() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            flag.store(true, Ordering::Relaxed);
        }
    });
    stop
}

fn undo(session: &Session, into: &Path) -> Result<Exit, Failure> {
    let stop = stop_at_ctrl_c();
    let mut taken = Taken::default();
    let tell = |path: &Path, back: &sorting::Back| {
        taken.add(path, back);
        if session.json() {
            print_json(&Taken::row(path, back));
        }
    };
    let is_finished = tokio::task::block_in_place(|| sorting::undo(into, &stop, tell))?;
    session.answer(|| tagged("result", taken.json()), || taken.lines(into));
    match taken.failed() {
        Some(message) => Err(Failure::local(message)),
        None if is_finished => Ok(Exit::Ok),
        None => {
            let undo = session.command(&format!("sort --undo {}", shell::word(into)));
            session.hint(&format!("interrupted: `{undo}` goes on"));
            Ok(Exit::Detached)
        }
    }
}
