//! Confines an executor before it reads a byte of a photo: what a defect in a decoder would let an attacker do, the kernel refuses.
//!
//! The layers, from the outside in:
//!
//! 1. The process keeps no descriptor but those it was given, gains no privilege by a program that it runs, and leaves no core.
//! 2. It is alone in a network namespace, where the kernel lets it make one.
//! 3. Landlock (`files`): it reads system libraries and libtorch, and writes into its scratch folder; other processes are out of reach.
//! 4. Seccomp (`calls`): of the system calls, it has those that computing needs. Anything else is refused, not deadly.
//!
//! [`confine`] comes before the first thread, because landlock counts for threads that are started later only.

mod calls;
mod files;

use std::{
    fs, io,
    os::{fd::RawFd, unix::fs::MetadataExt as _},
    path::Path,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
    },
};

pub use calls::Sockets;

/// Files that an executor may have open at a time. Whatever they hold stays in memory or on the disk.
const MAX_DESCRIPTORS: u64 = 4096;

/// What confines this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// What is missing of all that this software knows, each with the reason.
    pub missing: Vec<String>,
}

/// The least that is required of a sandbox is not to be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "the sandbox cannot be set up: failed to {action}: {source}; --sandbox off goes on without one, if you trust every photo"
)]
pub struct SandboxError {
    /// What was tried.
    action: &'static str,
    /// What the operating system said.
    source: io::Error,
}

impl Confinement {
    /// What confines the process, one sentence for operators.
    pub fn in_words(&self) -> String {
        match self.missing.as_slice() {
            [] => "on".to_owned(),
            missing => format!("on, without {}", missing.join(" and without ")),
        }
    }
}

/// What is said of a process that is not confined.
pub const OFF: &str = "off: photos are decoded by a process that can do whatever the worker can";

/// Confines this process, which may write into `scratch` only. Call it before the first thread. Descriptors from `first_closed` on are
/// closed.
///
/// # Errors
/// [`SandboxError`] if the least cannot be had: no new privileges, and the filter of system calls.
pub fn confine(scratch: &Path, sockets: Sockets, first_closed: RawFd) -> Result<Confinement, SandboxError> {
    let failed = |action| move |source: io::Error| SandboxError { action, source };
    check_that_it_is_alone().map_err(failed("begin before the first thread"))?;
    close_descriptors(first_closed).map_err(failed("close the descriptors that it inherited"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(io::Error::from).map_err(failed("forbid core dumps"))?;
    bound_descriptors().map_err(failed("bound its open files"))?;
    prctl::set_no_new_privs().map_err(io::Error::from).map_err(failed("give up new privileges"))?;
    let mut missing = Vec::new();
    if let Err(error) = leave_network() {
        missing.push(format!("a network namespace ({error})"));
    }
    if let Err(reason) = files::confine(scratch) {
        missing.push(reason);
    }
    calls::filter(sockets).map_err(failed("filter system calls"))?;
    Ok(Confinement { missing })
}

/// Takes away the sockets that [`Sockets::Local`] has left, from every thread of this process.
///
/// # Errors
/// [`SandboxError`] if the kernel refuses that.
pub fn close_sockets() -> Result<(), SandboxError> {
    calls::close_sockets().map_err(|source| SandboxError { action: "filter system calls", source })
}

/// A thread that runs already would not be confined.
fn check_that_it_is_alone() -> io::Result<()> {
    match fs::read_dir("/proc/self/task")?.count() {
        1 => Ok(()),
        threads => Err(io::Error::other(format!("a library has started threads, there are {threads}"))),
    }
}

fn bound_descriptors() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let bound = hard.min(MAX_DESCRIPTORS);
    Ok(setrlimit(Resource::RLIMIT_NOFILE, bound, bound)?)
}

/// Closes every descriptor from this number on.
#[allow(unsafe_code, reason = "close_range has no wrapper here; the block states why it is sound")]
fn close_descriptors(first: RawFd) -> io::Result<()> {
    // SAFETY: nothing in this process owns a descriptor from this number on, as the caller says.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    if closed == 0 {
        return Ok(());
    }
    // Before Linux 5.9.
    for entry in fs::read_dir("/proc/self/fd")?.flatten().collect::<Vec<_>>() {
        if let Some(descriptor) = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok())
            && descriptor >= first
        {
            // SAFETY: as above. The one that listed the folder is closed already, for which close returns an error.
            unsafe { libc::close(descriptor) };
        }
    }
    Ok(())
}

/// Moves this process into a network of its own, in which there is nothing. This takes a user namespace, in which it stays who it is.
fn leave_network() -> io::Result<()> {
    let own = fs::metadata("/proc/self")?;
    let (user, group) = (own.uid(), own.gid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    // Without these it would see itself as nobody, which only looks odd.
    let _ = fs::write("/proc/self/setgroups", "deny");
    let _ = fs::write("/proc/self/gid_map", format!("{group} {group} 1"));
    let _ = fs::write("/proc/self/uid_map", format!("{user} {user} 1"));
    Ok(())
}
