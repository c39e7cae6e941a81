//! The broker and the executor's end of its channel together, over a folder.

use std::{
    cell::Cell,
    fs::{self, File},
    io::Read as _,
    os::fd::AsFd as _,
    path::PathBuf,
    time::Duration,
};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use sortinghat_proto::{
    Digest, ObjectRef,
    executor::v1::{
        ObjectAnswer, ObjectRequest, PutObject, object_answer::Answer, object_failure::Kind, object_request::Request,
    },
    limits::MAX_OBJECT_BYTES,
};

use super::*;
use crate::objects::{ObjectError, PublishedWeights, TenantObjects, channel, sealed};

struct Folder {
    root: tempfile::TempDir,
    web: WebOptions,
}

/// Objects, and what keeps them served.
struct Served {
    objects: TenantObjects,
    connection: Connection,
    _broker: Broker,
}

impl std::ops::Deref for Served {
    type Target = TenantObjects;

    fn deref(&self) -> &TenantObjects {
        &self.objects
    }
}

impl Folder {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), web: WebOptions::default() }
    }

    fn broker(&self, cache_bytes: u64) -> Broker {
        let options = BrokerOptions {
            object_store: ObjectStoreUrl::of_folder(&self.root.path().join("store")).unwrap(),
            tenant_profiles: Vec::new(),
            cache_dir: self.root.path().join("cache"),
            cache_bytes,
            weights_dir: self.root.path().join("weights"),
            shows_hub_token: false,
            web: self.web.clone(),
        };
        Broker::open(&options).unwrap()
    }

    fn objects(&self, cache_bytes: u64) -> Served {
        let broker = self.broker(cache_bytes);
        let (connection, socket) = broker.connect().unwrap();
        connection.grant(Some(Grant::of_tenant(Tenant::local())));
        Served { objects: TenantObjects::over(socket).unwrap(), connection, _broker: broker }
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
    objects.connection.grant(Some(Grant::of_tenant("other".parse().unwrap())));
    assert!(matches!(objects.open(&object), Err(ObjectError::Missing { .. })));
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

/// The far end of a channel in the hands of somebody who keeps no rule.
struct Hostile {
    last_id: Cell<u64>,
    socket: OwnedFd,
    connection: Connection,
    _broker: Broker,
}

impl Hostile {
    fn of(folder: &Folder) -> Self {
        let broker = folder.broker(1 << 20);
        let (connection, socket) = broker.connect().unwrap();
        connection.grant(Some(Grant::of_tenant(Tenant::local())));
        Self { last_id: Cell::new(0), socket, connection, _broker: broker }
    }

    fn ask(&self, request: Request, file: Option<&File>) -> Answer {
        self.last_id.update(|id| id + 1);
        let request = ObjectRequest { id: self.last_id.get(), request: Some(request) };
        channel::send(&self.socket, &request, file.map(|file| file.as_fd())).unwrap();
        let (answer, _) = channel::receive::<ObjectAnswer>(&self.socket).unwrap().expect("the connection lives");
        answer.answer.unwrap()
    }

    fn refused(&self, request: Request, file: Option<&File>) -> String {
        match self.ask(request, file) {
            Answer::Failure(failure) if failure.kind() == Kind::Refused => failure.reason,
            answer => panic!("expected to be refused: {answer:?}"),
        }
    }

    /// How the worker says that the rules were broken. It closes the connection.
    fn broken(mut self) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = runtime.block_on(async { tokio::time::timeout(PATIENCE, self.connection.broken()).await });
        let told = told.expect("the worker notices");
        while let Ok(Some(_)) = channel::receive::<ObjectAnswer>(&self.socket) {}
        told
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn what_is_to_be_stored_must_come_in_a_memory_file_that_nobody_can_change() {
    let folder = Folder::new();
    let hostile = Hostile::of(&folder);
    let put = || Request::Put(PutObject {});
    let open = sealed::memory_file().unwrap();
    let half = sealed::memory_file().unwrap();
    fcntl(&half, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).unwrap();
    let of_disk = tempfile::tempfile().unwrap();
    let null = File::open("/dev/null").unwrap();
    for (what, file) in [
        ("nothing", None),
        ("unsealed", Some(&open)),
        ("half sealed", Some(&half)),
        ("a file", Some(&of_disk)),
        ("a device", Some(&null)),
    ] {
        let reason = hostile.refused(put(), file);
        assert!(reason.contains("sealed memory file"), "{what}: {reason}");
    }
    let vast = sealed::memory_file().unwrap();
    vast.set_len(MAX_OBJECT_BYTES + 1).unwrap();
    let vast = File::from(sealed::seal(vast).unwrap());
    assert!(hostile.refused(put(), Some(&vast)).contains("are allowed"));
    let good = File::from(sealed::sealed(b"a photo").unwrap());
    let Answer::Object(object) = hostile.ask(put(), Some(&good)) else { panic!("it is served all the same") };
    assert_eq!(object.digest, Digest::of(b"a photo").to_string());
}

#[test]
fn nothing_is_served_without_a_task_and_nothing_of_another_tenant_with_one() {
    let folder = Folder::new();
    let private = folder.objects(1 << 20).put("private").unwrap();
    let hostile = Hostile::of(&folder);
    hostile.connection.grant(Some(Grant::of_tenant("other".parse().unwrap())));
    for request in [
        Request::Read(private.clone().into()),
        Request::Open(private.clone().into()),
        Request::Find(private.digest.to_string()),
    ] {
        let answer = hostile.ask(request, None);
        assert!(matches!(&answer, Answer::Failure(failure) if failure.kind() == Kind::Missing), "{answer:?}");
    }
    hostile.connection.grant(None);
    assert!(hostile.refused(Request::Read(private.into()), None).contains("no task is running"));
}

#[test]
fn the_hub_is_asked_only_for_the_repository_that_the_task_names() {
    let folder = Folder::new();
    let hostile = Hostile::of(&folder);
    let granted = Grant { hub_repository: Some("owner/name".to_owned()), ..Grant::of_tenant(Tenant::local()) };
    hostile.connection.grant(Some(granted));
    for name in ["owner/another", "../../etc", ""] {
        assert!(hostile.refused(Request::HubRepository(name.to_owned()), None).contains("another repository"));
    }
    assert!(hostile.refused(Request::Backbone("../passwd".to_owned()), None).contains("unknown backbone"));
}

#[test]
fn an_object_whose_length_is_not_the_one_asked_for_makes_no_room_in_the_cache() {
    let folder = Folder::new();
    let objects = folder.objects(25);
    let kept = objects.put("kept").unwrap();
    objects.open(&kept).unwrap();
    let small = objects.put("small").unwrap();
    let vast = ObjectRef { size_bytes: 1 << 30, ..small };
    assert!(matches!(objects.open(&vast), Err(ObjectError::Corrupt { .. })));
    assert!(matches!(objects.read(&vast), Err(ObjectError::Corrupt { .. })));
    assert!(folder.cached(&kept).exists(), "nothing was evicted for an object that is not there");
}

#[test]
fn a_connection_whose_rules_are_broken_is_closed_and_the_supervisor_hears_why() {
    let folder = Folder::new();
    let object = folder.objects(1 << 20).put("a photo").unwrap();
    let garbage = Hostile::of(&folder);
    channel::send_bytes(&garbage.socket, &[0xff; 64], None).unwrap();
    assert!(garbage.broken().contains("unreadable"));
    let unknown = Hostile::of(&folder);
    channel::send(&unknown.socket, &ObjectRequest { id: 1, request: None }, None).unwrap();
    assert!(unknown.broken().contains("unknown request"));
    let flood = Hostile::of(&folder);
    for id in 0..100_000 {
        let request = ObjectRequest { id, request: Some(Request::Read(object.clone().into())) };
        // It reads no answer, and stops once it cannot send any more.
        if channel::send(&flood.socket, &request, None).is_err() {
            break;
        }
    }
    assert!(flood.broken().contains("requests under way"));
}

#[test]
fn many_threads_ask_at_the_same_time_and_each_gets_its_own_answer() {
    let folder = Folder::new();
    let objects = folder.objects(1 << 20);
    let stored: Vec<ObjectRef> = (0..400).map(|number| objects.put(format!("photo {number}")).unwrap()).collect();
    std::thread::scope(|scope| {
        for part in stored.chunks(2) {
            scope.spawn(|| {
                part.iter().for_each(|object| assert_eq!(ObjectRef::of(&objects.read(object).unwrap()), *object))
            });
        }
    });
}

#[test]
fn a_worker_that_is_gone_is_an_error_and_no_endless_wait() {
    let folder = Folder::new();
    let Served { objects, connection, .. } = folder.objects(1 << 20);
    drop(connection);
    let error = objects.read(&ObjectRef::of(b"a photo")).unwrap_err();
    assert!(matches!(error, ObjectError::Refused { .. }), "{error}");
}

#[test]
fn installed_weights_come_as_a_file_with_their_name() {
    let folder = Folder::new();
    fs::create_dir(folder.root.path().join("weights")).unwrap();
    fs::write(folder.root.path().join("weights/resnet18.safetensors"), b"weights").unwrap();
    let objects = folder.objects(1 << 20);
    let (origin, file) = objects.weights(PublishedWeights::Backbone(sortinghat_proto::Backbone::Resnet18)).unwrap();
    assert_eq!((origin.as_str(), content(file)), ("resnet18.safetensors", b"weights".to_vec()));
    let absent =
        objects.weights(PublishedWeights::Backbone(sortinghat_proto::Backbone::EfficientnetLite0)).unwrap_err();
    let told = absent.to_string();
    assert!(told.starts_with("there are no weights for efficientnet_lite0: they are not installed"), "{told}");
    assert!(!told.contains(folder.root.path().to_str().unwrap()), "{told}");
}

/// A task that gathers from a list of URLs over http.
fn gathering() -> Grant {
    let urls = sortinghat_proto::GatherFrom::Urls(ObjectRef::of(b"urls"));
    let spec = sortinghat_proto::GatherSpec {
        dataset_name: "cats".parse().unwrap(),
        from: urls,
        allow_http: true,
        dataset: None,
        split: sortinghat_proto::Split::Folds(2),
        seed: 0,
        allow_failures: false,
        derivative_short_side_px: 64,
    };
    let spec = Some(JobSpec::Gather(spec).into());
    Grant::of(&v1::Assignment { tenant: Tenant::local().to_string(), spec, ..Default::default() }).unwrap()
}

#[test]
fn a_task_fetches_from_the_web_only_if_it_gathers_is_allowed_to_and_has_decoded_nothing() {
    let mut folder = Folder::new();
    let is_refused = |error: ObjectError, says: &str| assert!(error.to_string().contains(says), "{error}");
    let served = folder.objects(1 << 20);
    is_refused(served.fetch_photo("http://127.0.0.1/", false).unwrap_err(), "fetches nothing");
    served.connection.grant(Some(gathering()));
    let error = served.fetch_photo("http://127.0.0.1/", false).unwrap_err();
    assert!(matches!(error, ObjectError::NotAllowed { .. }), "{error}");
    folder.web.rights = crate::fetch::Rights::Everybody;
    let served = folder.objects(1 << 20);
    served.connection.grant(Some(gathering()));
    let reason = served.fetch_photo("http://127.0.0.1/", false).unwrap().unwrap_err();
    assert!(reason.contains("not on the public internet"), "{reason}");
    is_refused(served.search_photos("cats", None).unwrap_err(), "does not search");
    served.end_fetching().unwrap();
    is_refused(served.fetch_photo("http://127.0.0.1/", false).unwrap_err(), "nothing any more");
    assert!(gathering().includes_web() && !Grant::of_tenant(Tenant::local()).includes_web());
}
