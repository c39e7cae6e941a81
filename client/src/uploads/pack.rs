//! Sends many small files by one call.

use std::{collections::HashSet, fs::File, io::Read as _, path::PathBuf};

use bytes::Bytes;
use futures::stream;
use sortinghat_proto::{
    Digest, ObjectRef, limits,
    v1::{PackIndex, UploadObjectsRequest, upload_objects_request::Part},
};

use super::{
    hashing::unread,
    sending::{CHANGED, Lost, Missing},
};
use crate::{Client, ClientError, error::is_transient};

/// Larger files are not packed: a round trip for each costs them little.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;
/// Files of one pack. More would leave a set of some thousand files fewer packs than are sent at a time.
pub(super) const PACK_FILES: usize = 250;
/// Bytes of one pack. All of it is in memory while it is sent.
pub(super) const PACK_BYTES: u64 = 4 << 20;

/// Contents that were read, and still match their digests.
type Read = Vec<(ObjectRef, Bytes)>;

impl Client {
    /// Sends a pack. If the call breaks, only what the server still lacks is sent again. Returns the contents that no file has any more.
    pub(super) async fn send_pack(&self, pack: Vec<Missing>) -> Result<Lost, ClientError> {
        let reading = tokio::task::spawn_blocking(move || read_all(pack));
        let (mut pack, lost) = reading.await.expect("reading does not panic");
        let mut backoff = self.backoff();
        while !pack.is_empty() {
            let broken = match self.artifacts().upload_objects(stream::iter(messages(&pack))).await {
                Ok(_) => break,
                Err(status) => status,
            };
            if !is_transient(&broken) || !backoff.pause_after(&broken).await {
                return Err(ClientError::of(broken));
            }
            let digests: Vec<Digest> = pack.iter().map(|(object, _)| object.digest.clone()).collect();
            let missing: HashSet<Digest> = self.find_missing(&digests).await?.into_iter().collect();
            let before = pack.len();
            pack.retain(|(object, _)| missing.contains(&object.digest));
            if pack.len() < before {
                backoff.reset();
            }
        }
        Ok(lost)
    }
}

fn messages(pack: &Read) -> Vec<UploadObjectsRequest> {
    let index = PackIndex { objects: pack.iter().map(|(object, _)| object.clone().into()).collect() };
    let contents: Vec<&[u8]> = pack.iter().map(|(_, content)| content.as_ref()).collect();
    let contents = Bytes::from(contents.concat());
    let parts = std::iter::once(Part::Index(index)).chain(pieces(&contents).map(Part::Data));
    parts.map(|part| UploadObjectsRequest { part: Some(part) }).collect()
}

/// The content in pieces that fit into a message.
pub(super) fn pieces(content: &Bytes) -> impl Iterator<Item = Bytes> {
    let starts = (0..content.len()).step_by(limits::MAX_PIECE_BYTES);
    starts.map(|start| content.slice(start..(start + limits::MAX_PIECE_BYTES).min(content.len())))
}

/// Reads each content from the first file that still has it.
fn read_all(pack: Vec<Missing>) -> (Read, Lost) {
    let (mut read, mut lost) = (Vec::with_capacity(pack.len()), Vec::new());
    for Missing { hashed, paths } in pack {
        match read_one_of(&hashed.object, &paths) {
            Ok(content) => read.push((hashed.object, content)),
            Err(why) => lost.push((hashed.object.digest, why)),
        }
    }
    (read, lost)
}

fn read_one_of(object: &ObjectRef, paths: &[PathBuf]) -> Result<Bytes, String> {
    let mut why = String::new();
    for path in paths {
        let mut content = Vec::with_capacity(usize::try_from(object.size_bytes).unwrap_or(0) + 1);
        // A byte more than it had shows that it has grown.
        let read = File::open(path).and_then(|file| file.take(object.size_bytes + 1).read_to_end(&mut content));
        match read {
            Ok(_) if ObjectRef::of(&content) == *object => return Ok(content.into()),
            Ok(_) => why = CHANGED.to_owned(),
            Err(error) => why = unread(&error),
        }
    }
    Err(why)
}
