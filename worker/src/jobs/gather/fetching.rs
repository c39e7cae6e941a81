//! The first half: asks for photos and has them fetched, until each class has as many as it should or there are no more.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use parking_lot::Mutex;
use sortinghat_proto::{
    GatherClass, GatherFrom, GatherSpec, ObjectRef, Search,
    manifest::{Credit, ListedUrl, PhotoSource, SourceOutcome, UrlList},
};

use super::progress::{Gathering, path_of};
use crate::{
    fetch::providers::{Found, MAX_PAGES, Page},
    objects::{ObjectError, Photo},
    task::{JobContext, JobError},
};

/// Photos that are asked for at a time. The worker keeps to its bounds for each host and in all.
const AT_A_TIME: usize = 8;
/// Photos between two looks at the counts.
const BATCH: usize = 32;
/// Who found the photos of a list.
const LIST: &str = "list";

/// Fetches what is to be fetched.
pub(super) fn fetch(spec: &GatherSpec, context: &JobContext, gathering: &mut Gathering) -> Result<(), JobError> {
    match &spec.from {
        GatherFrom::Urls(list) => fetch_list(list, context, gathering),
        GatherFrom::Search(search) => {
            for (number, class) in search.classes.iter().enumerate() {
                fetch_class(search, number, class, context, gathering)?;
            }
            Ok(())
        }
    }
}

fn fetch_list(list: &ObjectRef, context: &JobContext, gathering: &mut Gathering) -> Result<(), JobError> {
    let list: UrlList = context.objects().document(list)?;
    list.faults("gather.urls").into_result()?;
    let total = list.urls.len() as u64;
    context.progress("fetch", gathering.listed as u64, total, "photos");
    while gathering.listed < list.urls.len() {
        let end = (gathering.listed + BATCH).min(list.urls.len());
        let batch: Vec<Wanted<'_>> =
            (gathering.listed..end).map(|place| Wanted::listed(place, &list.urls[place])).collect();
        fetch_batch(batch, gathering, context, true)?;
        gathering.listed = end;
        gathering.save(context)?;
        context.progress("fetch", end as u64, total, "photos");
    }
    Ok(())
}

fn fetch_class(
    search: &Search,
    number: usize,
    class: &GatherClass,
    context: &JobContext,
    gathering: &mut Gathering,
) -> Result<(), JobError> {
    let per_class = search.per_class as usize;
    let tell = |photos: usize| {
        let (done, total) = (number * per_class + photos.min(per_class), search.classes.len() * per_class);
        context.progress("fetch", done as u64, total as u64, "photos");
    };
    loop {
        let photos = gathering.photos_of(&class.name);
        tell(photos);
        if photos >= per_class || !gathering.has_room() {
            return Ok(());
        }
        let tried = gathering.urls_of(&class.name);
        let mut state = gathering.searches.get(&class.name).cloned().unwrap_or_default();
        let rank = state.found - state.waiting.len() as u64;
        let batch = state.waiting.len().min(BATCH).min(per_class - photos);
        let taken: Vec<Found> = state.waiting.drain(..batch).collect();
        let ranked = (rank + 1..).zip(&taken);
        let mut seen = HashSet::new();
        let fresh = ranked.filter(|(_, found)| !tried.contains(found.url.as_str()) && seen.insert(&found.url));
        let batch: Vec<Wanted<'_>> = fresh.map(|(rank, found)| Wanted::found(search, class, rank, found)).collect();
        if taken.is_empty() && state.is_over {
            return Ok(());
        }
        if taken.is_empty() {
            ask(&class.query, &mut state, context, &mut gathering.terms)?;
        }
        fetch_batch(batch, gathering, context, false)?;
        gathering.searches.insert(class.name.clone(), state);
        gathering.save(context)?;
    }
}

/// Asks for the next page of a search.
fn ask(
    query: &str,
    state: &mut super::progress::SearchState,
    context: &JobContext,
    terms: &mut Vec<String>,
) -> Result<(), JobError> {
    context.check_cancelled()?;
    let page = context.objects().search_photos(query, state.cursor.as_deref())?;
    let page: Page = serde_json::from_slice(&page)
        .map_err(|error| JobError::Internal(format!("the worker's page of photos cannot be read: {error}")))?;
    if !page.terms.is_empty() && !terms.contains(&page.terms) {
        terms.push(page.terms);
    }
    state.found += page.found.len() as u64;
    state.waiting.extend(page.found);
    state.pages += 1;
    state.is_over = page.next.is_none() || page.next == state.cursor || state.pages >= MAX_PAGES;
    state.cursor = page.next;
    Ok(())
}

/// A photo that is to be fetched, and what is known of it.
struct Wanted<'a> {
    class: &'a str,
    provider: String,
    query: Option<String>,
    rank: u64,
    url: &'a str,
    credit: &'a Credit,
}

impl<'a> Wanted<'a> {
    fn listed(place: usize, listed: &'a ListedUrl) -> Self {
        let ListedUrl { class, url, credit } = listed;
        Self { class: class.trim(), provider: LIST.to_owned(), query: None, rank: place as u64 + 1, url, credit }
    }

    fn found(search: &Search, class: &'a GatherClass, rank: u64, found: &'a Found) -> Self {
        let (provider, query) = (search.provider.to_string(), Some(class.query.clone()));
        Self { class: &class.name, provider, query, rank, url: &found.url, credit: &found.credit }
    }

    fn row(self, fetched: Result<Photo, String>) -> PhotoSource {
        let (outcome, reason, path, object) = match fetched {
            Ok(Photo { object, ending }) => {
                (SourceOutcome::Kept, None, Some(path_of(self.class, &object, &ending)), Some(object))
            }
            Err(reason) => (SourceOutcome::Failed, Some(reason), None, None),
        };
        PhotoSource {
            class: self.class.to_owned(),
            provider: self.provider,
            query: self.query,
            rank: self.rank,
            url: self.url.to_owned(),
            credit: self.credit.clone(),
            outcome,
            reason,
            path,
            object,
        }
    }
}

/// Has photos fetched, each URL once, and enters what became of them in their order.
fn fetch_batch(
    batch: Vec<Wanted<'_>>,
    gathering: &mut Gathering,
    context: &JobContext,
    asks_robots: bool,
) -> Result<(), JobError> {
    let mut known: HashMap<String, Result<Photo, String>> = HashMap::new();
    {
        let fetched = gathering.fetched();
        let mut missing: Vec<&str> = Vec::new();
        let mut seen = HashSet::new();
        for wanted in batch.iter().filter(|wanted| seen.insert(wanted.url)) {
            match fetched.get(wanted.url).and_then(|row| photo_of(row)) {
                Some(photo) => drop(known.insert(wanted.url.to_owned(), Ok(photo))),
                None => missing.push(wanted.url),
            }
        }
        let answers = fetch_all(&missing, context, asks_robots)?;
        known.extend(missing.into_iter().map(str::to_owned).zip(answers));
    }
    for wanted in batch {
        let fetched = known[wanted.url].clone();
        gathering.rows.push(wanted.row(fetched));
    }
    Ok(())
}

/// The photo of a row that was fetched.
fn photo_of(row: &PhotoSource) -> Option<Photo> {
    let ending = row.path.as_ref().and_then(|path| path.rsplit_once('.')).map_or("photo", |(_, ending)| ending);
    Some(Photo { object: row.object.clone()?, ending: ending.to_owned() })
}

/// Has all of these fetched, a few at a time, and returns what became of each, in their order.
fn fetch_all(urls: &[&str], context: &JobContext, asks_robots: bool) -> Result<Vec<Result<Photo, String>>, JobError> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![None; urls.len()]);
    let first_error = Mutex::new(None::<ObjectError>);
    let pulse = context.pulse();
    let work = || {
        while first_error.lock().is_none() {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(url) = urls.get(place) else { return };
            match context.objects().fetch_photo(url, asks_robots) {
                Ok(answer) => {
                    done.lock()[place] = Some(answer);
                    // Whether the task goes on is looked at below.
                    let _ = pulse.beat();
                }
                Err(error) => drop(first_error.lock().get_or_insert(error)),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(urls.len()) {
            scope.spawn(work);
        }
    });
    if let Some(error) = first_error.into_inner() {
        return Err(error.into());
    }
    context.check_cancelled()?;
    let all: Option<Vec<_>> = done.into_inner().into_iter().collect();
    all.ok_or_else(|| JobError::Internal("not every URL has an answer".to_owned()))
}
