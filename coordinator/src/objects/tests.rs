use std::path::PathBuf;

use bytes::Bytes;
use futures::TryStreamExt as _;
use sortinghat_proto::{limits, time::UnixMs};
use tempfile::TempDir;

use super::*;
use crate::engine::{ObjectInventory as _, ObjectPresence as _, StoredObject};

struct Store {
    folder: TempDir,
    objects: Objects,
}

impl Store {
    fn open() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = ObjectStoreUrl::of_folder(folder.path()).expect("absolute");
        let objects = Objects::open(&url, Duration::from_secs(1)).expect("a folder opens");
        Self { folder, objects }
    }

    async fn upload(&self, announced: ObjectRef, pieces: &[Bytes]) -> Result<ObjectRef, ObjectError> {
        let mut upload = self.objects.upload(&Tenant::local(), announced).await?;
        for piece in pieces {
            if let Err(error) = upload.write(piece.clone()).await {
                upload.abort().await;
                return Err(error);
            }
        }
        upload.finish().await
    }

    async fn content(&self, digest: &Digest) -> Result<Vec<Bytes>, ObjectError> {
        self.objects.read(&Tenant::local(), digest.clone()).await?.try_collect().await
    }

    fn files(&self) -> Vec<PathBuf> {
        fn walk(folder: &std::path::Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").path()) {
                if entry.is_dir() { walk(&entry, found) } else { found.push(entry) }
            }
        }
        let mut found = vec![];
        walk(self.folder.path(), &mut found);
        found
    }
}

/// `count` pieces of one MiB that differ from each other.
fn mebibytes(count: usize) -> Vec<Bytes> {
    (0..count).map(|index| Bytes::from(vec![index as u8; 1 << 20])).collect()
}

#[tokio::test]
async fn what_arrives_in_small_pieces_does_not_keep_the_messages_in_memory() {
    let store = Store::open();
    let message = Bytes::from(vec![7; 1 << 20]);
    let mut pack = store.objects.pack(&Tenant::local(), vec![ObjectRef { size_bytes: 100, ..ObjectRef::of(b"pack") }]);
    pack.write(message.slice(..1)).await.expect("more is announced");
    assert!(message.is_unique(), "a pack keeps the message of which it took one byte");
    for size_bytes in [100, limits::MAX_OBJECT_BYTES] {
        let announced = ObjectRef { size_bytes, ..ObjectRef::of(b"object") };
        let mut upload = store.objects.upload(&Tenant::local(), announced).await.expect("it begins");
        upload.write(message.slice(..1)).await.expect("more is announced");
        assert!(message.is_unique(), "an upload of {size_bytes} bytes keeps the message of which it took one byte");
        upload.abort().await;
    }
}

#[tokio::test]
async fn small_and_large_objects_read_back_in_pieces_that_fit_a_message() {
    let store = Store::open();
    for count in [0, 1, 20] {
        let pieces = mebibytes(count);
        let object = ObjectRef::of(&pieces.concat());
        assert_eq!(store.upload(object.clone(), &pieces).await.expect("stored"), object);
        let read = store.content(&object.digest).await.expect("stored");
        assert!(read.iter().all(|piece| piece.len() <= limits::MAX_PIECE_BYTES));
        assert_eq!(read.concat(), pieces.concat());
    }
}

#[tokio::test]
async fn content_that_does_not_match_the_announcement_leaves_no_file() {
    let store = Store::open();
    for count in [1, 20] {
        let pieces = mebibytes(count);
        let honest = ObjectRef::of(&pieces.concat());
        let other_content = ObjectRef { digest: Digest::of(b"other"), ..honest.clone() };
        let shorter = ObjectRef { size_bytes: honest.size_bytes - 1, ..honest.clone() };
        let longer = ObjectRef { size_bytes: honest.size_bytes + 1, ..honest };
        for announced in [other_content, shorter, longer] {
            let error = store.upload(announced, &pieces).await.expect_err("it does not match the announcement");
            assert!(matches!(error, ObjectError::Mismatch { .. }), "{error}");
        }
    }
    assert_eq!(store.files(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn the_same_object_twice_is_stored_once() {
    let store = Store::open();
    for _ in 0..2 {
        store.objects.put(&Tenant::local(), Bytes::from_static(b"photo")).await.expect("stored");
    }
    assert_eq!(store.files().len(), 1);
}

#[tokio::test]
async fn an_announcement_beyond_the_limit_is_refused_before_any_byte() {
    let announced = ObjectRef { digest: Digest::of(b""), size_bytes: limits::MAX_OBJECT_BYTES + 1 };
    let error = Store::open().upload(announced, &[]).await.expect_err("too large");
    assert!(matches!(error, ObjectError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn missing_objects_are_listed_per_tenant_and_in_order() {
    let store = Store::open();
    let stored = store.objects.put(&Tenant::local(), Bytes::from_static(b"photo")).await.expect("stored");
    let (first, last) = (Digest::of(b"1"), Digest::of(b"2"));
    let asked = vec![first.clone(), stored.digest.clone(), last.clone()];
    let other: Tenant = "other".parse().expect("a tenant");
    assert_eq!(store.objects.missing(&Tenant::local(), asked.clone()).await.expect("asked"), [first, last]);
    assert_eq!(store.objects.missing(&other, asked.clone()).await.expect("asked"), asked);
}

#[tokio::test]
async fn an_object_that_is_corrupt_in_the_store_is_reported_as_such() {
    let store = Store::open();
    let object = store.objects.put(&Tenant::local(), Bytes::from_static(b"photo")).await.expect("stored");
    std::fs::write(&store.files()[0], b"phot0").expect("writable");
    let error = store.content(&object.digest).await.expect_err("its bytes changed");
    assert!(matches!(error, ObjectError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_local_folder_honours_create_if_absent_and_the_probe_leaves_nothing() {
    let store = Store::open();
    assert_eq!(store.objects.probe().await.expect("writable"), CreateIfAbsent::Honoured);
    assert_eq!(store.files(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn documents_are_read_whole_and_photos_are_not_taken_for_documents() {
    let store = Store::open();
    let read = async |content: &'static [u8]| {
        let object = store.objects.put(&Tenant::local(), Bytes::from_static(content)).await.expect("stored");
        store.objects.document(&Tenant::local(), &object.digest).await
    };
    for document in [&b"{}"[..], b" \n{\"files\":[]}"] {
        assert_eq!(read(document).await, Ok(Some(Bytes::from_static(document))));
    }
    for other in [&b"\x89PNG"[..], b"", b"[]"] {
        assert!(read(other).await.expect("stored").is_none_or(|content| content.is_empty()));
    }
    assert_eq!(store.objects.document(&Tenant::local(), &Digest::of(b"absent")).await, Ok(None));
}

#[tokio::test]
async fn a_corrupt_document_is_an_error_since_its_references_are_unknown() {
    let store = Store::open();
    let object = store.objects.put(&Tenant::local(), Bytes::from_static(b"{\"a\":1}")).await.expect("stored");
    std::fs::write(&store.files()[0], b"{\"a\":2}").expect("writable");
    let refused =
        store.objects.document(&Tenant::local(), &object.digest).await.expect_err("its digest does not match");
    assert_eq!(refused.code, ErrorCode::CorruptObject);
    let sound = store.objects.put(&Tenant::local(), Bytes::from_static(b"intact")).await.expect("stored");
    for (digest, is_sound) in [(&sound.digest, true), (&object.digest, false), (&Digest::of(b"never stored"), false)] {
        assert_eq!(store.objects.is_sound(&Tenant::local(), digest).await, Ok(is_sound));
    }
}

#[tokio::test]
async fn objects_are_listed_by_tenant_and_removed_one_by_one() {
    let store = Store::open();
    let other: Tenant = "other".parse().expect("a tenant");
    assert_eq!(store.objects.tenants().await, Ok(vec![]));
    let before = store.objects.now().await.expect("writable");
    let object = store.objects.put(&Tenant::local(), Bytes::from_static(b"photo")).await.expect("stored");
    store.objects.put(&other, Bytes::from_static(b"another photo")).await.expect("stored");
    assert_eq!(store.objects.tenants().await, Ok(vec![Tenant::local(), other.clone()]));
    let listed: Vec<StoredObject> = store.objects.list(&Tenant::local()).try_collect().await.expect("readable");
    let [stored] = listed.as_slice() else { panic!("{listed:?} is not one object") };
    assert_eq!((&stored.digest, stored.size_bytes), (&object.digest, 5));
    assert!(stored.written >= before && stored.written <= store.objects.now().await.expect("writable"));
    assert_eq!(store.objects.find(&Tenant::local(), &object.digest).await, Ok(Some(stored.clone())));
    for _ in 0..2 {
        store.objects.remove(&Tenant::local(), &object.digest).await.expect("gone");
        assert_eq!(store.objects.find(&Tenant::local(), &object.digest).await, Ok(None));
    }
    assert_eq!(store.files().len(), 1, "the other tenant's object is left, and no probe object");
}

#[tokio::test]
async fn the_first_queue_that_claims_a_store_owns_it() {
    let store = Store::open();
    for queue in ["first", "second", "first"] {
        assert_eq!(store.objects.claim(queue).await, Ok("first".to_owned()));
    }
    let listed: Vec<_> = store.objects.list(&Tenant::local()).try_collect().await.expect("readable");
    assert_eq!(listed, [], "the queue's id is not listed as an object");
}

#[tokio::test]
async fn the_file_of_an_unfinished_upload_is_removed_once_nothing_is_written_to_it_any_more() {
    let store = Store::open();
    let large = ObjectRef { digest: Digest::of(b"never sent"), size_bytes: 20 << 20 };
    let mut dying = store.objects.upload(&Tenant::local(), large).await.expect("begun");
    for piece in mebibytes(9) {
        dying.write(piece).await.expect("written");
    }
    std::mem::forget(dying);
    store.objects.put(&Tenant::local(), Bytes::from_static(b"photo")).await.expect("stored");
    let stranger = store.folder.path().join("t/local/notes#1");
    std::fs::write(&stranger, "not ours").expect("writable");
    assert_eq!(store.files().len(), 3);
    let remove = async |before| store.objects.remove_unfinished(&Tenant::local(), before).await;
    assert_eq!(remove(UnixMs(0)).await, Ok(0), "the upload may still go on");
    assert_eq!(remove(UnixMs(u64::MAX)).await, Ok(1));
    assert_eq!(remove(UnixMs(u64::MAX)).await, Ok(0));
    assert!(stranger.exists() && store.files().len() == 2);
    let nobody: Tenant = "nobody".parse().expect("a tenant");
    assert_eq!(store.objects.remove_unfinished(&nobody, UnixMs(u64::MAX)).await, Ok(0));
}
