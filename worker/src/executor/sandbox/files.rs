//! What an executor sees of the file system, by landlock.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use crate::device;

/// Everything that this version of the kernel's interface can forbid is forbidden unless it is allowed below. Older kernels forbid less.
const KNOWN: ABI = ABI::V6;

/// Files and folders that a process that computes reads: libraries, and what it asks the kernel about this machine.
const READABLE: &[&str] = &[
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/local/cuda",
    "/usr/share/zoneinfo",
    "/nix/store",
    "/gnu/store",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/OpenCL",
    "/proc/cpuinfo",
    "/proc/devices",
    "/proc/driver/nvidia",
    "/proc/filesystems",
    "/proc/meminfo",
    "/proc/modules",
    "/proc/stat",
    "/proc/sys/kernel",
    "/proc/sys/vm",
    "/proc/version",
    "/proc/vmstat",
    "/sys/bus/pci",
    "/sys/class/pci_bus",
    "/sys/devices",
    "/sys/fs/cgroup",
    "/sys/kernel/mm",
    "/sys/module",
    "/dev/urandom",
    "/dev/random",
];
/// Devices that are written to as well.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero"];

/// This process's folder in /proc. The kernel forgets the rule for it together with the folder's entry, so that is held.
static OWN_PROCESS: OnceLock<File> = OnceLock::new();

/// Confines this process to what is listed here. The error says what is missing, as in "landlock (...)".
pub(super) fn confine(scratch: &Path) -> Result<(), String> {
    let landlock = |error: RulesetError| format!("landlock ({error})");
    let read = AccessFs::from_read(KNOWN) & !AccessFs::Execute;
    let device = read | AccessFs::WriteFile | AccessFs::IoctlDev;
    let write = AccessFs::from_all(KNOWN)
        & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock | AccessFs::MakeFifo);
    let rules = own_process()
        .chain(READABLE.iter().map(PathBuf::from))
        .chain(libraries())
        .map(|path| (path, read))
        .chain(DEVICES.iter().map(PathBuf::from).chain(nvidia_devices()).map(|path| (path, device)))
        .chain([(scratch.to_owned(), write)]);
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(KNOWN)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(KNOWN)))
        .and_then(Ruleset::create)
        .map_err(landlock)?;
    let ruleset = rules.filter_map(rule).try_fold(ruleset, |ruleset, rule| ruleset.add_rule(rule)).map_err(landlock)?;
    match ruleset.restrict_self().map_err(landlock)?.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced => Err("a part of landlock (this kernel is older than Linux 6.12)".to_owned()),
        RulesetStatus::NotEnforced => Err("landlock (this kernel has none, or it is turned off)".to_owned()),
    }
}

/// A rule for what lies at and below a path; `None` if nothing is there. A file takes only the rights that files have.
fn rule((path, access): (PathBuf, BitFlags<AccessFs>)) -> Option<PathBeneath<PathFd>> {
    let is_folder = fs::metadata(&path).ok()?.is_dir();
    let access = if is_folder { access } else { access & AccessFs::from_file(KNOWN) };
    Some(PathBeneath::new(PathFd::new(&path).ok()?, access))
}

fn own_process() -> impl Iterator<Item = PathBuf> {
    let path = PathBuf::from("/proc/self");
    if let Ok(folder) = File::options().read(true).custom_flags(libc::O_PATH).open(&path) {
        // It is held once. A second call keeps the first.
        let _ = OWN_PROCESS.set(folder);
    }
    std::iter::once(path)
}

/// Where libraries lie that are no part of the system: the folders that the loader was told of, libtorch, and this program itself, whose
/// names a backtrace reads.
fn libraries() -> impl Iterator<Item = PathBuf> {
    let told = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let told: Vec<PathBuf> = env::split_paths(&told).filter(|path| path.is_absolute()).collect();
    let libtorch = device::libtorch_folders();
    let program = env::current_exe().ok();
    told.into_iter().chain(libtorch).chain(program)
}

fn nvidia_devices() -> impl Iterator<Item = PathBuf> {
    let devices = fs::read_dir("/dev").into_iter().flatten().flatten();
    devices.filter(|entry| entry.file_name().to_string_lossy().starts_with("nvidia")).map(|entry| entry.path())
}
