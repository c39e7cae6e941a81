//! Uploads by the real `hat`: killed on either side, they go on where they were, and over a long line small files cost no round trip each.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::{Signal, kill};
use sortinghat_proto::Digest;
use sortinghat_tests::{Dice, Process, Proxy, Weather, binary, lasting_address, start_coordinator, wait_until};
use tempfile::TempDir;
use tokio::time::Instant;

/// Small files, which go in packs.
const SMALL: usize = 240;
const SMALL_BYTES: usize = 64 << 10;
/// A file that goes in three parts, and the length of the first two.
const LARGE_BYTES: usize = 20 << 20;
const PART_BYTES: usize = 8 << 20;
/// How long a file must have been left alone until its digest is remembered, and some more.
const SETTLED: Duration = Duration::from_millis(2_500);
/// Bytes beside the contents: headers, digests, manifests, the memory of digests, and programs that are read.
const BESIDE_BYTES: u64 = 4 << 20;

/// A folder with everything that a test needs.
struct Site {
    folder: TempDir,
    coordinator: Process,
    address: SocketAddr,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (coordinator, address) = coordinator(folder.path(), lasting_address());
        Self { folder, coordinator, address }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes files of two classes that differ from each other, and waits until they have been left alone for long enough.
    fn write_photos(&self, sizes: &[usize]) {
        let mut dice = Dice::new(7);
        for (number, size) in sizes.iter().enumerate() {
            let class = self.path("photos").join(if number % 2 == 0 { "red" } else { "green" });
            fs::create_dir_all(&class).expect("writable");
            let content: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| dice.roll().to_le_bytes()).take(*size).collect();
            fs::write(class.join(format!("{number:05}.jpg")), content).expect("writable");
        }
        let written = Instant::now();
        wait_until("the files to be old enough", || (written.elapsed() > SETTLED).then_some(()));
    }

    /// `hat ingest`, which reaches the coordinator through the proxy.
    fn ingest(&self, proxy: &Proxy) -> Command {
        // The shell tells what the program in it has read.
        let mut command = Command::new("sh");
        command.args(["-c", "\"$@\"; code=$?; cat /proc/$$/io; exit $code", "sh"]).arg(binary("hat"));
        command.args(["--server", &format!("http://{}", proxy.address()), "--detach", "ingest", "set", "photos"]);
        command.current_dir(self.folder.path()).env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    /// The files of all objects by their names, each with its inode and its length.
    fn objects(&self) -> BTreeMap<PathBuf, (u64, u64)> {
        let mut found = BTreeMap::new();
        walk(&self.path("coordinator/objects/t"), &mut found);
        found
    }

    /// Waits until some objects of this length are stored.
    fn wait_for(&self, objects: usize, of_bytes: usize) {
        wait_until("some of the files to be stored", || {
            let found = self.objects().values().filter(|(_, bytes)| *bytes == of_bytes as u64).count();
            (found >= objects).then_some(())
        });
    }
}

fn coordinator(folder: &Path, listen: SocketAddr) -> (Process, SocketAddr) {
    start_coordinator(&folder.join("coordinator"), listen, &folder.join("coordinator.log"), |_| {})
}

/// Adds the objects below a folder. A file that vanishes in the meantime was still being written.
fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, (u64, u64)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => walk(&entry.path(), found),
            Ok(metadata) if !entry.file_name().to_string_lossy().contains('#') => {
                found.insert(entry.path(), (metadata.ino(), metadata.len()));
            }
            _ => {}
        }
    }
}

fn sizes() -> Vec<usize> {
    [vec![LARGE_BYTES], vec![SMALL_BYTES; SMALL]].concat()
}

/// The bytes that were read, as the system tells it.
fn read_bytes(told: &str) -> u64 {
    let line = told.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("the system counts reads");
    line.parse().expect("a number")
}

/// Requires that every object of `before` is the same file as then: whatever is stored again is another file.
fn assert_kept(before: &BTreeMap<PathBuf, (u64, u64)>, after: &BTreeMap<PathBuf, (u64, u64)>) {
    let again = before.iter().filter(|(path, file)| after.get(*path) != Some(file)).count();
    assert_eq!(again, 0, "of {} objects that were there, so many were stored again", before.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_client_is_killed_reads_and_sends_only_the_rest_the_next_time() {
    let site = Site::start();
    site.write_photos(&sizes());
    let proxy = Proxy::start(vec![site.address]).await.expect("a free port");
    proxy.set(Weather::Slow(Duration::from_millis(1)));
    let mut first = Process::start(&mut site.ingest(&proxy), &site.path("hat.log"));
    site.wait_for(1, PART_BYTES);
    let hat = first.child().expect("the shell runs hat");
    kill(hat, Signal::SIGKILL).expect("hat is ours");
    wait_until("hat to be gone", || first.ended());
    // What was on the way may still be stored.
    proxy.reset();
    proxy.set(Weather::Clear);
    let mut before = site.objects();
    wait_until("the server to notice", || {
        let now = site.objects();
        (std::mem::replace(&mut before, now.clone()) == now).then_some(())
    });
    let stored: u64 = before.values().map(|(_, bytes)| bytes).sum();
    let left = sizes().iter().sum::<usize>() as u64 - stored;

    let carried = proxy.carried_bytes();
    let second = site.ingest(&proxy).output().expect("sh starts");
    let told = String::from_utf8_lossy(&second.stdout).into_owned();
    assert!(second.status.success(), "{told}{}", String::from_utf8_lossy(&second.stderr));
    let (sent, read) = (proxy.carried_bytes() - carried, read_bytes(&told));
    println!("{stored} bytes were stored and {left} were left: the second time {read} were read and {sent} sent");
    assert!(sent <= left + BESIDE_BYTES, "{sent} bytes were sent of {left} that were left");
    assert!(read <= left + BESIDE_BYTES, "{read} bytes were read of {left} that were left");
    assert_kept(&before, &site.objects());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_with_what_a_killed_coordinator_still_lacks() {
    let mut site = Site::start();
    site.write_photos(&sizes());
    let proxy = Proxy::start(vec![site.address]).await.expect("a free port");
    proxy.set(Weather::Slow(Duration::from_millis(1)));
    let mut hat = Process::start(&mut site.ingest(&proxy), &site.path("hat.log"));
    // The first packs are there, and the others are on their way, as are the parts of the large file.
    site.wait_for(SMALL / 4, SMALL_BYTES);
    site.coordinator.kill();
    let before = site.objects();
    (site.coordinator, _) = coordinator(site.folder.path(), site.address);
    proxy.set(Weather::Clear);
    let ended = wait_until("hat to end", || hat.ended());
    assert!(ended.success(), "{}", fs::read_to_string(site.path("hat.log")).unwrap_or_default());
    let after = site.objects();
    println!("{} objects were stored before the death, and {} are now", before.len(), after.len());
    assert_kept(&before, &after);
    let large = after.values().filter(|(_, bytes)| *bytes == LARGE_BYTES as u64).count();
    assert_eq!(large, 1, "the parts were joined");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_small_files_take_few_round_trips_of_a_long_line() {
    const FILES: usize = 2_000;
    let site = Site::start();
    site.write_photos(&[1_000; FILES]);
    let proxy = Proxy::start(vec![site.address]).await.expect("a free port");
    let round_trip = Duration::from_millis(400);
    proxy.set(Weather::Far(round_trip / 2));
    let begun = Instant::now();
    let answer = site.ingest(&proxy).output().expect("sh starts");
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let took = begun.elapsed();
    println!("{FILES} files over a round trip of {round_trip:?}: {took:.1?}");
    // Eight files at a time with a round trip each take 100 seconds.
    assert!(took < 60 * round_trip, "{took:?}");
    assert!(site.objects().len() > FILES);
}

#[test]
fn a_file_that_changes_a_moment_after_its_upload_is_uploaded_again() {
    let site = Site::start();
    let photos = site.path("photos/red");
    fs::create_dir_all(&photos).expect("writable");
    for content in [b"first", b"other"] {
        fs::write(photos.join("1.jpg"), content).expect("writable");
        let mut hat = Command::new(binary("hat"));
        hat.args(["--server", &format!("http://{}", site.address), "--detach", "ingest", "set", "photos"]);
        hat.current_dir(site.folder.path()).env("XDG_CACHE_HOME", site.path("cache"));
        let answer = hat.output().expect("hat starts");
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        let digest = Digest::of(content).to_string();
        assert!(site.objects().keys().any(|path| path.ends_with(&digest)), "{content:?} was not uploaded");
    }
}
