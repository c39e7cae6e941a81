//! Takes in an upload: every file is read and decoded once, and ends as exactly one of accepted, duplicate, conflicting,
//! quarantined, unsupported or ignored.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
};

use bytes::Bytes;
use parking_lot::Mutex;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sortinghat_photos::{
    DecodeError, DecodeLimits, ImageFormat, Note, decode,
    derivative::{Derivative, derivative},
    phash::Fingerprint,
};
use sortinghat_proto::{
    Digest, ObjectRef,
    layout::{Label, Layout, LayoutChoice, LayoutError, Unlabelled},
    limits,
    manifest::{IngestCounts, Rejection, RejectionReason, UploadedFile},
};

/// Bounds on the photos that are taken in, and so on every photo that a job decodes.
pub const PHOTO_LIMITS: DecodeLimits = DecodeLimits {
    max_bytes: limits::MAX_PHOTO_BYTES,
    max_pixels: limits::MAX_PHOTO_PIXELS,
    max_side: limits::MAX_PHOTO_SIDE_PX,
};

/// Files that are read and decoded at a time, which bounds the pictures that wait to be stored.
const CHUNK_FILES: usize = 64;

/// What to do with each photo.
#[derive(Debug, Clone, Copy)]
pub struct IntakeOptions {
    /// Bounds on what is decoded.
    pub limits: DecodeLimits,
    /// Short side of the stored picture in pixels; smaller photos keep their size.
    pub short_side_px: u32,
}

/// What became of an upload. `P` says where the stored picture is.
#[derive(Debug)]
pub struct Intake<P> {
    /// How the folders were read.
    pub layout: Layout,
    /// The photos that can be used, sorted by path.
    pub accepted: Vec<Accepted<P>>,
    /// The files that were not used, sorted by path.
    pub rejections: Vec<Rejection>,
    /// How many files ended in which way; always balanced.
    pub counts: IngestCounts,
    /// How many usable photos each class has. A class without any is not listed.
    pub class_photos: BTreeMap<String, usize>,
}

/// A photo that can be used.
#[derive(Debug)]
pub struct Accepted<P> {
    /// Its path in the upload; the first one, if it was uploaded more than once.
    pub path: String,
    /// The original file.
    pub digest: Digest,
    /// The class and the side that its path states.
    pub label: Label,
    /// What was found in the file.
    pub photo: Inspected<P>,
}

/// What is kept of a decoded file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Inspected<P> {
    /// The fingerprint by which near-duplicates are found.
    pub fingerprint: Fingerprint,
    /// Width of the original in pixels, upright.
    pub width: u32,
    /// Height of the original in pixels, upright.
    pub height: u32,
    /// Format of the original.
    pub format: ImageFormat,
    /// What was done to it.
    pub notes: Vec<Note>,
    /// Where the stored picture is.
    pub picture: P,
}

/// What an upload holds: each content once, however many files have it. The same upload gives the same contents in the same order,
/// in every task.
#[derive(Debug)]
pub struct Contents<'a> {
    layout: Layout,
    inputs: u64,
    /// The files of each content, sorted by path; the contents are sorted by the path of their first file.
    copies: Vec<Vec<&'a UploadedFile>>,
    /// Files that lie in no class folder, and why.
    strays: Vec<(&'a UploadedFile, Unlabelled)>,
    /// Files that the client could not read, and why.
    unread: Vec<(&'a UploadedFile, &'a str)>,
}

/// What was found in one content.
pub type Finding<P> = Result<Inspected<P>, Unusable>;

/// Why a content is no usable photo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unusable {
    /// For programs.
    pub reason: RejectionReason,
    /// For people.
    pub message: String,
}

/// Reads, decodes and judges every file: the contents of an upload, all inspected at once. See [`Contents::inspect`].
///
/// # Errors
/// Whatever `read` or `store` return, or that the folders can be read in two ways. A file that is no usable photo is not an error.
pub fn take_in<P: Send, E: Send + From<LayoutError>>(
    files: &[UploadedFile],
    options: IntakeOptions,
    read: impl Fn(&UploadedFile) -> Result<Bytes, E> + Sync,
    store: impl FnMut(Vec<u8>) -> Result<P, E>,
    progress: impl Fn(usize, usize) + Sync,
) -> Result<Intake<P>, E> {
    let contents = Contents::of(files, LayoutChoice::Auto)?;
    let findings = contents.inspect(0..contents.len(), options, read, store, progress)?;
    Ok(contents.judge(findings))
}

impl<'a> Contents<'a> {
    /// The contents of these files.
    ///
    /// # Errors
    /// [`LayoutError`] if nobody says how the folders are to be read.
    pub fn of(files: &'a [UploadedFile], choice: LayoutChoice) -> Result<Self, LayoutError> {
        let layout = Layout::of(files.iter().map(|file| file.path.as_str()), choice)?;
        let mut by_digest: BTreeMap<&Digest, Vec<&UploadedFile>> = BTreeMap::new();
        let (mut strays, mut unread) = (Vec::new(), Vec::new());
        for file in files {
            match (&file.unread, layout.class_folder(&file.path)) {
                (Some(why), _) => unread.push((file, why.as_str())),
                (None, Err(why)) => strays.push((file, why)),
                (None, Ok(_)) => by_digest.entry(&file.object.digest).or_default().push(file),
            }
        }
        let mut copies: Vec<Vec<&UploadedFile>> = by_digest.into_values().collect();
        copies.iter_mut().for_each(|files| files.sort_by(|a, b| a.path.cmp(&b.path)));
        copies.sort_by(|a, b| a[0].path.cmp(&b[0].path));
        Ok(Self { layout, inputs: files.len() as u64, copies, strays, unread })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.copies.len()
    }

    /// The objects that some of them are read from, in order. What is too long to be a photo is not read.
    pub fn objects(&self, range: Range<usize>) -> impl Iterator<Item = &ObjectRef> {
        let objects = self.copies[range].iter().map(|files| &files[0].object);
        objects.filter(|object| object.size_bytes <= limits::MAX_PHOTO_BYTES)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// Reads and decodes some contents, and finds what is in each, in order. `read` gets a file's content and runs on many
    /// threads; `store` keeps a stored picture, one after the other in order; `progress` is called after each content with the
    /// number of decoded contents and with their total.
    ///
    /// # Errors
    /// Whatever `read` or `store` return.
    ///
    /// # Panics
    /// When there are not so many contents.
    pub fn inspect<P, E: Send>(
        &self,
        range: Range<usize>,
        options: IntakeOptions,
        read: impl Fn(&UploadedFile) -> Result<Bytes, E> + Sync,
        mut store: impl FnMut(Vec<u8>) -> Result<P, E>,
        progress: impl Fn(usize, usize) + Sync,
    ) -> Result<Vec<Finding<P>>, E> {
        let total = range.len();
        let mut findings = Vec::with_capacity(total);
        let decoded_so_far = Mutex::new(0);
        let look = |files: &Vec<&UploadedFile>| {
            let found = inspect(files[0], options, read_within(files[0], options, &read)?);
            // Progress is reported under the lock, so that its number never goes down.
            let mut decoded = decoded_so_far.lock();
            *decoded += 1;
            progress(*decoded, total);
            Ok(found)
        };
        for chunk in self.copies[range].chunks(CHUNK_FILES) {
            for result in chunk.par_iter().map(look).collect::<Result<Vec<_>, E>>()? {
                findings.push(match result {
                    Ok((derivative, inspected)) => Ok(inspected.stored_as(store(derivative.bytes)?)),
                    Err(error) => Err(Unusable { reason: rejection_reason(&error), message: error.to_string() }),
                });
            }
        }
        Ok(findings)
    }

    /// Judges every file by what was found in its content.
    ///
    /// # Panics
    /// When there is not one finding for each content.
    pub fn judge<P>(self, findings: Vec<Finding<P>>) -> Intake<P> {
        assert_eq!(findings.len(), self.len(), "one finding for each content");
        let mut intake = Intake {
            layout: self.layout,
            accepted: Vec::new(),
            rejections: Vec::new(),
            counts: IngestCounts { inputs: self.inputs, ..IngestCounts::default() },
            class_photos: BTreeMap::new(),
        };
        for (file, why) in self.strays {
            intake.counts.ignored += 1;
            let reason = match why {
                Unlabelled::NoClassFolder => RejectionReason::NoClass,
                Unlabelled::Test | Unlabelled::BesideSplit => RejectionReason::BesideSplit,
            };
            intake.reject(file, reason, why.to_string());
        }
        for (file, why) in self.unread {
            intake.counts.quarantined += 1;
            intake.reject(file, RejectionReason::Unreadable, why.to_owned());
        }
        for (files, finding) in self.copies.iter().zip(findings) {
            match finding {
                Ok(photo) => intake.accept(files, photo),
                Err(unusable) => files.iter().for_each(|file| intake.turn_away(file, &unusable)),
            }
        }
        intake.rejections.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(intake.counts.balance(), "every input is counted exactly once: {:?}", intake.counts);
        intake
    }
}

/// The content of a file, or why the file is not even read.
fn read_within<E>(
    file: &UploadedFile,
    options: IntakeOptions,
    read: impl Fn(&UploadedFile) -> Result<Bytes, E>,
) -> Result<Result<Bytes, DecodeError>, E> {
    let (bytes, limit) = (file.object.size_bytes, options.limits.max_bytes);
    if bytes > limit {
        return Ok(Err(DecodeError::TooManyBytes { bytes, limit }));
    }
    read(file).map(Ok)
}

fn inspect(
    file: &UploadedFile,
    options: IntakeOptions,
    content: Result<Bytes, DecodeError>,
) -> Result<(Derivative, Inspected<()>), DecodeError> {
    let content = content?;
    let photo = decode(&content, &options.limits)?;
    let derivative = derivative(&photo, &content, options.short_side_px);
    let fingerprint = Fingerprint::of(&photo);
    let mut notes = photo.notes;
    if !photo.format.matches_extension(&file.path) {
        notes.push(Note::WrongExtension);
    }
    if derivative.is_mended {
        notes.push(Note::Mended);
    }
    let (width, height, format) = (photo.width, photo.height, photo.format);
    Ok((derivative, Inspected { fingerprint, width, height, format, notes, picture: () }))
}

impl<P> Inspected<P> {
    /// The same findings with another place of the stored picture.
    pub fn stored_as<Q>(self, picture: Q) -> Inspected<Q> {
        let Self { fingerprint, width, height, format, notes, picture: _ } = self;
        Inspected { fingerprint, width, height, format, notes, picture }
    }
}

impl<P> Intake<P> {
    /// Judges all copies of one decodable file.
    fn accept(&mut self, files: &[&UploadedFile], photo: Inspected<P>) {
        let labels: Vec<Label> = files.iter().filter_map(|file| self.layout.label(&file.path).ok()).collect();
        let classes: BTreeSet<&str> = labels.iter().map(|label| label.class.as_str()).collect();
        if classes.len() > 1 {
            let classes = classes.into_iter().collect::<Vec<_>>().join(" and ");
            for file in files {
                self.counts.conflicting += 1;
                let message = format!("the same file lies in {classes}; keep one of them");
                self.reject(file, RejectionReason::Conflicting, message);
            }
            return;
        }
        for copy in &files[1..] {
            self.counts.duplicates += 1;
            self.reject(copy, RejectionReason::Duplicate, format!("the same file as {}", files[0].path));
        }
        let label = labels.into_iter().next().expect("only labelled files are judged");
        *self.class_photos.entry(label.class.clone()).or_default() += 1;
        self.counts.accepted += 1;
        let (path, digest) = (files[0].path.clone(), files[0].object.digest.clone());
        self.accepted.push(Accepted { path, digest, label, photo });
    }

    /// Counts a file that cannot be decoded. A file whose extension is not a photo's is ignored, a file in a format that is not read is
    /// unsupported, and any other file is quarantined.
    fn turn_away(&mut self, file: &UploadedFile, unusable: &Unusable) {
        let count = match unusable.reason {
            RejectionReason::Unsupported => &mut self.counts.unsupported,
            RejectionReason::Empty | RejectionReason::NotAPhoto if !promises_photo(&file.path) => {
                &mut self.counts.ignored
            }
            _ => &mut self.counts.quarantined,
        };
        *count += 1;
        self.reject(file, unusable.reason, unusable.message.clone());
    }

    fn reject(&mut self, file: &UploadedFile, reason: RejectionReason, message: String) {
        let (path, digest) = (file.path.clone(), file.object.digest.clone());
        self.rejections.push(Rejection { path, digest, reason, message });
    }
}

/// Whether the extension is that of a photo.
pub(super) fn promises_photo(path: &str) -> bool {
    let formats =
        [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];
    Path::new(path).extension().is_some() && formats.iter().any(|format| format.matches_extension(path))
}

/// Whether a file with this reason was meant to be used and could not.
pub(super) fn is_quarantine(reason: RejectionReason) -> bool {
    matches!(
        reason,
        RejectionReason::Empty
            | RejectionReason::Truncated
            | RejectionReason::Corrupt
            | RejectionReason::OverLimit
            | RejectionReason::Unreadable
    )
}

fn rejection_reason(error: &DecodeError) -> RejectionReason {
    match error {
        DecodeError::Empty => RejectionReason::Empty,
        DecodeError::NotAnImage => RejectionReason::NotAPhoto,
        DecodeError::UnsupportedFormat { .. } | DecodeError::UnsupportedFeature { .. } => RejectionReason::Unsupported,
        DecodeError::Truncated { .. } => RejectionReason::Truncated,
        DecodeError::Corrupt { .. } | DecodeError::NoPixels { .. } | DecodeError::DecoderFailed { .. } => {
            RejectionReason::Corrupt
        }
        DecodeError::TooManyBytes { .. } | DecodeError::TooManyPixels { .. } => RejectionReason::OverLimit,
    }
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::ObjectRef;

    use super::*;
    use sortinghat_photos::derivative::encode_png;

    /// A picture that is unlike those of other seeds.
    fn png(seed: u8) -> Vec<u8> {
        encode_png(8, 8, &(0..8 * 8 * 3).map(|index| (index * usize::from(seed) % 256) as u8).collect::<Vec<_>>())
    }

    fn intake_of(files: &[(&str, Vec<u8>)]) -> Intake<Vec<u8>> {
        intake_with_progress(files, |_, _| ())
    }

    fn intake_with_progress(files: &[(&str, Vec<u8>)], progress: impl Fn(usize, usize) + Sync) -> Intake<Vec<u8>> {
        let uploaded: Vec<UploadedFile> =
            files.iter().map(|(path, content)| UploadedFile::new(*path, ObjectRef::of(content))).collect();
        let read = |file: &UploadedFile| {
            let content = files.iter().find(|(path, _)| *path == file.path).expect("an uploaded path");
            Ok::<_, LayoutError>(Bytes::from(content.1.clone()))
        };
        let options = IntakeOptions { limits: DecodeLimits::default(), short_side_px: 512 };
        take_in(&uploaded, options, read, Ok, progress).expect("nothing can fail")
    }

    fn reasons(intake: &Intake<Vec<u8>>) -> Vec<(&str, RejectionReason)> {
        intake.rejections.iter().map(|rejection| (rejection.path.as_str(), rejection.reason)).collect()
    }

    #[test]
    fn every_file_ends_in_exactly_one_way() {
        let intake = intake_of(&[
            ("a/1.png", png(1)),
            ("a/copy.png", png(1)),
            ("a/both.png", png(2)),
            ("b/both.png", png(2)),
            ("b/2.jpg", png(3)),
            ("b/cut.png", png(4)[..60].to_vec()),
            ("b/empty.png", Vec::new()),
            ("b/drawing.svg", b"<svg/>".to_vec()),
            ("b/notes.txt", b"hello".to_vec()),
            ("b/lost.jpg", b"<html>404</html>".to_vec()),
            ("stray.png", png(5)),
        ]);
        let accepted: Vec<&str> = intake.accepted.iter().map(|accepted| accepted.path.as_str()).collect();
        assert_eq!(accepted, ["a/1.png", "b/2.jpg"]);
        assert_eq!(intake.accepted[1].photo.notes, [Note::WrongExtension]);
        assert_eq!(
            reasons(&intake),
            [
                ("a/both.png", RejectionReason::Conflicting),
                ("a/copy.png", RejectionReason::Duplicate),
                ("b/both.png", RejectionReason::Conflicting),
                ("b/cut.png", RejectionReason::Truncated),
                ("b/drawing.svg", RejectionReason::Unsupported),
                ("b/empty.png", RejectionReason::Empty),
                ("b/lost.jpg", RejectionReason::NotAPhoto),
                ("b/notes.txt", RejectionReason::NotAPhoto),
                ("stray.png", RejectionReason::NoClass),
            ]
        );
        let expected = IngestCounts {
            inputs: 11,
            accepted: 2,
            duplicates: 1,
            conflicting: 2,
            quarantined: 3,
            unsupported: 1,
            ignored: 2,
        };
        assert_eq!(intake.counts, expected);
    }

    #[test]
    fn progress_is_reported_after_every_content_in_order() {
        let files = [("a/1.png", png(1)), ("a/copy.png", png(1)), ("b/2.png", png(2)), ("b/cut.png", Vec::new())];
        let told = Mutex::new(Vec::new());
        intake_with_progress(&files, |done, total| told.lock().push((done, total)));
        assert_eq!(told.into_inner(), [(1, 3), (2, 3), (3, 3)]);
    }

    #[test]
    fn the_same_junk_in_every_folder_is_no_conflict() {
        let intake = intake_of(&[("a/Thumbs.db", b"x".to_vec()), ("b/Thumbs.db", b"x".to_vec())]);
        assert_eq!((intake.counts.ignored, intake.counts.conflicting), (2, 0));
        assert!(intake.class_photos.is_empty());
    }

    #[test]
    fn the_order_of_the_upload_changes_nothing() {
        let mut files = vec![("a/1.png", png(1)), ("a/0.png", png(1)), ("b/2.png", png(2)), ("b/3.png", png(3))];
        let paths = |intake: Intake<Vec<u8>>| intake.accepted.into_iter().map(|photo| photo.path).collect::<Vec<_>>();
        let forwards = paths(intake_of(&files));
        files.reverse();
        assert_eq!(paths(intake_of(&files)), forwards);
        assert_eq!(forwards, ["a/0.png", "b/2.png", "b/3.png"]);
    }
}
