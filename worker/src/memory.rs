//! How much memory this process may use.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The machine's memory, or what the control groups of this process allow if that is less, in bytes; `None` if Linux does not say.
pub(crate) fn limit_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    machine.into_iter().chain(limits).min()
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files that may limit a process with this /proc/self/cgroup: of its group and of every group above it. In a container the
/// path may lead nowhere, and then the root of the mount is its own group.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let file = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?.trim_start_matches('/').to_owned());
        match controllers {
            "" => Some((Path::new(CGROUPS).to_owned(), group, "memory.max")),
            "memory" => Some((Path::new(CGROUPS).join("memory"), group, "memory.limit_in_bytes")),
            _ => None,
        }
    };
    let above = |(root, group, name): (PathBuf, String, &'static str)| {
        let group = PathBuf::from(group);
        group.ancestors().map(|group| root.join(group).join(name)).collect::<Vec<_>>()
    };
    groups.lines().filter_map(file).flat_map(above).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_all_groups_above_count() {
        let files = limit_files("4:memory:/docker/x\n1:cpu:/y\n0::/a/b\n");
        let expected = [
            "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/a/b/memory.max",
            "/sys/fs/cgroup/a/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(files, expected.map(PathBuf::from));
    }

    #[test]
    fn this_machine_has_some_memory() {
        assert_eq!(total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert!(limit_bytes().is_some_and(|bytes| bytes > 64 << 20));
    }
}
