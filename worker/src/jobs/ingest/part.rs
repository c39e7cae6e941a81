//! What a shard of an ingest has found, on its way to the task that joins them.

use std::{fs::File, ops::Range, os::unix::fs::FileExt as _};

use serde::{Deserialize, Serialize};
use sortinghat_proto::{
    ObjectRef,
    manifest::{Document, INGEST_PART_FORMAT},
    words::count,
};

use super::{SHARD_BYTES, machine};
use crate::{
    dataset::intake::{Finding, Inspected, Unusable},
    task::{JobContext, JobError, JobOutput},
};

/// What was found in a range of an upload's contents.
#[derive(Debug, Serialize, Deserialize)]
struct IngestPart {
    /// One for each content, in order.
    findings: Vec<Found>,
    /// Objects that hold the stored pictures, one after the other.
    pictures: Vec<ObjectRef>,
}

impl Document for IngestPart {
    const FORMAT: &'static str = INGEST_PART_FORMAT;
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Found {
    Photo(Box<Inspected<Place>>),
    Unusable(Unusable),
}

/// Where a stored picture lies: in which of the objects, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    object: usize,
    bytes: Range<u64>,
}

/// Stored pictures on their way into objects. Holds one object in memory.
pub(super) struct StoredPictures<'a> {
    context: &'a JobContext,
    objects: Vec<ObjectRef>,
    waiting: Vec<u8>,
}

impl<'a> StoredPictures<'a> {
    pub(super) fn new(context: &'a JobContext) -> Self {
        Self { context, objects: Vec::new(), waiting: Vec::new() }
    }

    /// Keeps a picture; returns where it will be.
    pub(super) fn keep(&mut self, picture: &[u8]) -> Result<Place, JobError> {
        if !self.waiting.is_empty() && self.waiting.len() + picture.len() > SHARD_BYTES {
            self.store()?;
        }
        let start = self.waiting.len() as u64;
        self.waiting.extend_from_slice(picture);
        Ok(Place { object: self.objects.len(), bytes: start..self.waiting.len() as u64 })
    }

    fn store(&mut self) -> Result<(), JobError> {
        self.objects.push(self.context.objects().put(std::mem::take(&mut self.waiting))?);
        Ok(())
    }
}

/// Stores what a shard has found.
pub(super) fn store(
    context: &JobContext,
    mut pictures: StoredPictures<'_>,
    findings: Vec<Finding<Place>>,
) -> Result<JobOutput, JobError> {
    if !pictures.waiting.is_empty() {
        pictures.store()?;
    }
    let summary = format!("{} photos decoded", count(findings.len() as u64));
    let findings =
        findings.into_iter().map(|finding| finding.map_or_else(Found::Unusable, |photo| Found::Photo(Box::new(photo))));
    let part = IngestPart { findings: findings.collect(), pictures: pictures.objects };
    Ok(JobOutput { manifest: context.objects().put_document(&part)?, summary })
}

/// What shards have found, in their order, and the pictures that they have stored.
///
/// # Errors
/// [`JobError::Internal`] unless there is one finding for each of so many contents.
pub(super) fn join<'a>(
    context: &'a JobContext,
    shards: &[ObjectRef],
    contents: usize,
) -> Result<(Vec<Finding<Place>>, Pictures<'a>), JobError> {
    let mut findings = Vec::with_capacity(contents);
    let mut pictures = Pictures { context, objects: Vec::new(), open: None };
    for (done, shard) in (1..).zip(shards) {
        context.check_cancelled()?;
        let part: IngestPart = context.objects().document(shard)?;
        let before = pictures.objects.len();
        findings.extend(part.findings.into_iter().map(|found| match found {
            Found::Photo(photo) => {
                let Place { object, bytes } = photo.picture.clone();
                Ok(photo.stored_as(Place { object: before + object, bytes }))
            }
            Found::Unusable(unusable) => Err(unusable),
        }));
        pictures.objects.extend(part.pictures);
        context.progress("join", done, shards.len() as u64, "parts");
    }
    if findings.len() != contents {
        let found = findings.len();
        return Err(JobError::Internal(format!("{found} findings do not account for {contents} contents")));
    }
    Ok((findings, pictures))
}

/// Pictures that shards have stored. They are asked for in the order in which they were kept, so one object is open at a
/// time.
pub(super) struct Pictures<'a> {
    context: &'a JobContext,
    objects: Vec<ObjectRef>,
    open: Option<(usize, File)>,
}

impl Pictures<'_> {
    /// One picture.
    pub(super) fn read(&mut self, place: &Place) -> Result<Vec<u8>, JobError> {
        let file = match self.open.take() {
            Some((object, file)) if object == place.object => file,
            _ => {
                let object = self.objects.get(place.object);
                let object = object.ok_or_else(|| JobError::Internal("a picture lies in no object".into()))?;
                self.context.objects().open(object)?
            }
        };
        let mut picture = vec![0; (place.bytes.end - place.bytes.start) as usize];
        let read = file.read_exact_at(&mut picture, place.bytes.start);
        self.open = Some((place.object, file));
        read.map_err(|source| machine("read the object cache", source))?;
        Ok(picture)
    }
}
