//! Decoded photos by number, wherever they are stored, kept in memory while there is room.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use rayon::prelude::*;
use sortinghat_photos::{DecodeError, Photo};

use crate::task::JobError;

/// Why a photo cannot be used.
#[derive(Debug)]
pub enum Unreadable {
    /// The photo's file cannot be decoded.
    Undecodable(DecodeError),
    /// The client could not read the photo's file, for this reason.
    Unread(String),
    /// The photo could not be fetched: the object store fails, or a disk is full.
    Failed(JobError),
}

/// Photos by number, counted from 0.
pub trait StoredPhotos: fmt::Debug + Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fetches and decodes one photo, at the size in which a dataset keeps it. May be called from several threads at once.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn photo(&self, index: usize) -> Result<Photo, Unreadable>;
}

/// Decodes stored photos on the process's decoding threads, and keeps decoded photos while there is room, because every epoch needs
/// them again.
#[derive(Debug)]
pub struct Gallery {
    photos: Box<dyn StoredPhotos>,
    kept: Vec<OnceLock<Arc<Photo>>>,
    /// Bytes of decoded pixels for which there is still room.
    room: AtomicUsize,
}

impl Gallery {
    /// A gallery that keeps at most `keep_bytes` of decoded pixels.
    pub fn new(photos: Box<dyn StoredPhotos>, keep_bytes: usize) -> Arc<Self> {
        let kept = std::iter::repeat_with(OnceLock::new).take(photos.len()).collect();
        Arc::new(Self { photos, kept, room: AtomicUsize::new(keep_bytes) })
    }

    /// Photos in it.
    pub fn len(&self) -> usize {
        self.photos.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.photos.is_empty()
    }

    /// One decoded photo.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn photo(&self, index: usize) -> Result<Arc<Photo>, Unreadable> {
        if let Some(photo) = self.kept[index].get() {
            return Ok(photo.clone());
        }
        let photo = Arc::new(self.photos.photo(index)?);
        let bytes = photo.pixels.len();
        let taken = self.room.try_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(bytes));
        if taken.is_ok() && self.kept[index].set(photo.clone()).is_err() {
            // Another thread has decoded the same photo meanwhile, and its copy is kept.
            self.room.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(photo)
    }

    /// Calls `make` with every index, on all threads; returns the results in the order of the indices.
    pub(super) fn map<T: Send>(&self, indices: &[usize], make: impl Fn(usize) -> T + Sync) -> Vec<T> {
        indices.par_iter().map(|&index| make(index)).collect()
    }
}

/// A gallery is a source of photos itself, so that a [`Selection`](super::Selection) can show some of them, in another order.
impl StoredPhotos for Arc<Gallery> {
    fn len(&self) -> usize {
        Gallery::len(self)
    }

    fn photo(&self, index: usize) -> Result<Photo, Unreadable> {
        Gallery::photo(self, index).map(Arc::unwrap_or_clone)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use sortinghat_photos::ImageFormat;

    use super::*;

    /// Photo `i` is 8 x 8 pixels of value `i`; counts how often each was decoded; photo 7 is broken.
    #[derive(Debug, Default)]
    pub(in crate::batches) struct Plain {
        pub(in crate::batches) decoded: Arc<AtomicUsize>,
    }

    impl StoredPhotos for Plain {
        fn len(&self) -> usize {
            10
        }

        fn photo(&self, index: usize) -> Result<Photo, Unreadable> {
            self.decoded.fetch_add(1, Ordering::SeqCst);
            if index == 7 {
                return Err(Unreadable::Undecodable(DecodeError::Empty));
            }
            let pixels = vec![index as u8; 8 * 8 * 3];
            Ok(Photo { width: 8, height: 8, pixels, format: ImageFormat::Png, notes: Vec::new() })
        }
    }

    #[test]
    fn photos_are_kept_while_there_is_room_and_decoded_again_when_not() {
        let decoded = Arc::new(AtomicUsize::new(0));
        let gallery = Gallery::new(Box::new(Plain { decoded: decoded.clone() }), 3 * 192);
        for _ in 0..2 {
            for index in 0..5 {
                assert_eq!(gallery.photo(index).expect("decodes").pixels[0], index as u8);
            }
        }
        assert_eq!(decoded.load(Ordering::SeqCst), 5 + 2, "three of five are kept");
    }

    #[test]
    fn results_come_in_the_order_of_the_question() {
        let gallery = Gallery::new(Box::new(Plain::default()), 0);
        let values = gallery.map(&[3, 1, 9, 1], |index| gallery.photo(index).expect("decodes").pixels[0]);
        assert_eq!(values, [3, 1, 9, 1]);
    }
}
