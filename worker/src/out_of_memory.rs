//! Finds out whether memory ran out, from the message of a library or from a counter of the kernel.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Whether an error message says that memory ran out. It may be libtorch's, about a GPU or the host, or come from oneDNN, cuBLAS or
/// cuDNN.
pub(crate) fn is_said_in(error: &str) -> bool {
    let error = error.to_lowercase();
    ["out of memory", "not enough memory", "can't allocate memory", "alloc_failed", "allocation_failed"]
        .iter()
        .any(|sign| error.contains(sign))
}

/// Whether this line, printed by a process before it died, is what C++, libtorch or Rust print when an allocation fails.
pub(crate) fn is_last_word(line: &str) -> bool {
    let is_rusts = line.contains("memory allocation of ") && line.contains(" bytes failed");
    is_rusts || line.contains("std::bad_alloc") || line.contains("can't allocate memory")
}

/// How many processes the kernel has killed for want of memory, on this machine and again in the control groups of this
/// process; 0 where it does not count. Only the growth of the number means something.
pub(crate) fn kernel_kills() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    counters(&groups).into_iter().filter_map(|file| kills(&fs::read_to_string(file).ok()?)).sum()
}

/// The files that count for a process with this /proc/self/cgroup. In a container the path may lead nowhere, and then the root of
/// the mount is its own group.
fn counters(groups: &str) -> Vec<PathBuf> {
    let of_group = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let (root, name) = match controllers {
            "" => (Path::new("/sys/fs/cgroup"), "memory.events"),
            "memory" => (Path::new("/sys/fs/cgroup/memory"), "memory.oom_control"),
            _ => return None,
        };
        let own = root.join(group).join(name);
        Some(if own.exists() { own } else { root.join(name) })
    };
    groups.lines().filter_map(of_group).chain([PathBuf::from("/proc/vmstat")]).collect()
}

/// The number behind `oom_kill` in a file of names and numbers.
fn kills(file: &str) -> Option<u64> {
    file.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|number| number.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_are_read_in_every_form() {
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3), "control groups, version 1");
        assert_eq!(kills("low 0\noom 9\noom_kill 4\noom_group_kill 0\n"), Some(4), "version 2");
        assert_eq!(kills("nr_free_pages 7\n"), None);
        let files = counters("9:name=systemd:/\n4:memory:/nowhere/x\n0::/\n");
        let [first, .., last] = files.as_slice() else { panic!("{files:?}") };
        assert_eq!(first, Path::new("/sys/fs/cgroup/memory/memory.oom_control"), "that group is not here");
        assert_eq!(last, Path::new("/proc/vmstat"));
    }

    #[test]
    fn the_last_message_of_each_allocator_is_recognised_and_a_warning_is_not_taken_for_one() {
        for line in [
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "memory allocation of 1073741824 bytes failed",
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
        ] {
            assert!(is_last_word(line), "{line}");
        }
        assert!(!is_last_word("WARN out of memory while predicting; going on with half of the batch"));
    }
}
