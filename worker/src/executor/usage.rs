//! What an executor takes of this machine that the kernel does not bound for one process: room on the disk, and threads.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::Pid;
use sortinghat_proto::ByteCount;
use tokio::{task::spawn_blocking, time::sleep};

/// How often it is measured.
const INTERVAL: Duration = Duration::from_secs(1);
/// Threads of one executor. The machines with the most cores need some hundreds.
const MAX_THREADS: usize = 4096;
/// Files and folders of one executor. A job has a few.
const MAX_FILES: usize = 10_000;

/// What one executor takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Usage {
    disk_bytes: u64,
    files: usize,
    threads: usize,
}

/// Waits until an executor takes more than it may; returns what that is.
pub(super) async fn excess(process: Pid, scratch: PathBuf, max_bytes: u64) -> String {
    loop {
        sleep(INTERVAL).await;
        let folder = scratch.clone();
        let measured = spawn_blocking(move || Usage::of(process, &folder)).await;
        if let Some(excess) = measured.ok().and_then(|usage| usage.beyond(max_bytes)) {
            return excess;
        }
    }
}

impl Usage {
    fn of(process: Pid, scratch: &Path) -> Self {
        let own = PathBuf::from(format!("/proc/{process}"));
        let mut usage = Self { threads: count(&own.join("task")), ..Self::default() };
        // Files that have no name any more are seen through the descriptors that keep them.
        for entry in fs::read_dir(own.join("fd")).into_iter().flatten().flatten().take(MAX_FILES) {
            if let Ok(file) = fs::metadata(entry.path())
                && file.is_file()
                && file.nlink() == 0
            {
                usage.add(&file);
            }
        }
        let mut folders = vec![scratch.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if usage.files > MAX_FILES {
                    return usage;
                }
                if let Ok(file) = entry.metadata() {
                    usage.add(&file);
                    if file.is_dir() {
                        folders.push(entry.path());
                    }
                }
            }
        }
        usage
    }

    fn add(&mut self, file: &Metadata) {
        self.files += 1;
        self.disk_bytes += file.blocks() * 512;
    }

    fn beyond(self, max_bytes: u64) -> Option<String> {
        let Self { disk_bytes, files, threads } = self;
        if disk_bytes > max_bytes {
            let (has, may) = (ByteCount(disk_bytes), ByteCount(max_bytes));
            return Some(format!("had {has} in temporary files; a task may have {may}"));
        }
        if files > MAX_FILES {
            return Some(format!("had more than {MAX_FILES} temporary files"));
        }
        (threads > MAX_THREADS).then(|| format!("had {threads} threads; at most {MAX_THREADS} are allowed"))
    }
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn files_are_counted_whether_or_not_they_have_a_name() {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("folder")).unwrap();
        fs::write(scratch.path().join("folder/named"), vec![1; 1 << 20]).unwrap();
        let mut nameless = tempfile::tempfile_in(scratch.path()).unwrap();
        nameless.write_all(&vec![1; 2 << 20]).unwrap();
        let usage = Usage::of(Pid::this(), scratch.path());
        assert!(usage.disk_bytes >= 3 << 20, "{usage:?}");
        assert!(usage.threads >= 1 && usage.files >= 3, "{usage:?}");
        assert!(usage.beyond(1 << 20).is_some_and(|excess| excess.contains("may have 1MiB")), "{usage:?}");
        assert_eq!(Usage { threads: MAX_THREADS, ..Usage::default() }.beyond(0), None);
        assert!(Usage { threads: MAX_THREADS + 1, ..Usage::default() }.beyond(0).is_some());
    }
}
