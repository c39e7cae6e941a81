use std::{fs, io::Read as _, path::PathBuf};

use super::*;

struct Folder {
    root: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Folder {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { root: tempfile::tempdir().unwrap(), runtime }
    }

    fn objects(&self, cache_bytes: u64) -> TenantObjects {
        let url = Url::from_directory_path(self.root.path().join("store")).unwrap();
        let cache = self.root.path().join("cache");
        Objects::open(&url, cache, cache_bytes, self.runtime.handle().clone()).unwrap().of_tenant(Tenant::local())
    }

    fn stored(&self, object: &ObjectRef) -> PathBuf {
        self.root.path().join("store").join(object.digest.object_key(&Tenant::local()))
    }

    fn cached(&self, object: &ObjectRef) -> PathBuf {
        self.root.path().join("cache").join(object.digest.object_key(&Tenant::local()))
    }
}

fn content(mut file: File) -> Vec<u8> {
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    content
}

#[test]
fn content_that_is_put_twice_is_one_object_and_reads_back() {
    let folder = Folder::new();
    let objects = folder.objects(1 << 20);
    let object = objects.put("a photo").unwrap();
    assert_eq!(objects.put("a photo").unwrap(), object);
    assert_eq!(objects.read(&object).unwrap(), "a photo");
    assert_eq!(objects.find(&object.digest).unwrap(), object);
    assert_eq!(content(objects.open(&object).unwrap()), b"a photo");
}

#[test]
fn an_object_that_was_damaged_in_the_store_is_refused_and_never_cached() {
    let folder = Folder::new();
    let objects = folder.objects(1 << 20);
    let object = objects.put("a photo").unwrap();
    fs::write(folder.stored(&object), "a phot0").unwrap();
    assert!(matches!(objects.read(&object), Err(ObjectError::Corrupt { .. })));
    assert!(matches!(objects.open(&object), Err(ObjectError::Corrupt { .. })));
    assert!(!folder.cached(&object).exists());
}

#[test]
fn an_absent_object_is_missing_and_not_a_broken_store() {
    let folder = Folder::new();
    let error = folder.objects(1 << 20).read(&ObjectRef::of(b"never stored")).unwrap_err();
    assert!(matches!(error, ObjectError::Missing { .. }), "{error}");
}

#[test]
fn one_tenant_cannot_read_anothers_object_by_its_digest_not_even_from_the_cache() {
    let folder = Folder::new();
    let objects = folder.objects(1 << 20);
    let object = objects.put("private").unwrap();
    objects.open(&object).unwrap();
    let other = TenantObjects { tenant: "other".parse().unwrap(), ..objects };
    assert!(matches!(other.open(&object), Err(ObjectError::Missing { .. })));
}

#[test]
fn a_damaged_cache_entry_is_fetched_again_by_the_next_process() {
    let folder = Folder::new();
    let object = folder.objects(1 << 20).put("a shard").unwrap();
    for damage in ["a sha", "A SHARD"] {
        folder.objects(1 << 20).open(&object).unwrap();
        fs::write(folder.cached(&object), damage).unwrap();
        assert_eq!(content(folder.objects(1 << 20).open(&object).unwrap()), b"a shard", "after {damage:?}");
    }
}

#[test]
fn the_cache_drops_what_was_used_longest_ago_and_an_open_file_survives_it() {
    let folder = Folder::new();
    let objects = folder.objects(25);
    let [first, second, third] = ["first 10 b", "second 10b", "third 10 b"].map(|text| objects.put(text).unwrap());
    let age = |object: &ObjectRef, secs: u64| {
        let file = File::options().write(true).open(folder.cached(object)).unwrap();
        let written = file.metadata().unwrap().modified().unwrap();
        file.set_modified(written - std::time::Duration::from_secs(secs)).unwrap();
    };
    objects.open(&second).unwrap();
    age(&second, 60);
    let held = objects.open(&first).unwrap();
    age(&first, 120);
    objects.open(&third).unwrap();
    assert!(!folder.cached(&first).exists(), "used longest ago");
    assert!(folder.cached(&second).exists() && folder.cached(&third).exists());
    assert_eq!(content(held), b"first 10 b");
}

#[test]
fn an_object_larger_than_the_cache_is_still_readable() {
    let folder = Folder::new();
    let objects = folder.objects(4);
    let object = objects.put("more than four bytes").unwrap();
    assert_eq!(content(objects.open(&object).unwrap()), b"more than four bytes");
}

#[test]
fn a_url_that_names_no_store_is_refused_with_what_would_do() {
    let folder = Folder::new();
    let url = Url::parse("http://example.org/bucket").unwrap();
    let error = Objects::open(&url, folder.root.path().into(), 1, folder.runtime.handle().clone()).unwrap_err();
    assert!(error.to_string().contains("s3://BUCKET/PREFIX"), "{error}");
}
