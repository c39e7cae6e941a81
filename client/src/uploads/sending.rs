//! Sends the contents that the server lacks: small files in packs, others one by one, and large ones in parts.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sortinghat_proto::{
    Digest, ObjectRef, limits,
    v1::{FindMissingObjectsRequest, JoinObjectsRequest, UploadObjectRequest, upload_object_request::Part},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Amount, UploadProgress,
    hashing::{Hashed, PART_BYTES, hash, unread},
    pack,
};
use crate::{Client, ClientError, client::Artifacts};

/// Packs and files that are sent at a time. Each waits until it is durable, so several at a time use that waiting, and that for the line.
const AT_A_TIME: usize = 8;
/// Parts of one file that are sent at a time.
const PARTS_AT_A_TIME: usize = 2;
/// Questions for missing objects that are asked at a time.
const QUESTIONS_AT_A_TIME: usize = 4;
/// Pieces of one upload that are read before they can be sent.
const PIECES_AHEAD: usize = 2;

/// A content that the server lacks, and the files that had it when they were hashed.
#[derive(Debug, Clone)]
pub(super) struct Missing {
    pub(super) hashed: Hashed,
    pub(super) paths: Vec<PathBuf>,
}

/// What is sent together.
#[derive(Debug)]
enum Shipment {
    Pack(Vec<Missing>),
    File(Missing),
}

/// Contents that no file has any more, and why.
pub(super) type Lost = Vec<(Digest, String)>;

/// A file, or a part of it.
#[derive(Debug, Clone)]
struct Section {
    path: PathBuf,
    start: u64,
    is_whole: bool,
    object: ObjectRef,
}

/// How much is sent, and who is told of it.
pub(super) struct Tally<'p, P> {
    in_all: Amount,
    files: AtomicU64,
    bytes: AtomicU64,
    progress: &'p P,
}

impl<'p, P: Fn(UploadProgress) + Sync> Tally<'p, P> {
    fn new(missing: &[Missing], progress: &'p P) -> Self {
        let in_all = Amount::in_all(missing.iter().map(|one| one.hashed.object.size_bytes));
        let tally = Self { in_all, files: AtomicU64::new(0), bytes: AtomicU64::new(0), progress };
        tally.add(0, 0);
        tally
    }

    fn add(&self, files: u64, bytes: u64) {
        let files = self.files.fetch_add(files, Ordering::Relaxed) + files;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.progress)(UploadProgress::Sent(Amount { files, bytes, ..self.in_all }));
    }
}

/// Divides contents into packs, and files that are sent by themselves.
fn shipments(missing: Vec<Missing>) -> Vec<Shipment> {
    let (mut shipments, mut pack, mut bytes) = (Vec::new(), Vec::new(), 0);
    for one in missing {
        let size_bytes = one.hashed.object.size_bytes;
        if size_bytes > pack::MAX_FILE_BYTES {
            shipments.push(Shipment::File(one));
            continue;
        }
        if pack.len() == pack::PACK_FILES || bytes + size_bytes > pack::PACK_BYTES {
            shipments.push(Shipment::Pack(std::mem::take(&mut pack)));
            bytes = 0;
        }
        bytes += size_bytes;
        pack.push(one);
    }
    if !pack.is_empty() {
        shipments.push(Shipment::Pack(pack));
    }
    shipments
}

impl Client {
    /// Sends the contents that the server lacks.
    pub(super) async fn send_all(
        &self,
        missing: Vec<Missing>,
        progress: &(impl Fn(UploadProgress) + Sync),
    ) -> Result<Lost, ClientError> {
        let tally = &Tally::new(&missing, progress);
        let sent = shipments(missing).into_iter().map(|shipment| async move {
            match shipment {
                Shipment::Pack(pack) => {
                    let bytes = pack.iter().map(|one| one.hashed.object.size_bytes).sum();
                    let files = pack.len() as u64;
                    let lost = self.send_pack(pack).await?;
                    tally.add(files, bytes);
                    Ok(lost)
                }
                Shipment::File(one) => {
                    let lost = self.send_from_one_of(&one, tally).await?;
                    tally.add(1, 0);
                    Ok::<Lost, ClientError>(lost.map(|why| (one.hashed.object.digest, why)).into_iter().collect())
                }
            }
        });
        let lost: Vec<Lost> = stream::iter(sent).buffer_unordered(AT_A_TIME).try_collect().await?;
        Ok(lost.concat())
    }

    /// Sends a content that several files may have from the first that still has it. Returns why none has.
    async fn send_from_one_of<P: Fn(UploadProgress) + Sync>(
        &self,
        missing: &Missing,
        tally: &Tally<'_, P>,
    ) -> Result<Option<String>, ClientError> {
        let mut why = None;
        for path in &missing.paths {
            match self.send_file(&missing.hashed, path, &|bytes| tally.add(0, bytes)).await {
                Ok(()) => return Ok(None),
                Err(ClientError::FileChanged { .. }) => why = Some(CHANGED.to_owned()),
                Err(ClientError::File { source, .. }) => why = Some(unread(&source)),
                Err(error) => return Err(error),
            }
        }
        Ok(why)
    }

    /// Sends a file, in parts if it is large. `sent` is told how many bytes the server has got, or had.
    pub(super) async fn send_file(
        &self,
        hashed: &Hashed,
        path: &Path,
        sent: &(impl Fn(u64) + Sync),
    ) -> Result<(), ClientError> {
        let is_whole = hashed.parts.is_empty();
        let section =
            |start, object: &ObjectRef| Section { path: path.to_owned(), start, is_whole, object: object.clone() };
        if is_whole {
            self.send_section(section(0, &hashed.object)).await?;
            sent(hashed.object.size_bytes);
            return Ok(());
        }
        let send = |start, part: &ObjectRef| self.send_section(section(start, part));
        self.send_in_parts(hashed, send, sent).await
    }

    /// Sends bytes from memory, in parts if there are many.
    pub(super) async fn send_bytes(&self, content: &Bytes) -> Result<(), ClientError> {
        let size_bytes = content.len() as u64;
        let hashed = hash(&mut content.as_ref(), size_bytes, &mut vec![0; limits::MAX_PIECE_BYTES])
            .expect("reading memory does not fail");
        if hashed.parts.is_empty() {
            return self.send_slice(&hashed.object, content.clone()).await;
        }
        let slice = |start: u64, part: &ObjectRef| {
            let start = usize::try_from(start).expect("within the content");
            content.slice(start..start + usize::try_from(part.size_bytes).expect("within the content"))
        };
        let send = |start, part: &ObjectRef| {
            let (content, part) = (slice(start, part), part.clone());
            async move { self.send_slice(&part, content).await }
        };
        self.send_in_parts(&hashed, send, &|_| {}).await
    }

    /// Sends those parts of an object that the server lacks, by a function that gets the start of a part, and has the server join all parts.
    async fn send_in_parts<F: Future<Output = Result<(), ClientError>>>(
        &self,
        hashed: &Hashed,
        send: impl Fn(u64, &ObjectRef) -> F,
        sent: &(impl Fn(u64) + Sync),
    ) -> Result<(), ClientError> {
        let size_bytes = hashed.object.size_bytes;
        let starts = (0..size_bytes).step_by(usize::try_from(PART_BYTES).expect("small"));
        let parts: Vec<(u64, ObjectRef)> = starts
            .zip(&hashed.parts)
            .map(|(start, digest)| {
                (start, ObjectRef { digest: digest.clone(), size_bytes: PART_BYTES.min(size_bytes - start) })
            })
            .collect();
        let mut unsent: HashSet<Digest> = self.find_missing(&hashed.parts).await?.into_iter().collect();
        let sending = parts.iter().map(|(start, part)| {
            // Parts may have the same content.
            let sending = unsent.remove(&part.digest).then(|| send(*start, part));
            async move {
                if let Some(sending) = sending {
                    sending.await?;
                }
                sent(part.size_bytes);
                Ok::<(), ClientError>(())
            }
        });
        let sending: Vec<_> = sending.collect();
        stream::iter(sending).buffer_unordered(PARTS_AT_A_TIME).try_collect::<()>().await?;
        let parts = parts.into_iter().map(|(_, part)| part.into()).collect();
        let request = JoinObjectsRequest { object: Some(hashed.object.clone().into()), parts };
        let join = |mut artifacts: Artifacts, request| async move { artifacts.join_objects(request).await };
        self.call(self.artifacts(), request, join).await.map(drop)
    }

    /// Those of `digests` that the server lacks, in the same order.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, ClientError> {
        let asked = digests.chunks(limits::MAX_DIGESTS_PER_CALL).map(|some| {
            let request = FindMissingObjectsRequest { digests: some.iter().map(Digest::to_string).collect() };
            let call = |mut artifacts: Artifacts, request| async move { artifacts.find_missing_objects(request).await };
            self.call(self.artifacts(), request, call)
        });
        // Collected, as the compiler cannot tell that the stream may be sent to another thread.
        let asked: Vec<_> = asked.collect();
        let answers: Vec<_> = stream::iter(asked).buffered(QUESTIONS_AT_A_TIME).try_collect().await?;
        let missing: HashSet<String> = answers.into_iter().flat_map(|answer| answer.missing).collect();
        Ok(digests.iter().filter(|digest| missing.contains(digest.as_str())).cloned().collect())
    }

    async fn send_slice(&self, object: &ObjectRef, content: Bytes) -> Result<(), ClientError> {
        let call = || {
            let header = UploadObjectRequest { part: Some(Part::Header(object.clone().into())) };
            let pieces: Vec<_> =
                pack::pieces(&content).map(|data| UploadObjectRequest { part: Some(Part::Data(data)) }).collect();
            let mut service = self.artifacts();
            async move { service.upload_object(stream::iter(std::iter::once(header).chain(pieces))).await }
        };
        self.retry(call).await.map(drop)
    }

    async fn send_section(&self, section: Section) -> Result<(), ClientError> {
        let call = || async {
            let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
            let section = section.clone();
            // This thread ends when the call ends, because then its receiver is gone.
            tokio::task::spawn_blocking(move || send_pieces(section, &pieces));
            self.artifacts().upload_object(ReceiverStream::new(receiver)).await
        };
        match self.retry(call).await {
            Ok(_) => Ok(()),
            // The server received other bytes than were hashed here, or the file cannot be read any more.
            Err(ClientError::Refused(refusal)) => {
                let path = section.path.clone();
                let now = tokio::task::spawn_blocking(move || section.hash().map(|now| now == section.object)).await;
                match now.expect("hashing does not panic").map_err(ClientError::reading(&path))? {
                    true => Err(ClientError::Refused(refusal)),
                    false => Err(ClientError::FileChanged { path }),
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// Why a file is not in an upload.
pub(super) const CHANGED: &str = "it changed while it was uploaded";

impl Section {
    /// A whole file is read to its end, however long it is now, so that a file that has grown is refused.
    fn open(&self) -> io::Result<io::Take<File>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.start))?;
        Ok(file.take(if self.is_whole { u64::MAX } else { self.object.size_bytes }))
    }

    fn hash(&self) -> io::Result<ObjectRef> {
        Ok(hash(&mut self.open()?, 0, &mut vec![0; 1 << 16])?.object)
    }
}

/// Sends the header and the content. If the file cannot be read, the content ends early, and the server refuses it.
fn send_pieces(section: Section, pieces: &mpsc::Sender<UploadObjectRequest>) {
    let mut content = section.open();
    let mut part = Some(Part::Header(section.object.into()));
    while let Some(next) = part {
        if pieces.blocking_send(UploadObjectRequest { part: Some(next) }).is_err() {
            return;
        }
        part = content.as_mut().ok().and_then(read_piece);
    }
}

fn read_piece(content: &mut impl io::Read) -> Option<Part> {
    let mut data = Vec::with_capacity(limits::MAX_PIECE_BYTES);
    content.take(limits::MAX_PIECE_BYTES as u64).read_to_end(&mut data).ok()?;
    (!data.is_empty()).then(|| Part::Data(data.into()))
}

/// The files of each content that the server lacks.
pub(super) fn missing_of<'h>(
    missing: Vec<Digest>,
    files: impl Iterator<Item = (&'h Path, &'h Hashed)>,
) -> Vec<Missing> {
    let mut places: HashMap<&Digest, Missing> = HashMap::new();
    for (path, hashed) in files {
        let missing =
            places.entry(&hashed.object.digest).or_insert_with(|| Missing { hashed: hashed.clone(), paths: vec![] });
        missing.paths.push(path.to_owned());
    }
    missing.iter().filter_map(|digest| places.remove(digest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(size_bytes: u64) -> Missing {
        let object = ObjectRef { digest: Digest::of(&size_bytes.to_le_bytes()), size_bytes };
        Missing { hashed: Hashed { object, parts: vec![] }, paths: vec![] }
    }

    #[test]
    fn small_files_are_packed_within_the_bounds_of_a_call_and_others_are_not() {
        let small = vec![missing(5_000); 2 * limits::MAX_PACKED_OBJECTS + 1];
        let medium = vec![missing(pack::MAX_FILE_BYTES); 10];
        let large = vec![missing(pack::MAX_FILE_BYTES + 1); 2];
        let all = [small, medium, large].concat();
        let (mut packs, mut files) = (Vec::new(), 0);
        for shipment in shipments(all.clone()) {
            match shipment {
                Shipment::Pack(pack) => packs.push(pack),
                Shipment::File(_) => files += 1,
            }
        }
        assert_eq!(files, 2);
        assert_eq!(packs.iter().map(Vec::len).sum::<usize>(), all.len() - 2);
        for pack in packs {
            let bytes: u64 = pack.iter().map(|one| one.hashed.object.size_bytes).sum();
            assert!(!pack.is_empty() && pack.len() <= limits::MAX_PACKED_OBJECTS && bytes <= limits::MAX_PACK_BYTES);
        }
    }
}
