//! Where photos are stored: in a dataset, or as uploaded files.

use sortinghat_photos::{DecodeError, Photo, decode, derivative::reduced};
use sortinghat_proto::{limits, manifest::UploadedFile};

use super::gallery::{StoredPhotos, Unreadable};
use crate::{
    dataset::{Dataset, intake::PHOTO_LIMITS},
    objects::{ReadAhead, TenantObjects},
    task::{JobError, Pulse},
};

/// The photos of a dataset, in the order of its records.
#[derive(Debug)]
pub struct DatasetPhotos(pub Dataset);

impl StoredPhotos for DatasetPhotos {
    fn len(&self) -> usize {
        self.0.records().len()
    }

    fn photo(&self, index: usize) -> Result<Photo, Unreadable> {
        let image = self.0.image(index).map_err(|error| {
            Unreadable::Failed(JobError::Internal(format!("failed to read photo {index} of the dataset: {error}")))
        })?;
        decode(&image, &PHOTO_LIMITS).map_err(Unreadable::Undecodable)
    }
}

/// Some photos of another source, in any order.
#[derive(Debug)]
pub struct Selection {
    /// The other source.
    pub photos: Box<dyn StoredPhotos>,
    /// The numbers of the selected photos in the other source.
    pub numbers: Vec<usize>,
}

impl StoredPhotos for Selection {
    fn len(&self) -> usize {
        self.numbers.len()
    }

    fn photo(&self, index: usize) -> Result<Photo, Unreadable> {
        self.photos.photo(self.numbers[index])
    }
}

/// Uploaded files, decoded as ingest decodes them and reduced as a dataset keeps them, so that a photo gives the same pixels from an
/// upload as from a dataset.
#[derive(Debug)]
pub struct UploadedPhotos {
    /// Where the files are, and in which order they are read.
    objects: ReadAhead,
    /// Shows at every photo that the job is alive: a batch of large photos takes long to fetch and to decode.
    pulse: Pulse,
    files: Vec<UploadedFile>,
    /// Short side of the dataset's derivatives in pixels.
    short_side_px: u32,
}

impl UploadedPhotos {
    /// These files, which are read in this order or nearly so.
    pub fn new(objects: &TenantObjects, pulse: Pulse, files: Vec<UploadedFile>, short_side_px: u32) -> Self {
        let readable = files.iter().filter(|file| file.unread.is_none()).map(|file| &file.object);
        let objects = objects.ahead(readable.filter(|object| object.size_bytes <= limits::MAX_PHOTO_BYTES));
        Self { objects, pulse, files, short_side_px }
    }
}

impl StoredPhotos for UploadedPhotos {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn photo(&self, index: usize) -> Result<Photo, Unreadable> {
        self.pulse.beat().map_err(Unreadable::Failed)?;
        let UploadedFile { object, unread, .. } = &self.files[index];
        if let Some(why) = unread {
            return Err(Unreadable::Unread(why.clone()));
        }
        if object.size_bytes > limits::MAX_PHOTO_BYTES {
            let (bytes, limit) = (object.size_bytes, limits::MAX_PHOTO_BYTES);
            return Err(Unreadable::Undecodable(DecodeError::TooManyBytes { bytes, limit }));
        }
        let bytes = self.objects.read(object).map_err(|error| Unreadable::Failed(error.into()))?;
        let photo = decode(&bytes, &PHOTO_LIMITS).map_err(Unreadable::Undecodable)?;
        Ok(reduced(photo, self.short_side_px))
    }
}
