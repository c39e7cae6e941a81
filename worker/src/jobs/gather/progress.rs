//! What a gathering has found and fetched so far: also its checkpoint, from which another attempt goes on without fetching it again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use sortinghat_proto::{
    Digest, GatherFrom, GatherSpec, ObjectRef,
    limits::MAX_GATHERED_URLS,
    manifest::{
        DatasetManifest, Document, GatheredClass, PhotoSource, Remark, SourceOutcome, UploadManifest, UploadedFile,
    },
};
use tokio::time::{Duration, Instant};

use super::Before;
use crate::{
    fetch::providers::Found,
    task::{JobContext, JobError},
};

/// The time between two checkpoints. What was fetched since the last one, another attempt fetches again.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(500);

/// What was found and fetched so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Gathering {
    /// What became of each photo that was tried: first those of the dataset that is added to, then the others in their order. Until photos
    /// are decoded, a row with an object is one that was fetched.
    pub(super) rows: Vec<PhotoSource>,
    /// The searches, by class.
    pub(super) searches: BTreeMap<String, SearchState>,
    /// URLs of the list that are done.
    pub(super) listed: usize,
    /// What providers ask to be said.
    pub(super) terms: Vec<String>,
    /// The rows of the dataset that is added to.
    old_rows: usize,
    /// When the last checkpoint was stored.
    #[serde(skip)]
    saved: Option<Instant>,
}

impl Document for Gathering {
    const FORMAT: &'static str = "sortinghat.gather-checkpoint/1";
}

/// How far the search for a class has come.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct SearchState {
    /// Photos that were found and not tried yet.
    pub(super) waiting: Vec<Found>,
    /// How many were found.
    pub(super) found: u64,
    /// Where the next page begins; `None` for the first page.
    pub(super) cursor: Option<String>,
    /// Pages that were asked for.
    pub(super) pages: u32,
    /// There is no further page.
    pub(super) is_over: bool,
}

impl Gathering {
    /// Goes on from the checkpoint of an earlier attempt, or else begins with the photos of the dataset that is added to.
    pub(super) fn resume(context: &JobContext, before: &Before) -> Result<Self, JobError> {
        if let Some(checkpoint) = &context.task().checkpoint {
            match context.objects().document::<Self>(checkpoint) {
                Ok(gathering) => return Ok(gathering),
                Err(error) if error.is_about_the_object() => {
                    tracing::warn!(%error, "the checkpoint cannot be used, so the task begins anew");
                }
                Err(error) => return Err(error.into()),
            }
        }
        let terms = before.manifest.iter().flat_map(|manifest| &manifest.remarks).find_map(|remark| match remark {
            Remark::FromTheWeb { terms, .. } => Some(terms.clone()),
            _ => None,
        });
        let Some(gathered) = before.manifest.as_ref().and_then(|manifest| manifest.gathered.as_ref()) else {
            return Ok(Self::default());
        };
        let lines = context.objects().read(&gathered.sources)?;
        let rows = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let rows: Result<Vec<PhotoSource>, _> = rows.map(serde_json::from_slice).collect();
        let rows =
            rows.map_err(|error| JobError::Internal(format!("the sources of the dataset are damaged: {error}")))?;
        // What could not be fetched then is tried again if it is found again.
        let rows: Vec<PhotoSource> = rows.into_iter().filter(|row| row.object.is_some()).collect();
        Ok(Self { old_rows: rows.len(), rows, terms: terms.unwrap_or_default(), ..Self::default() })
    }

    /// Stores a checkpoint, if the last one is old enough.
    pub(super) fn save(&mut self, context: &JobContext) -> Result<(), JobError> {
        if self.saved.is_none_or(|saved| saved.elapsed() >= CHECKPOINT_INTERVAL) {
            context.checkpoint(context.objects().put_document(self)?);
            self.saved = Some(Instant::now());
        }
        Ok(())
    }

    /// Stores a checkpoint when the task is handed back, if the store takes it at once.
    pub(super) fn save_before_the_end(&self, context: &JobContext) {
        match context.objects().without_waiting().put_document(self) {
            Ok(object) => context.checkpoint(object),
            Err(error) => tracing::warn!(%error, "the last checkpoint could not be stored"),
        }
    }

    /// How many different photos of a class there are, and of which some may turn out to be unusable.
    pub(super) fn photos_of(&self, class: &str) -> usize {
        let is_usable = |row: &&PhotoSource| row.class == class && row.outcome != SourceOutcome::Rejected;
        let of_class = self.rows.iter().filter(is_usable);
        of_class.filter_map(|row| row.object.as_ref()).map(|object| &object.digest).collect::<HashSet<_>>().len()
    }

    /// The URLs that were tried for a class.
    pub(super) fn urls_of(&self, class: &str) -> HashSet<&str> {
        self.rows.iter().filter(|row| row.class == class).map(|row| row.url.as_str()).collect()
    }

    /// What was fetched, by URL, with the ending of its format.
    pub(super) fn fetched(&self) -> HashMap<&str, &PhotoSource> {
        // A copy has no path, and so no ending.
        self.rows
            .iter()
            .filter(|row| row.object.is_some() && row.path.is_some())
            .map(|row| (row.url.as_str(), row))
            .collect()
    }

    /// Whether so many further photos may be tried.
    pub(super) fn has_room(&self) -> bool {
        self.rows.len() < MAX_GATHERED_URLS
    }

    /// The rows of this job whose photo could not be fetched.
    pub(super) fn failures(&self) -> impl Iterator<Item = &PhotoSource> {
        self.rows[self.old_rows..].iter().filter(|row| row.object.is_none())
    }

    /// Why the first photo could not be fetched, with its URL.
    pub(super) fn first_failure(&self) -> String {
        self.failures().next().map_or_else(
            || "nothing was found".to_owned(),
            |row| format!("{} ({})", row.url, row.reason.as_deref().unwrap_or("no reason is known")),
        )
    }

    /// The files of the dataset: those that were there before, and those that were fetched. The same file is in a class once; further rows
    /// of it become rows of copies.
    pub(super) fn files(&mut self, before: &UploadManifest) -> Vec<UploadedFile> {
        let mut files = before.files.clone();
        let class_of = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
        let mut first: HashMap<(String, Digest), String> =
            files.iter().map(|file| ((class_of(&file.path), file.object.digest.clone()), file.path.clone())).collect();
        let mut paths: BTreeSet<String> = files.iter().map(|file| file.path.clone()).collect();
        for row in &mut self.rows[self.old_rows..] {
            let (Some(object), Some(path)) = (&row.object, &row.path) else { continue };
            match first.entry((row.class.clone(), object.digest.clone())) {
                std::collections::hash_map::Entry::Occupied(same) => {
                    row.outcome = SourceOutcome::Rejected;
                    row.reason = Some(format!("the same file as {}", same.get()));
                    row.path = None;
                }
                std::collections::hash_map::Entry::Vacant(new) => {
                    let path = free_path(path, &paths);
                    files.push(UploadedFile::new(path.clone(), object.clone()));
                    paths.insert(path.clone());
                    new.insert(path.clone());
                    row.path = Some(path);
                }
            }
        }
        files
    }

    /// The rows whose photos are files of the dataset, by path.
    pub(super) fn by_path(&self) -> HashMap<&str, &PhotoSource> {
        self.rows.iter().filter_map(|row| Some((row.path.as_deref()?, row))).collect()
    }

    /// How many photos of each class there were at each step.
    pub(super) fn classes(&self, spec: &GatherSpec, dataset: &DatasetManifest) -> Vec<GatheredClass> {
        let mut classes: BTreeMap<String, GatheredClass> = BTreeMap::new();
        let new = |class: &str| GatheredClass { class: class.to_owned(), ..GatheredClass::default() };
        if let GatherFrom::Search(search) = &spec.from {
            for class in &search.classes {
                let found = self.searches.get(&class.name).map_or(0, |search| search.found);
                let (query, asked) = (Some(class.query.clone()), u64::from(search.per_class));
                classes.insert(class.name.clone(), GatheredClass { query, asked, found, ..new(&class.name) });
            }
        }
        for row in &self.rows[self.old_rows..] {
            let class = classes.entry(row.class.clone()).or_insert_with(|| new(&row.class));
            if row.query.is_none() {
                class.asked += 1;
                class.found += 1;
            }
            class.fetched += u64::from(row.object.is_some());
        }
        for (name, counts) in dataset.classes.iter().zip(&dataset.class_counts) {
            classes.entry(name.clone()).or_insert_with(|| new(name)).kept = counts.train + counts.valid;
        }
        classes.into_values().collect()
    }
}

/// The path, or one like it that is not taken.
fn free_path(path: &str, taken: &BTreeSet<String>) -> String {
    let (stem, ending) = path.rsplit_once('.').unwrap_or((path, "photo"));
    let mut numbered = (2..).map(|number: u32| format!("{stem}-{number}.{ending}"));
    let free = std::iter::once(path.to_owned()).chain(numbered.by_ref()).find(|path| !taken.contains(path));
    free.expect("numbers do not end before paths do")
}

/// Where a photo lies in the dataset: named by its content, so that it is called the same in every version.
pub(super) fn path_of(class: &str, object: &ObjectRef, ending: &str) -> String {
    format!("{class}/{}.{ending}", &object.digest.as_str()[..16])
}
